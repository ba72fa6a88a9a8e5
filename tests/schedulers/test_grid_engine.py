"""What is Grid Engine's alone; what all schedulers have in common is in test_contract."""

import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from aims_pax.schedulers import grid_engine
from aims_pax.schedulers.base import Phase, Refused
from aims_pax.schedulers.grid_engine import (
    GridEngine,
    accounted,
    listed_jobs,
    queue_limits,
    started_and_limits,
)
from tests.schedulers.recorded import NO_JOBS


@pytest.fixture
def scheduler():
    return GridEngine()


def test_a_job_is_ending_until_qacct_knows_it_and_gone_if_it_never_does(scheduler, commands, monkeypatch):
    commands(qstat=NO_JOBS, qacct=("", "error: job id 7 not found\n", 1))
    assert scheduler.states(["7"])["7"].phase == Phase.ENDING
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + grid_engine.ACCOUNTING_DELAY + 1)
    assert scheduler.states(["7", "8"])["7"].phase == Phase.CANCELLED
    assert scheduler.states(["8"])["8"].phase == Phase.ENDING, "each has its own time"


def test_a_job_that_qstat_shows_again_has_all_its_time_again(scheduler, commands, monkeypatch):
    commands(qstat=NO_JOBS, qacct=("", "error: job id 7 not found\n", 1))
    scheduler.states(["7"])
    row = "<job_list><JB_job_number>7</JB_job_number><JB_name>x</JB_name><state>r</state></job_list>"
    commands(qstat=f"<job_info><queue_info>{row}</queue_info></job_info>")
    assert scheduler.states(["7"])["7"].phase == Phase.RUNNING
    commands(qstat=NO_JOBS)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + grid_engine.ACCOUNTING_DELAY + 1)
    assert scheduler.states(["7"])["7"].phase == Phase.ENDING


@pytest.mark.parametrize(
    ("failed", "code", "phase", "word"),
    [
        ("0", "0", Phase.COMPLETED, "COMPLETED"),
        ("0", "3", Phase.FAILED, "exit status 3"),
        ("37  : qmaster enforced h_rt, h_cpu, or h_vmem limit", "137", Phase.TIMEOUT, "TIMEOUT"),
        (
            "100 : assumedly after job",
            "137",
            Phase.FAILED,
            "failed 100 : assumedly after job, exit status 137",
        ),
        ("0", "137 (Killed)", Phase.FAILED, "exit status 137"),
    ],
)
def test_how_a_job_ended_is_read_from_its_last_record(failed, code, phase, word):
    record = f"{'=' * 62}\njobname      x\nfailed       {failed}\nexit_status  {code}\n"
    state = accounted(record.replace(failed, "1").replace(code, "1") + record)
    assert state.phase == phase
    assert state.word.startswith(word)


def test_a_job_that_has_ended_may_be_cancelled_but_other_errors_are_said(scheduler, commands):
    commands(qdel=('denied: job "7" does not exist\n', "", 1))
    scheduler.cancel(["7"])
    commands(qdel=("error: you are not the owner of job 7\n", "", 1))
    with pytest.raises(Refused, match="not the owner"):
        scheduler.cancel(["7"])
    scheduler.cancel([])  # nobody is asked


def test_the_limit_of_the_queue_counts_where_the_job_has_none(scheduler, commands):
    assert queue_limits("qname all.q\ns_rt  INFINITY\nh_rt  24:00:00,[node7=01:00:00]\nh_cpu 5\n") == [
        86400.0
    ]
    start = time.time() - 100
    job = f"<a><JAT_start_time>{start:.0f}</JAT_start_time></a>"
    inside = {"JOB_ID": "7", "NSLOTS": "4", "QUEUE": "all.q"}
    commands(qstat=job, qconf="h_rt 0:10:0\ns_rt INFINITY\n")
    assert scheduler.seconds_left(inside) == pytest.approx(500, abs=2)
    commands(qconf="h_rt INFINITY\ns_rt INFINITY\n")
    assert scheduler.seconds_left(inside) is None


def test_times_of_univa_are_milliseconds():
    def xml(start):
        return f"<a><JAT_start_time>{start}</JAT_start_time></a>"

    assert started_and_limits(xml(1795665412))[0] == started_and_limits(xml(1795665412000))[0] == 1795665412
    with pytest.raises(ValueError, match="does not report when this job began"):
        started_and_limits("<a></a>")


def test_an_answer_that_is_cut_off_is_asked_for_again():
    with pytest.raises(ElementTree.ParseError):
        ElementTree.fromstring(NO_JOBS[:60])
    with pytest.raises(Refused, match="not XML") as refused:
        listed_jobs(NO_JOBS[:60])
    assert refused.value.passing


def test_a_job_id_of_another_program_is_not_taken_for_a_job(scheduler):
    assert scheduler.own_job({"JOB_ID": "7"}) is None
    assert scheduler.own_job({"JOB_ID": "7", "SGE_TASK_ID": "undefined"}) == "7"


def test_a_block_runs_in_bash_whatever_the_shell_of_the_queue():
    def own(header):
        return GridEngine().own_lines(header, "p.1", Path("/runs/p.1"), 1)

    assert "#$ -S /bin/bash" in own("#$ -l h_rt=60")
    assert not [line for line in own("#$ -cwd -S /opt/bin/bash") if "-S" in line]
