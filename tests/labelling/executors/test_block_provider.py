"""Blocks as jobs of a scheduler: submitted, taken over, watched, given up."""

from types import SimpleNamespace

from parsl.jobs.states import JobState, JobStatus

from aims_pax.labelling.executors.parsl_blocks import BlockErrors


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
