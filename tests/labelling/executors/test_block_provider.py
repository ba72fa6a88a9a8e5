"""Blocks as jobs of a scheduler: submitted, taken over, watched, given up."""

import logging
from types import SimpleNamespace

import pytest
from parsl.jobs.states import JobState, JobStatus

from aims_pax.errors import SetupError
from aims_pax.labelling.executors import block_provider
from aims_pax.labelling.executors.block_provider import STILLBORN, SchedulerBlocks
from aims_pax.labelling.executors.block_request import Blocks
from aims_pax.labelling.executors.handover import KEY
from aims_pax.labelling.executors.parsl_blocks import BlockErrors
from aims_pax.schedulers.base import JobState as SchedulerState
from aims_pax.schedulers.base import Phase, Refused
from aims_pax.schedulers.slurm import Slurm


def test_blocks_that_have_ended_are_held_once_and_no_others():
    held: list[str] = []
    pool = SimpleNamespace(
        _simulated_status={}, bad_state_is_set=False, _hold_block=held.append, blocks_to_job_id={}
    )
    states = {
        "0": JobState.RUNNING, "1": JobState.FAILED, "2": JobState.SCALED_IN, "3": JobState.MISSING,
        "4": JobState.TIMEOUT, "5": JobState.CANCELLED, "6": JobState.PENDING,
    }  # fmt: skip
    errors = BlockErrors(None)
    for _ in range(2):
        errors(pool, {block: JobStatus(state) for block, state in states.items()})
    assert held == ["1", "4", "5"]


class Desk(Slurm):
    """Slurm without its commands: answers what it is told."""

    def __init__(self):
        self.submitted, self.cancelled, self.answer, self.phases = [], [], None, {}

    def submit(self, script, header):
        self.submitted.append(script)
        if self.answer is not None:
            raise self.answer
        return str(100 + len(self.submitted))

    def states(self, jobs):
        if self.answer is not None:
            raise self.answer
        return {job: SchedulerState(self.phases.get(job, Phase.WAITING), "as told") for job in jobs}

    def cancel(self, jobs):
        if self.answer is not None:
            raise self.answer
        self.cancelled += jobs


@pytest.fixture
def provider(tmp_path, files):
    def make(inherited=None, **changes):
        blocks = Blocks(Desk(), "#SBATCH -t 60", jobs=4, most=3, **changes)
        return SchedulerBlocks(blocks, "p.0c0ffee0", tmp_path, "cd /there", files, "secret", inherited or {})

    return make


def states(provider, *jobs):
    return [status.state for status in provider.status(list(jobs))]


def test_a_block_is_a_script_that_only_its_user_can_read_and_the_driver_expects_it(provider, files):
    made = provider()
    job = made.submit("--port 7 --logdir='/a b'", 1)
    assert job == "101"
    (script,) = made.scheduler.submitted
    assert script.name == "p.0c0ffee0.1"
    assert script.stat().st_mode & 0o077 == 0, "it holds the key"
    text = script.read_text()
    assert f"\ncd /there\n\n{KEY}=secret exec " in text
    assert f"block_program {files.folder} p.0c0ffee0.1 4 " in text
    driver = files.driver(files.probe("b"))
    assert (driver.token, driver.pools) == ("0c0ffee0", {"p.0c0ffee0.1": ["--port", "7", "--logdir=/a b"]})
    assert made.submit("--port 7", 1) == "102"
    assert set(files.driver(files.probe("b")).pools) == {"p.0c0ffee0.1", "p.0c0ffee0.2"}


def test_with_mpi_a_block_computes_nothing_without_a_driver(provider, files):
    made = provider(mpi=True)
    made.submit("x", 1)
    assert f"{files.folder} p.0c0ffee0.1 0 " in made.scheduler.submitted[0].read_text()


def test_blocks_of_an_earlier_run_are_taken_over_before_new_ones_are_submitted(provider, files):
    made = provider({"7": "p.0ld.3"})
    assert made.submit("-a", 1) == "7"
    assert made.scheduler.submitted == []
    assert set(files.driver(files.probe("b")).pools) == {"p.0ld.3"}
    assert made.resources["7"]["inherited"]
    assert made.submit("-a", 1) == "101"


def test_a_scheduler_that_is_away_is_left_alone_for_a_while_and_a_refusal_is_not_remembered(provider, caplog):
    made = provider()
    made.scheduler.answer = Refused("sbatch: try again", passing=True)
    for _ in range(3):
        with pytest.raises(Refused, match="try again"):
            made.submit("x", 1)
    assert len(made.scheduler.submitted) == 1
    assert made.passing == {"sbatch: try again"}
    made.quiet_until = 0.0
    made.scheduler.answer = Refused("sbatch: no such partition")
    for _ in range(2):
        with pytest.raises(Refused, match="no such partition"):
            made.submit("x", 1)
    assert len(made.scheduler.submitted) == 3
    made.scheduler.answer = None
    assert made.submit("x", 1) == "104"


def test_states_follow_the_scheduler_and_stay_while_it_does_not_answer(provider, caplog):
    caplog.set_level(logging.INFO, block_provider.__name__)
    made = provider()
    job = made.submit("x", 1)
    assert states(made, job) == [JobState.PENDING]
    for phase, state in (
        (Phase.RUNNING, JobState.RUNNING), (Phase.ENDING, JobState.RUNNING), (Phase.TIMEOUT, JobState.TIMEOUT),
    ):  # fmt: skip
        made.scheduler.phases[job] = phase
        assert states(made, job) == [state]
    assert "Slurm job 101: as told" in caplog.text
    other = made.submit("x", 1)
    made.scheduler.answer = Refused("away", passing=True)
    assert states(made, job, other) == [JobState.TIMEOUT, JobState.PENDING]


def test_a_scheduler_that_does_not_tell_the_states_for_minutes_is_warned_of(provider, caplog, monkeypatch):
    monkeypatch.setattr(block_provider, "SILENT", 0.0)
    made = provider()
    job = made.submit("x", 1)
    made.scheduler.answer = Refused("squeue: no such option")
    states(made, job)
    assert "has not reported the states" not in caplog.text
    states(made, job)
    assert "Slurm has not reported the states of blocks for 0 min" in caplog.text
    assert "squeue: no such option" in caplog.text


def test_the_scheduler_is_asked_often_only_while_a_block_is_new(provider):
    made = provider()
    assert made.status_polling_interval == 30
    job = made.submit("x", 1)
    assert made.status_polling_interval == 5
    made._young[job] -= 200
    assert made.status_polling_interval == 30


def test_blocks_that_compute_for_an_earlier_run_are_not_cancelled(provider, caplog):
    made = provider({"7": "p.0ld.3"})
    old, new = made.submit("x", 1), made.submit("x", 1)
    made.protected = lambda: {old}
    assert made.cancel([old, new]) == [False, True]
    assert made.scheduler.cancelled == [new]
    assert states(made, old, new) == [JobState.PENDING, JobState.CANCELLED]
    made.scheduler.answer = Refused("away", passing=True)
    assert made.cancel([old, new]) == [False, False]
    assert f"cannot cancel Slurm jobs {new}: away" in caplog.text


def pool(**changes):
    """What `BlockErrors` uses of Parsl's executor."""
    raised = []
    made = SimpleNamespace(
        _simulated_status={}, bad_state_is_set=False, _hold_block=lambda block: None, blocks_to_job_id={},
        set_bad_state_and_fail_all=raised.append, raised=raised,
    )  # fmt: skip
    return SimpleNamespace(**{**vars(made), **changes})


def test_blocks_that_end_without_any_worker_end_the_run_with_what_the_last_one_said(provider, tmp_path):
    made, executor = provider(), pool()
    job = made.submit("x", 1)
    made.resources[job]["word"] = "FAILED"
    errors = tmp_path / "p.0c0ffee0.1.err"
    errors.write_text("one\n\ntwo\nthree\nbash: python: command not found\n")
    missing = {str(k): JobStatus(JobState.MISSING, stderr_path=str(errors)) for k in range(STILLBORN)}
    handler = BlockErrors(made)
    handler(executor, dict(list(missing.items())[: STILLBORN - 1]))
    assert executor.raised == []
    handler(executor, missing)
    (error,) = executor.raised
    assert isinstance(error, SetupError)
    assert str(error).startswith(
        "3 Slurm blocks in a row ended without any worker; the last one: FAILED. Its output: "
        f"two / three / bash: python: command not found (all of it in {errors})"
    )
    assert "Change CLUSTER.worker_str or slurm_str" in str(error)


def test_a_block_that_has_worked_in_between_begins_the_count_again(provider):
    executor, handler = pool(), None
    handler = BlockErrors(provider())
    kinds = [JobState.MISSING] * 2 + [JobState.COMPLETED] + [JobState.MISSING] * 2
    handler(executor, {str(k): JobStatus(state) for k, state in enumerate(kinds)})
    assert (handler.streak, executor.raised) == (2, [])


def test_refused_blocks_count_unless_the_scheduler_was_only_away(provider):
    made = provider()
    made.passing.add("sbatch: try again")
    for message, raised in (
        ("Failed to start block 0: sbatch: try again", 0),
        ("Failed: no such partition", 1),
    ):
        executor = pool(_simulated_status=dict.fromkeys("012"))
        BlockErrors(made)(executor, {k: JobStatus(JobState.FAILED, message=message) for k in "012"})
        assert len(executor.raised) == raised
    assert str(executor.raised[0]).startswith(
        "CLUSTER.slurm_str: Slurm refused 3 blocks in a row: no such partition. Change slurm_str"
    )
