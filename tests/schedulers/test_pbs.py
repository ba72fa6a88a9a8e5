"""What is PBS Pro's alone; what all schedulers have in common is in test_contract."""

from pathlib import Path

import pytest

from aims_pax.schedulers.base import Phase, Refused
from aims_pax.schedulers.pbs import PBSPro, directives_first, pbs_jobs, pbs_state
from tests.schedulers.recorded import pbs


@pytest.fixture
def scheduler():
    return PBSPro()


def test_some_versions_write_tabs_into_their_json_and_some_nothing_at_all():
    assert pbs_jobs('{"Jobs": {"7.s": {"Variable_List": "a\tb"}}}') == {"7.s": {"Variable_List": "a\tb"}}
    assert pbs_jobs("\n") == pbs_jobs('{"timestamp": 1}') == {}
    with pytest.raises(Refused, match="not JSON") as refused:
        pbs_jobs(pbs(j7={"job_state": "R"})[:-5])
    assert refused.value.passing


def test_a_job_that_is_not_known_any_more_has_ended_and_may_be_cancelled(scheduler, commands):
    commands(qstat=(pbs(j7={"job_state": "R"}), "qstat: Unknown Job Id 8.server\n", 153))
    found = scheduler.states(["7.server", "8.server"])
    assert [s.phase for s in found.values()] == [Phase.RUNNING, Phase.COMPLETED]
    commands(qdel=("", "qdel: Job has finished 7.server\n", 35))
    scheduler.cancel(["7.server"])
    commands(qdel=("", "qdel: Unauthorized Request 7.server\n", 159))
    with pytest.raises(Refused, match="Unauthorized"):
        scheduler.cancel(["7.server"])


def test_variables_of_other_users_that_make_the_json_invalid_hide_no_job(scheduler, commands, monkeypatch):
    """Seen in OpenPBS: numbers with leading zeros or bare points, and backslashes that JSON does not know."""
    monkeypatch.setattr("getpass.getuser", lambda: "me")
    wrong = '"A":005,\n"B":.123,\n"C":123.,\n"D":"a\\,b \\\'c\\\'"'
    theirs = f'"6.server":{{\n"Job_Name":"x",\n"Variable_List":{{\n{wrong}\n}}\n}}'
    ours = '"7.server":{\n"Job_Name":"p.ab12.1",\n"Job_Owner":"me@login",\n"job_state":"R",\n"Exit_status":-29\n}'
    commands(qstat=f'{{"Jobs":{{\n{theirs},\n{ours}\n}}\n}}\n')
    assert set(scheduler.jobs_named(".ab12.")) == {"7.server"}
    assert pbs_jobs(f'{{"Jobs":{{\n{theirs},\n{ours}\n}}}}')["7.server"]["Exit_status"] == -29


def test_where_no_job_history_is_kept_jobs_that_are_not_listed_have_ended(scheduler, commands):
    program = commands(qstat=pbs(j7={"job_state": "R"})).parent / "bin" / "qstat"
    refusal = "echo 'qstat: PBS is not configured to maintain job history' >&2; exit 153"
    program.write_text(f"#!/bin/sh\ncase $* in *-x*) {refusal};; esac\n/bin/cat {program}.out\n")
    found = scheduler.states(["7.server", "8.server"])
    assert [s.phase for s in found.values()] == [Phase.RUNNING, Phase.COMPLETED]


def test_a_deleted_job_was_cancelled_whatever_its_exit_code():
    assert pbs_state({"job_state": "F", "substate": 91, "Exit_status": 271}).phase == Phase.CANCELLED
    assert pbs_state({"job_state": "F", "substate": 92}).phase == Phase.COMPLETED
    assert pbs_state({"job_state": "F", "Exit_status": 271}).word == "exit status 271"
    assert pbs_state({}).phase == Phase.RUNNING


def test_without_a_limit_a_job_has_no_end_and_without_a_start_nobody_knows(scheduler, commands):
    inside = {"PBS_JOBID": "7.server"}
    commands(qstat=pbs(j7={"job_state": "R", "Resource_List": {"ncpus": 4}}))
    assert scheduler.seconds_left(inside) is None
    commands(qstat=pbs(j7={"job_state": "R"}))
    with pytest.raises(ValueError, match="does not report when this job began"):
        scheduler.seconds_left(inside)


def test_a_login_node_needs_a_configuration_because_others_have_a_qsub_too(scheduler, commands, monkeypatch):
    commands(qsub="7.server\n")
    path = {"PATH": str(commands().parent / "bin")}
    monkeypatch.setattr(Path, "exists", lambda self: False)
    assert not scheduler.at_login(path)
    assert scheduler.at_login({**path, "PBS_CONF_FILE": "/opt/pbs.conf"})
    assert not scheduler.at_login({**path, "PBS_CONF_FILE": "/opt/pbs.conf", "PBS_JOBID": "7.server"})


@pytest.mark.parametrize(
    ("select", "tasks"),
    [("1:ncpus=8:mpiprocs=4", 4), ("1:mpiprocs=4:ncpus=8", 4), ("2:ncpus=16", 32), ("1", None)],
)
def test_processes_of_a_chunk_are_its_mpiprocs_else_its_cpus(scheduler, select, tasks):
    assert scheduler.read_header(f"#PBS -l select={select}").tasks == tasks


def test_options_come_before_the_first_command_which_sends_the_output_elsewhere():
    lines = ["#!/bin/bash", "#PBS -N x", "module load a", "#PBS -q short", "# a remark"]
    made = directives_first(lines, "#PBS", Path("/runs/x"))
    assert made[:3] == ["#!/bin/bash", "#PBS -N x", "#PBS -q short"]
    assert made[3] == "exec >>/runs/x.out 2>>/runs/x.err"
    assert made[4:] == ["module load a", "# a remark"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("-l min_walltime=1:00:00,max_walltime=9:00:00", "remove min_walltime"),
        ("-W block=True", "block=true"),
    ],
)
def test_blocks_whose_end_is_not_known_or_that_qsub_waits_for_are_refused(scheduler, line, said):
    with pytest.raises(ValueError, match=said):
        scheduler.read_header(f"#PBS {line}")
