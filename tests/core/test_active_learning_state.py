"""What follows from the state of active learning alone: labels that are left, progress, requests."""

import math
from dataclasses import replace

import pytest

from aims_pax.core.active_learning_state import (
    BackgroundLabel,
    State,
    budget_spent,
    fraction_done,
    labels_left,
    mean_force_mae,
    threshold_of,
    under_way,
    with_point,
    with_request,
    without_background,
)
from aims_pax.core.rules import ActiveLearningRules
from aims_pax.core.threshold import Threshold
from aims_pax.core.trajectory import Trajectory
from aims_pax.core.window import AcquisitionWindow

RULES = ActiveLearningRules(10, 0.0, 0.1, 1, 1)
STATE = State(
    trajectories=(Trajectory("a", "waiting", frame="x"), Trajectory("b")),
    thresholds=(("", Threshold()),),
    n_train=20,
    valid=(("a", 2), ("b", 2)),
    tests=(BackgroundLabel("t", 1, 30),),
    window=AcquisitionWindow(pending=(("w", 0),)),
)


def test_frames_of_all_purposes_are_under_way():
    assert under_way(STATE) == {"x", "t", "w"}
    assert under_way(without_background(STATE, "t")) == {"x", "w"}


def test_a_calculation_for_several_purposes_counts_once():
    assert [with_request(STATE, f).n_asked for f in ("x", "t", "w", "new")] == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("n_asked", "n_tests", "left"), [(0, 0, 7), (7, 0, 0), (9, 2, 0), (10, 3, 0), (6, 3, 4)]
)
def test_labels_of_test_frames_to_come_are_set_aside(n_asked, n_tests, left):
    rules = replace(RULES, max_labels=10, n_test=3)
    state = replace(STATE, n_asked=n_asked, n_tests=n_tests)
    assert labels_left(state, rules) == left
    assert budget_spent(state, rules) == (left < 1)


def test_progress_is_relative_to_the_nearest_limit_and_to_what_this_stage_added():
    state = replace(STATE, n_asked=5, n_added=6, n_valid_added=1, n_train=25)
    assert fraction_done(state, replace(RULES, max_labels=10)) == 0.5
    assert fraction_done(state, replace(RULES, max_labels=10, max_train=26)) == pytest.approx(5 / 6)


def test_a_point_counts_for_its_set_and_its_system():
    state = with_point(with_point(STATE, "a", "train"), "b", "valid")
    assert (state.n_train, state.n_added, state.n_valid_added) == (21, 2, 1)
    assert dict(state.valid) == {"a": 2, "b": 3}


def test_thresholds_are_those_of_the_system_where_each_has_its_own():
    thresholds = (("a", Threshold(((0.1, 1),) * 10)), ("b", Threshold(((0.3, 1),) * 10)))
    state = replace(STATE, thresholds=thresholds)
    rules = replace(RULES, per_system=True, c_x=1.0)
    assert [threshold_of(state, s, rules) for s in "ab"] == [pytest.approx(0.2), pytest.approx(0.6)]
    assert math.isinf(threshold_of(STATE, "a", RULES))


def test_the_force_error_is_unknown_before_the_first_visit():
    assert math.isnan(mean_force_mae(STATE))
    assert mean_force_mae(replace(STATE, force_mae=(0.1, 0.3))) == pytest.approx(0.2)
