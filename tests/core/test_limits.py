"""Limits that end active learning: of labels, training points and MD steps."""

import math
import random
from dataclasses import replace

import pytest

from aims_pax.core import active_learning
from aims_pax.core.active_learning_state import BackgroundLabel
from aims_pax.core.warm_up import WarmUp
from aims_pax.core.work import (
    AddToDataset,
    Labelled,
    RequestLabel,
)
from tests.core.trajectories import RULES, fresh, labelled, move, moves, trained, warmed


def test_the_last_md_step_ends_a_trajectory_and_the_run():
    rules = replace(RULES, max_steps=25)
    state, _ = move(fresh(rules=rules), rules=rules)
    state, _ = move(state, rules=rules)
    assert moves(state, rules)[0].end == 25
    state, _ = move(state, rules=rules)
    assert state.trajectories[0].status == "done"
    assert state.stopped.startswith("max_MD_steps")
    assert active_learning.outstanding(state, rules) == ()


def test_max_train_set_size_stops_and_labels_under_way_are_still_kept():
    rules = replace(RULES, max_train=21)
    state = warmed(2, rules=rules)
    state, _ = move(state, 0, (5.0,), rules=rules, frame="x")
    state, _ = move(state, 1, (50.0,), rules=rules, frame="y")
    state, _ = labelled(state, rules)
    assert state.stopped.startswith("max_train_set_size")
    assert active_learning.outstanding(state, rules) == (RequestLabel("y"),)
    state, effects = labelled(state, rules)
    assert any(isinstance(e, AddToDataset) and e.frame == "y" for e in effects)
    assert active_learning.outstanding(state, rules) == ()


@pytest.mark.parametrize("acquisition", ["window", "crossing"])
def test_a_limit_of_the_training_set_lowered_below_its_size_ends_the_run_with_the_reason(acquisition):
    rules = replace(RULES, max_train=50, acquisition=acquisition, window=50)
    state = fresh(2, rules=rules)
    less = replace(rules, max_train=15)
    again = active_learning.reopen(state, ("a", "a"), less)
    assert again.stopped == "max_train_set_size: 20 training points"
    asked = replace(state.trajectories[0], status="waiting", frame="x")
    waiting = replace(state, trajectories=(asked, state.trajectories[1]))
    again = active_learning.reopen(waiting, ("a", "a"), less)
    assert again.stopped is None
    assert RequestLabel("x") in active_learning.outstanding(again, less)  # its label is used
    ended, effects = labelled(again, less)
    assert any(isinstance(e, AddToDataset) and e.frame == "x" for e in effects)
    assert ended.stopped == "max_train_set_size: 21 training points"


def test_steps_lowered_below_those_of_a_trajectory_end_it_also_while_test_frames_are_drawn():
    rules = replace(RULES, max_train=21, n_test=3, test_due=(0.9,) * 3, test_trajectory=(0, 0, 0))
    state = fresh(2, rules=rules)
    t = replace(state.trajectories[0], step=500)
    training = replace(t, status="training", n_train=20)
    waiting = replace(t, status="waiting", frame="x")
    state = replace(state, trajectories=(training, waiting), warm_up=WarmUp())
    less = replace(rules, max_steps=200)
    again = active_learning.reopen(state, ("a", "a"), less)
    ended, _ = labelled(again, less)  # the set is full
    assert ended.stopped == "max_train_set_size: 21 training points"  # nothing moves backwards
    closing, _ = labelled(state, rules)
    assert closing.closing
    assert moves(closing, rules)
    again = active_learning.reopen(closing, ("a", "a"), less)
    assert again.stopped == "max_train_set_size: 21 training points"
    assert active_learning.outstanding(again, less) == ()


@pytest.mark.parametrize("acquisition", ["window", "crossing"])
def test_a_training_set_that_is_full_at_the_beginning_is_not_added_to(acquisition):
    rules = replace(RULES, max_train=20, acquisition=acquisition, window=50, warm_up_epochs=5)
    state = fresh(2, rules=rules)
    assert state.stopped == "max_train_set_size: 20 training points"
    assert active_learning.outstanding(state, rules) == ()
    more = replace(rules, max_train=30)
    again = active_learning.reopen(state, ("a", "a"), more)
    assert again.stopped is None
    assert active_learning.outstanding(again, more)

    rules = replace(rules, n_test=1, test_due=(0.5,), test_trajectory=(0,))
    state = fresh(2, rules=rules)
    assert state.stopped is None
    assert state.closing == "max_train_set_size: 20 training points"


def test_max_labels_is_never_exceeded_and_every_paid_label_is_awaited():
    rules = replace(RULES, max_labels=3, max_steps=math.inf)
    state, asked, u = warmed(4, rules=rules), 0, 1.0
    while not state.stopped:
        labels = [w for w in active_learning.outstanding(state, rules) if isinstance(w, RequestLabel)]
        if labels and random.Random(asked).random() < 0.3:
            state, _ = active_learning.step(state, Labelled(labels[0]), rules)
        elif moves(state, rules):
            u *= 3
            state, _ = move(state, min(moves(state, rules)), (u,), rules=rules, frame=f"f{u}")
        elif labels:
            state, _ = active_learning.step(state, Labelled(labels[0]), rules)
        else:
            state, _ = trained(state, rules)
        asked = max(asked, state.n_asked)
    assert asked == 3
    assert state.n_added == 3
    assert state.stopped.startswith("max_labels")


@pytest.mark.parametrize("acquisition", ["crossing", "window"])
def test_labels_of_the_last_step_are_waited_for_before_the_stage_stops(acquisition):
    """A stopped stage drops labels that have not begun: of analysis, tests and audits too."""
    rules = replace(RULES, analysis_skip=30, max_steps=60, acquisition=acquisition, window=30)
    state = fresh(rules=rules)
    while moves(state, rules):
        state, _ = move(state, rules=rules)
    assert state.trajectories[0].status == "done"
    while asked := [w for w in active_learning.outstanding(state, rules) if isinstance(w, RequestLabel)]:
        assert state.stopped is None
        state, _ = active_learning.step(state, Labelled(asked[0]), rules)
    assert state.stopped == "max_MD_steps: every trajectory took 60 steps"


def test_a_stage_that_ends_without_further_test_frames_waits_for_those_it_has():
    rules = replace(RULES, n_test=3, test_due=(0.5,) * 3, test_trajectory=(0,) * 3, max_train=20)
    state = fresh()
    done = replace(state.trajectories[0], status="done", step=60)
    tests = tuple(BackgroundLabel(name, 0, 60) for name in "ab")
    state = replace(state, closing="max_train_set_size", tests=tests, n_tests=2, trajectories=(done,))
    state, _ = active_learning.step(state, Labelled(RequestLabel("a")), rules)
    assert state.stopped is None
    state, _ = active_learning.step(state, Labelled(RequestLabel("b")), rules)
    assert state.stopped == "max_train_set_size"
