"""What is LSF's alone; what all schedulers have in common is in test_contract."""

import pytest

from aims_pax.schedulers.base import Phase, Refused
from aims_pax.schedulers.lsf import LSF, lsf_jobs, lsf_seconds, lsf_time_left


@pytest.fixture
def scheduler():
    return LSF()


def test_jobs_that_have_ended_are_not_listed_by_name_and_nothing_to_list_is_no_error(scheduler, commands):
    commands(bjobs="1|RUN|-|-|proj.ab12.1\n2|DONE|0|-|proj.ab12.2\n3|EXIT|1|-|proj.ab12.3\n")
    assert set(scheduler.jobs_named(".ab12.")) == {"1"}
    commands(bjobs=("", "No unfinished job found\n", 255))
    assert scheduler.jobs_named(".ab12.") == {}


def test_a_name_may_hold_what_separates_the_fields():
    (named,) = lsf_jobs("7|RUN|-|-|a|b\nnot a row of ours\n").values()
    assert named.name == "a|b"


def test_a_job_that_has_ended_may_be_cancelled_but_other_errors_are_said(scheduler, commands):
    commands(bkill=("", "Job <7>: Job has already finished\n", 255))
    scheduler.cancel(["7"])
    commands(bkill=("", "Job <7>: User permission denied\n", 255))
    with pytest.raises(Refused, match="permission denied"):
        scheduler.cancel(["7"])


def test_what_would_make_bsub_wait_or_print_otherwise_is_not_passed_on(
    scheduler, commands, monkeypatch, tmp_path
):
    monkeypatch.setenv("BSUB_BLOCK", "1")
    monkeypatch.setenv("LSB_BJOBS_FORMAT", "jobid")
    monkeypatch.setenv("LSB_DEFAULTQUEUE", "short")
    assert scheduler.not_passed_on("") == ["BSUB_BLOCK=1", "LSB_BJOBS_FORMAT=jobid"]
    commands(bjobs="")
    script = tmp_path / "bin/bjobs"
    script.write_text('#!/bin/sh\necho "7|RUN|-|-|$BSUB_BLOCK$LSB_BJOBS_FORMAT$LSB_DEFAULTQUEUE"\n')
    assert scheduler.jobs_named("")["7"].name == "short"


def test_an_answer_without_an_id_is_a_refusal(scheduler, commands, tmp_path):
    (tmp_path / "p").write_text("#!/bin/sh\n")
    commands(bsub="Request aborted by esub.\n")
    with pytest.raises(Refused, match="Request aborted by esub"):
        scheduler.submit(tmp_path / "p", "")
    commands(bsub="")
    with pytest.raises(Refused, match="no output"):
        scheduler.submit(tmp_path / "p", "")


def test_who_ended_a_job_is_in_its_reason():
    rows = "1|EXIT|140|TERM_RUNLIMIT: job killed|a\n2|EXIT|130|TERM_ADMIN: by root|a\n3|EXIT|137|TERM_MEMLIMIT: x|a\n"
    states = {job: named.state for job, named in lsf_jobs(rows).items()}
    assert [s.phase for s in states.values()] == [Phase.TIMEOUT, Phase.CANCELLED, Phase.FAILED]
    assert states["3"].word == "EXIT 137 (TERM_MEMLIMIT)"


@pytest.mark.parametrize("text", ["", "1:2:3", "60/hostA", "-5", "1.5", "soon"])
def test_what_is_no_limit_of_lsf_is_refused(text):
    with pytest.raises(ValueError, match="not a run limit of LSF"):
        lsf_seconds(text)
    with pytest.raises(ValueError, match="unknown time_left"):
        lsf_time_left(text)


def test_a_warning_signal_would_kill_calculations_and_is_left_out(scheduler):
    assert scheduler.read_header("#BSUB -W 60 -wa USR2 -wt 5").replaced == ("-wa", "-wt")
    assert scheduler.without_ours("#BSUB -wa USR2 -wt 5") is None
