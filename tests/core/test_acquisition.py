"""What happens to a frame that MD has reached, by its uncertainty, its step and the settings."""

import math
from dataclasses import replace

import pytest

from aims_pax.core import active_learning
from aims_pax.core.work import (
    AddToDataset,
    Labelled,
    RecordError,
    RequestLabel,
    Rewind,
    RunMD,
    UncertaintyCheck,
)
from tests.core.trajectories import RULES, fresh, labelled, move, moves, trained, warmed


def test_a_certain_trajectory_runs_on():
    state, effects = move(fresh())
    assert state.trajectories[0].status == "running"
    assert effects == (UncertaintyCheck(0, 10, 0.1, math.inf, "certain"),)
    assert moves(state)[0] == RunMD(0, 10, 20, 0)


def test_before_ten_evaluations_nothing_is_uncertain():
    state, _ = move(fresh(), uncertainty=(1e6,))
    assert state.trajectories[0].status == "running"


def test_an_uncertain_frame_makes_its_trajectory_wait_for_its_label():
    state, _ = move(warmed(), uncertainty=(5.0,), frame="far")
    assert state.trajectories[0].status == "waiting"
    assert active_learning.outstanding(state, RULES) == (RequestLabel("far"),)


def test_uncertainty_equal_to_the_threshold_is_certain():
    state, _ = move(warmed(), uncertainty=(0.1,))
    assert state.trajectories[0].status == "running"


def test_an_exploded_frame_is_not_labelled_leaves_the_threshold_alone_and_rewinds():
    state = warmed()
    before = state.thresholds
    state, effects = move(state, uncertainty=(math.nan,), step=103, fault="pair H–H 0.31 Å")
    assert state.thresholds == before
    assert [e for e in effects if isinstance(e, Rewind)] == [Rewind(0, None, 1)]
    assert state.trajectories[0].status == "running"
    assert moves(state)[0] == RunMD(0, 103, 110, 1)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_uncertainty_that_is_not_finite_counts_as_an_explosion(bad):
    state, effects = move(warmed(), uncertainty=(0.1, bad))
    assert any(isinstance(e, Rewind) for e in effects)
    assert not any(isinstance(w, RequestLabel) for w in active_learning.outstanding(state, RULES))


def test_five_explosions_in_a_row_end_the_trajectory_with_the_reason():
    state = warmed()
    for _ in range(4):
        state, _ = move(state, fault="temperature 9e9 K")
    assert state.trajectories[0].status == "running"
    state, effects = move(state, fault="temperature 9e9 K")
    assert state.trajectories[0].status == "done"
    assert "temperature" in state.trajectories[0].reason
    assert not any(isinstance(e, Rewind) for e in effects)
    assert "temperature" in state.stopped


def test_an_explosion_at_the_last_step_ends_the_trajectory_there():
    rules = replace(RULES, max_steps=100)
    state = fresh(rules=rules)
    while moves(state, rules)[0].end < 100:
        state, _ = move(state, rules=rules)
    state, _ = move(state, rules=rules, fault="boom")
    assert state.trajectories[0].status == "done"
    assert moves(state, rules) == {}


def test_a_good_frame_in_between_starts_the_count_of_explosions_again():
    state = warmed()
    for _ in range(3):
        for _ in range(4):
            state, _ = move(state, fault="boom", step=moves(state)[0].start + 1)
        state, _ = move(state)
    assert state.trajectories[0].status == "running"


def test_the_quiet_limit_counts_md_steps_since_the_last_label():
    rules = replace(RULES, quiet_limit=150)
    state = warmed(rules=rules)
    asked = []
    for _ in range(20):
        state, _ = move(state, uncertainty=(0.01,), rules=rules)
        if state.trajectories[0].status == "waiting":
            asked.append(state.trajectories[0].step)
            state, _ = labelled(state, rules)
            while any(t.status == "training" for t in state.trajectories):
                state, _ = trained(state, rules)
    assert asked == [150, 300]


def test_the_threshold_freezes_with_the_training_set():
    rules = replace(RULES, freeze_at=20)
    state = warmed(rules=rules, n_train=20)
    assert state.thresholds[0][1].frozen == pytest.approx(0.1)
    state, _ = move(state, uncertainty=(0.05,), rules=rules)
    assert active_learning.threshold_of(state, "a", rules) == pytest.approx(0.1)


def test_per_system_thresholds_do_not_mix():
    rules = replace(RULES, per_system=True)
    state = fresh(2, rules, systems=("a", "b"))
    for _ in range(10):
        state, _ = move(state, 0, (0.1,), rules=rules)
        state, _ = move(state, 1, (3.0,), rules=rules)
    assert active_learning.threshold_of(state, "a", rules) == pytest.approx(0.1)
    assert active_learning.threshold_of(state, "b", rules) == pytest.approx(3.0)


def test_with_ensemble_sd_any_atom_above_the_threshold_counts():
    state = fresh()
    for _ in range(10):
        state, _ = move(state, uncertainty=(0.1, 0.1, 0.1))
    state, _ = move(state, uncertainty=(0.0, 0.11, 0.0))
    assert state.trajectories[0].status == "waiting"


def test_test_frames_are_labelled_without_waiting_and_never_trained_on():
    rules = replace(RULES, n_test=2, test_due=(0.0, 0.5), test_trajectory=(0, 0), max_steps=400)
    state, added, n_train = fresh(rules=rules), [], 20
    while active_learning.outstanding(state, rules):
        labels = [w for w in active_learning.outstanding(state, rules) if isinstance(w, RequestLabel)]
        if labels:
            state, effects = active_learning.step(state, Labelled(labels[0]), rules)
            added += [e.split for e in effects if isinstance(e, AddToDataset)]
        else:
            state, _ = move(state, rules=rules)
            assert state.trajectories[0].status in ("running", "done")
    assert added == ["test", "test"]
    assert state.n_train == n_train


def test_analysis_asks_every_analysis_skip_steps_and_keeps_what_was_known_then():
    rules = replace(RULES, analysis_skip=15, max_steps=60)
    state, found = fresh(rules=rules), []
    while active_learning.outstanding(state, rules):
        labels = [w for w in active_learning.outstanding(state, rules) if isinstance(w, RequestLabel)]
        if labels:
            state, effects = active_learning.step(state, Labelled(labels[0]), rules)
            found += [e for e in effects if isinstance(e, RecordError)]
        else:
            state, _ = move(state, rules=rules)
    assert [e.step for e in found] == [15, 30, 45, 60]
    assert {e.n_train for e in found} == {20}
