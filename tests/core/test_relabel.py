"""Recalculation as a state machine."""

import random

import pytest

from aims_pax.core import relabel as stage
from aims_pax.core.relabel import RecalculateRules
from aims_pax.core.work import IllegalEvent, LabelDropped, LabelFailed, Labelled, LogMessage, RequestLabel


def rules(n, at_once=3):
    return RecalculateRules(
        tuple(f"f{k}" for k in range(n)), tuple(f"structure {k}" for k in range(n)), at_once
    )


def test_structures_open_in_order_and_never_more_than_can_be_handed_out():
    r = rules(7)
    state, asked = stage.begin(r), []
    while work := stage.outstanding(state, r):
        assert len(work) <= 3
        asked += [w for w in work if w not in asked]
        state, _ = stage.step(state, Labelled(work[0]), r)
    assert asked == [RequestLabel(f) for f in r.frames]
    assert state.stopped
    assert not state.failed


def test_answers_may_come_in_any_order_and_each_structure_is_asked_for_once():
    r, rng = rules(50, 4), random.Random(1)
    state, answered = stage.begin(r), []
    while work := stage.outstanding(state, r):
        chosen = rng.choice(work)
        answered.append(chosen.frame)
        state, _ = stage.step(state, Labelled(chosen), r)
    assert sorted(answered) == sorted(r.frames)


def test_a_failure_is_noted_with_its_class_and_told_by_the_name_of_the_structure():
    r = rules(3)
    state, effects = stage.step(stage.begin(r), LabelFailed(RequestLabel("f1"), "Crashed", "exit code 2"), r)
    assert state.failed == (stage.Failure("f1", "Crashed", "exit code 2"),)
    assert effects == (LogMessage("structure 1 · Crashed: exit code 2", "warning"),)
    assert RequestLabel("f1") not in stage.outstanding(state, r)


def test_progress_is_told_ten_times_however_long_the_list():
    for n in (20, 37, 1000):
        r = rules(n, 5)
        state, told = stage.begin(r), []
        while work := stage.outstanding(state, r):
            state, effects = stage.step(state, Labelled(work[-1]), r)
            told += [e.text for e in effects]
        assert len(told) == 10
        assert told[-1] == f"{n} of {n} structures answered"


def test_an_empty_list_is_done_at_once():
    assert stage.begin(rules(0)).stopped


def test_a_larger_machine_opens_more_and_a_smaller_one_waits():
    state = stage.begin(rules(10, 2))
    assert len(stage.reopen(state, rules(10, 5)).open) == 5
    wide = stage.begin(rules(10, 5))
    narrow = rules(10, 2)
    wide, _ = stage.step(wide, Labelled(RequestLabel("f0")), narrow)
    assert (wide.opened, len(wide.open)) == (5, 4)


@pytest.mark.parametrize(
    "event",
    [
        Labelled(RequestLabel("f9")),
        LabelFailed(RequestLabel("f9"), "Crashed", ""),
        LabelDropped(RequestLabel("f0")),
    ],
)
def test_an_event_whose_work_is_not_outstanding_raises_and_changes_nothing(event):
    r = rules(10)
    state = stage.begin(r)
    with pytest.raises(IllegalEvent):
        stage.step(state, event, r)
    with pytest.raises(IllegalEvent):  # answered already
        stage.step(stage.step(state, Labelled(RequestLabel("f0")), r)[0], Labelled(RequestLabel("f0")), r)


def test_an_event_costs_the_same_in_a_long_list():
    r = rules(200_000)
    state = stage.begin(r)
    for _ in range(1000):  # quadratic code would take minutes
        state, _ = stage.step(state, Labelled(stage.outstanding(state, r)[0]), r)
    assert state.opened == 1003
