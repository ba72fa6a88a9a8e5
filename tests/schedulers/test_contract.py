"""Every scheduler says the same things in the same way, whatever its commands print.

The commands are scripts that print what was recorded: of Slurm 22.05 and Grid Engine 8.1.9 on real clusters, of PBS
Pro and LSF from their documentation. On real clusters: tests/slurm, tests/gridengine.
"""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import pytest

from aims_pax.errors import SetupError
from aims_pax.schedulers.base import Phase, Refused, Scheduler
from aims_pax.schedulers.registry import known_schedulers
from tests.schedulers.recorded import ENDS, HEADERS, INSIDE, JOBS, PHASES, REFUSALS, UNANSWERED

ALL = sorted(known_schedulers())
SPECIAL = Path("/scratch/my project/100%, a:$b 'c'/p.0c0ffee0.1")


@pytest.fixture(params=ALL)
def scheduler(request, monkeypatch) -> Scheduler:
    monkeypatch.setattr("getpass.getuser", lambda: "root")
    return type(known_schedulers()[request.param])()  # remembers no job of another test


def test_every_scheduler_is_recorded_here():
    for table in (JOBS, ENDS, PHASES, REFUSALS, UNANSWERED, HEADERS, INSIDE):
        assert sorted(table) == ALL


def test_waiting_and_running_jobs_are_found_by_their_name(scheduler, commands):
    commands(**JOBS[scheduler.name])
    found = scheduler.jobs_named(".ab12.")
    assert {named.name: named.state.phase for named in found.values()} == {
        "proj.ab12.1": Phase.RUNNING, "proj.ab12.2": Phase.RUNNING, "proj.ab12.3": Phase.WAITING,
    }  # fmt: skip
    assert scheduler.jobs_named(".nobody.") == {}
    assert scheduler.alive(found) == set(found)
    assert {state.phase for state in scheduler.states(found).values()} == {Phase.RUNNING, Phase.WAITING}


def test_how_a_job_ended_is_known(scheduler, commands):
    for expected, (job, answers) in ENDS[scheduler.name].items():
        commands(**answers)
        state = scheduler.states([job])[job]
        assert (state.phase, state.ended) == (Phase(expected), True), (expected, state)
        assert state.word
        assert scheduler.alive([job]) == set()


def test_words_of_the_scheduler_are_phases(scheduler):
    function, words = PHASES[scheduler.name]
    for word, phase in words.items():
        assert function(word).phase.value == phase, word


def test_a_scheduler_that_is_away_is_no_mistake_of_the_user(scheduler, commands):
    commands(**UNANSWERED[scheduler.name])
    with pytest.raises(Refused) as refused:
        scheduler.jobs_named(".x.")
    assert refused.value.passing, refused.value
    assert scheduler.alive(["7", "8"]) == {"7", "8"}, "nobody can say that they have ended"


def test_what_a_scheduler_refuses_is_said_in_its_words(scheduler, commands, tmp_path):
    script = tmp_path / "p.ab12.1"
    script.write_text("#!/bin/sh\n")
    for answer, words, passing in REFUSALS[scheduler.name]:
        commands(**{scheduler.submitter: ("", answer, 1)})
        with pytest.raises(Refused, match=words) as refused:
            scheduler.submit(script, "")
        assert refused.value.passing is passing


def test_where_there_is_no_scheduler_that_is_said(scheduler, commands):
    with pytest.raises(
        SetupError, match=rf"CLUSTER.type: {scheduler.name}: there is no {scheduler.query} on this"
    ):
        scheduler.check()
    assert not scheduler.available()
    assert not scheduler.at_login(os.environ)
    assert scheduler.alive(["7"]) == {"7"}


def test_commands_that_are_not_its_own_or_have_no_configuration_are_said(scheduler, commands):
    commands(**{scheduler.query: ("somebody else's 1.0\n", "no configuration\n", 1)})
    with pytest.raises(SetupError, match=rf"CLUSTER.type: {scheduler.name}: .*{scheduler.query}"):
        scheduler.check()


def test_a_job_is_submitted_and_its_id_read(scheduler, commands, tmp_path):
    script = tmp_path / "p.ab12.1"
    script.write_text("#!/bin/sh\necho this very script\n")
    answers = {
        "slurm": "17\n",
        "sge": "17\n",
        "pbs": "17.server\n",
        "lsf": "Job <17> is submitted to queue <normal>.\n",
    }
    called = commands(**{scheduler.submitter: answers[scheduler.name]})
    assert scheduler.submit(script, "") == ("17.server" if scheduler.name == "pbs" else "17")
    assert str(script) in called.read_text() or "this very script" in called.read_text()


def test_lines_that_a_site_adds_do_not_hide_the_id_of_a_job_and_without_an_id_there_is_no_job(
    scheduler, commands, tmp_path
):
    script = tmp_path / "p.ab12.1"
    script.write_text("#!/bin/sh\n")
    identifier = {"pbs": "17.server", "lsf": "Job <17> is submitted to queue <normal>."}.get(
        scheduler.name, "17"
    )
    commands(**{scheduler.submitter: f"checking quotas\n{identifier}\ncharged to: mine\n"})
    assert scheduler.submit(script, "") == ("17.server" if scheduler.name == "pbs" else "17")
    commands(**{scheduler.submitter: ""})
    with pytest.raises(Refused):
        scheduler.submit(script, "")


def test_the_users_header_is_read_and_what_must_be_ours_is_ours(scheduler):
    recorded = HEADERS[scheduler.name]
    for header, expected in recorded["read"].items():
        read = scheduler.read_header(header)
        assert {name: getattr(read, name) for name in expected} == expected, header
    head = scheduler.script_head(recorded["header"], "p.0c0ffee0.1", SPECIAL, 1)
    assert head[0] == "#!/bin/bash -l"
    assert any("p.0c0ffee0.1" in line and line.startswith(scheduler.directive) for line in head)
    text = "\n".join(head)
    for kept in recorded["kept"]:
        assert kept in text
    for dropped in recorded["dropped"]:
        assert dropped not in text
    assert text.index(scheduler.directive) < text.index("module load x")
    again = scheduler.read_header(text)
    assert (again.walltime, again.tasks) == (scheduler.read_header(recorded["header"]).walltime, again.tasks)


def test_the_output_of_a_block_goes_beside_its_script_whatever_its_path(scheduler):
    text = "\n".join(scheduler.script_head("", "p.0c0ffee0.1", SPECIAL, 1))
    if scheduler.name == "slurm":  # which reads %
        assert """--output="/scratch/my project/100%%, a:$b 'c'/p.0c0ffee0.1.out\"""" in text
    else:
        assert "exec >>'/scratch/my project/100%, a:$b '\"'\"'c'\"'\"'/p.0c0ffee0.1.out' 2>>" in text


def test_what_cannot_be_for_a_block_is_refused(scheduler):
    for header, words in HEADERS[scheduler.name]["refused"].items():
        with pytest.raises(ValueError, match=words):
            scheduler.read_header(header)


def test_a_process_knows_whose_job_it_is_and_how_long_that_lasts(scheduler, commands):
    environment, answers, left = INSIDE[scheduler.name](time.time())
    commands(**answers)
    assert scheduler.own_job(environment)
    assert scheduler.own_job({}) is None
    assert scheduler.seconds_left({}) is None
    seconds = scheduler.seconds_left({**os.environ, **environment})
    assert seconds == pytest.approx(left, abs=61)
    assert scheduler.allotted_cores(environment) == 4
    assert (
        scheduler.allocation_slots("mpirun -np 2 aims.x", {**environment, "SLURM_JOB_CPUS_PER_NODE": "4"})
        == 2
    )
    assert not scheduler.at_login({**os.environ, **environment})


def test_launch_commands_side_by_side_do_not_share_cores(scheduler):
    shared = scheduler.step_environment({"HOME": "/", "I_MPI_PIN": "yes"}, True)
    assert shared["HOME"] == "/"
    if scheduler.starts_steps:
        assert shared["SLURM_EXACT"] == "1"
    else:
        assert shared["OMPI_MCA_hwloc_base_binding_policy"] == "none"
        assert shared["I_MPI_PIN"] == "yes", "what the user has set counts"
    assert scheduler.step_environment({"HOME": "/"}, False) == {"HOME": "/"}


def test_names_of_jobs_are_names_to_the_scheduler(scheduler):
    name = scheduler.job_name("2024_aspirin")
    assert name.endswith("2024_aspirin")
    assert scheduler.name != "sge" or not name[0].isdigit()


def test_a_walltime_without_an_end_is_none():
    assert known_schedulers()["slurm"].read_header("#SBATCH --time=UNLIMITED").walltime == math.inf
    assert known_schedulers()["sge"].read_header("#$ -l h_rt=INFINITY").walltime == math.inf
