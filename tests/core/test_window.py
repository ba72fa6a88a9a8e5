"""Acquisition by windows: what is collected, selected, labelled and learnt, and when the trajectories move."""

import math
import random
from dataclasses import replace

import pytest

from aims_pax.core import active_learning
from aims_pax.core.rules import ActiveLearningRules
from aims_pax.core.window import SMALL_SET, AcquisitionWindow, UncertainFrame
from aims_pax.core.work import (
    AddToDataset,
    Advanced,
    LabelFailed,
    Labelled,
    RequestLabel,
    Rewind,
    RunMD,
    RunTraining,
    Selected,
    SelectFrames,
    Trained,
    UncertaintyCheck,
)
from aims_pax.record.checkpoint import from_plain, to_plain

RULES = ActiveLearningRules(
    skip_step=10, c_x=0.0, valid_ratio=0.1, epochs_per_worker=2, epochs_per_visit=2,
    acquisition="window", window=30, per_window=2,
)  # fmt: skip


def begun(n=2, rules=RULES):
    """δ is 0.1: ten evaluations were seen."""
    state = active_learning.begin(("a",) * n, rules, 20, {"a": 5})
    return replace(state, thresholds=(("", replace(state.thresholds[0][1], history=((0.1, 1),) * 10)),))


def outstanding(state, kind, rules=RULES):
    return [w for w in active_learning.outstanding(state, rules) if isinstance(w, kind)]


def move(state, i, uncertainty, rules=RULES, **kwargs):
    work = next(w for w in outstanding(state, RunMD, rules) if w.trajectory == i)
    event = Advanced(work, work.end, f"f{i}-{work.end}", (uncertainty,), **kwargs)
    return active_learning.step(state, event, rules)


def window(state, uncertainties=(0.5, 0.6, 0.7), rules=RULES):
    """Every trajectory moves to the end of its window."""
    for u in uncertainties:
        for work in outstanding(state, RunMD, rules):
            state, _ = move(state, work.trajectory, u, rules)
    return state


def answer(state, rules=RULES):
    work = outstanding(state, RequestLabel, rules)[0]
    return active_learning.step(state, Labelled(work), rules)


def select(state, n=2, rules=RULES):
    (work,) = outstanding(state, SelectFrames, rules)
    return active_learning.step(state, Selected(work, work.frames[:n]), rules)


def test_an_uncertain_frame_is_a_candidate_and_its_trajectory_continues():
    state, effects = move(begun(), 0, 5.0)
    assert effects == (UncertaintyCheck(0, 10, 5.0, pytest.approx(0.1), "candidate"),)
    assert state.window.candidates == (UncertainFrame("f0-10", 0, 10, 5.0),)
    assert RunMD(0, 10, 20, 0) in outstanding(state, RunMD)


def test_when_every_trajectory_moved_a_window_the_best_candidates_are_chosen():
    state = window(begun())
    assert not outstanding(state, RunMD)
    (work,) = outstanding(state, SelectFrames)
    assert len(work.frames) == 6
    assert work.n == 2
    assert sorted(set(work.uncertainty)) == [0.5, 0.6, 0.7]


def test_chosen_frames_are_labelled_while_the_next_window_begins():
    state, _ = select(window(begun()))
    assert [w.frame for w in outstanding(state, RequestLabel)] == ["f0-10", "f1-10"]
    assert {(w.trajectory, w.start) for w in outstanding(state, RunMD)} == {(0, 30), (1, 30)}
    assert state.window.candidates == ()
    assert state.n_asked == 2


def test_nothing_is_selected_before_the_labels_of_the_window_before_are_learnt():
    state = window(select(window(begun()))[0])
    assert state.window.candidates
    assert not outstanding(state, SelectFrames)
    state, _ = answer(state)
    assert not outstanding(state, (SelectFrames, RunTraining))
    state, _ = answer(state)
    assert outstanding(state, RunTraining)
    assert not outstanding(state, (SelectFrames, RunMD))
    while works := outstanding(state, RunTraining):
        state, _ = active_learning.step(state, Trained(works[0], 22, (1.0,), (0.1,)), RULES)
    assert outstanding(state, SelectFrames)


def test_while_labels_are_computed_trajectories_move_up_to_four_windows():
    state, _ = select(window(begun()))
    for _ in range(12):
        assert outstanding(state, RunMD)
        state = window(state, (0.5,))
    assert not outstanding(state, RunMD)
    state = answer(answer(state)[0])[0]
    while works := outstanding(state, RunTraining):
        state, _ = active_learning.step(state, Trained(works[0], 22, (1.0,), (0.1,)), RULES)
    assert len(outstanding(state, SelectFrames)[0].frames) == 24


def test_every_new_point_is_given_its_epochs_and_fewer_in_a_large_set():
    small = AcquisitionWindow(pending=(("x", 0),), n_new=3).answered("x", True, 2, SMALL_SET)
    large = AcquisitionWindow(pending=(("x", 0),), n_new=3).answered("x", True, 2, 4 * SMALL_SET)
    assert (small.epochs_left, large.epochs_left) == (8, 2)
    assert small.trained(3).epochs_left == 5


def test_models_that_are_fitted_at_once_are_fitted_once_a_window():
    rules = RULES.for_fits_at_once()
    state = window(begun(rules=rules), rules=rules)
    state = answer(answer(select(state, rules=rules)[0], rules)[0], rules)[0]
    (work,) = outstanding(state, RunTraining, rules)
    state, _ = active_learning.step(state, Trained(work, 22, (1.0,), (0.1,)), rules)
    assert not outstanding(state, RunTraining, rules)


def test_a_window_without_a_candidate_is_followed_by_the_next():
    state = window(begun(), (0.01, 0.01, 0.01))
    assert {(w.trajectory, w.start) for w in outstanding(state, RunMD)} == {(0, 30), (1, 30)}


def test_of_an_exploded_trajectory_the_frame_where_its_uncertainty_began_to_rise_remains():
    state, _ = move(begun(1), 0, 0.4)
    state, _ = move(state, 0, 0.9)
    state, effects = move(state, 0, 9.0, fault="pair H–H 0.31 Å")
    assert [c.frame for c in state.window.candidates] == ["f0-10"]
    assert [e for e in effects if isinstance(e, Rewind)] == [Rewind(0, None, 1)]


def test_an_uncertain_frame_with_an_implausible_energy_is_no_candidate_and_leaves_the_threshold_alone():
    state, _ = move(begun(1), 0, 0.4)
    before = state.thresholds
    state, effects = move(state, 0, 3.0, implausible="predicted energy 3.1 eV above …")
    assert effects[0].decision == "implausible"
    assert any(isinstance(e, Rewind) for e in effects)
    assert [c.frame for c in state.window.candidates] == ["f0-10"]
    assert state.thresholds == before


def test_a_certain_frame_with_an_unusual_energy_is_believed():
    state, effects = move(begun(1), 0, 0.05, implausible="predicted energy 3.1 eV above …")
    assert effects[0].decision == "certain"
    assert state.trajectories[0].n_rewinds == 0


def test_implausible_energies_alone_never_end_a_trajectory():
    state = begun(1, replace(RULES, window=10**6))
    rules = replace(RULES, window=10**6)
    decisions = []
    for _ in range(12):
        state, effects = move(state, 0, 3.0, rules, implausible="too high")
        decisions.append(effects[0].decision)
    assert state.trajectories[0].status == "running"
    assert set(decisions) == {"implausible", "candidate"}


@pytest.mark.parametrize(
    ("limits", "n"), [({"max_labels": 7}, 1), ({"max_train": 21}, 2), ({"max_labels": 7, "n_test": 1}, 0)]
)
def test_a_window_asks_for_no_more_than_the_limits_leave(limits, n):
    rules = replace(RULES, test_due=(2.0,), test_trajectory=(0,), **limits)
    state = replace(begun(2, rules), n_asked=6)
    state = window(state, rules=rules)
    works = outstanding(state, SelectFrames, rules)
    assert (works[0].n if works else 0) == n


def test_a_failed_label_rewinds_its_trajectory_and_the_others_are_learnt():
    state, _ = select(window(begun()))
    first, second = outstanding(state, RequestLabel)
    state, effects = active_learning.step(state, LabelFailed(first, "NotConverged", "no"), RULES)
    assert any(isinstance(e, Rewind) for e in effects)
    state, effects = active_learning.step(state, Labelled(second), RULES)
    assert AddToDataset(second.frame, "train") in effects
    assert outstanding(state, RunTraining)


def test_test_frames_are_drawn_after_equilibration_and_the_missing_ones_at_the_end():
    rules = replace(
        RULES, max_labels=4, n_test=2, test_due=(0.0, 0.9), test_trajectory=(0, 1), equilibration=20
    )
    state, decisions = begun(2, rules), []
    while state.stopped is None:
        works = active_learning.outstanding(state, rules)
        if labels := [w for w in works if isinstance(w, RequestLabel)]:
            event = Labelled(labels[0])
        elif isinstance(works[0], RunTraining):
            event = Trained(works[0], state.n_train, (1.0,), (0.1,))
        elif isinstance(works[0], SelectFrames):
            event = Selected(works[0], works[0].frames[: works[0].n])
        else:
            event = Advanced(works[0], works[0].end, f"f{works[0].trajectory}-{works[0].end}", (0.5,))
        state, effects = active_learning.step(state, event, rules)
        decisions += [(e.trajectory, e.step) for e in effects if getattr(e, "decision", "") == "test"]
    assert decisions[0] == (0, 20)
    assert len(decisions) == 2
    assert state.n_asked == 4
    assert state.stopped.startswith("max_labels")


def test_hotter_trajectories_give_test_frames_only_when_no_other_is_left():
    rules = replace(
        RULES, n_test=3, test_due=(0.0,) * 3, test_trajectory=(0, 0, 0), fair_trajectories=(1,), max_steps=30
    )
    state, drawn = begun(2, rules), []
    for i in (0, 1, 0, 1):
        state, effects = move(state, i, 0.05, rules)
        drawn += [(e.trajectory, e.step) for e in effects if getattr(e, "decision", "") == "test"]
    assert drawn == [(1, 10), (1, 20)]
    ended = replace(state.trajectories[1], status="done")
    state = replace(state, trajectories=(state.trajectories[0], ended))
    _, effects = move(state, 0, 0.05, rules)
    assert effects[0].decision == "test"


def test_a_run_that_had_ended_goes_on_with_a_new_window_when_its_limit_is_raised():
    rules = replace(RULES, max_labels=2, n_test=1, test_due=(2.0,), test_trajectory=(0,), equilibration=90)
    state = select(window(begun(2, rules), rules=rules), 1, rules)[0]
    state = answer(state, rules)[0]
    (work,) = outstanding(state, RunTraining, rules)
    state, _ = active_learning.step(state, Trained(work, 21, (1.0,), (0.1,)), rules)
    while not outstanding(state, RequestLabel, rules):  # closing: until the test frame is drawn
        state = window(state, (0.5,), rules)
    state = answer(state, rules)[0]
    assert state.stopped == "max_labels: 2 reference calculations"
    more = replace(rules, max_labels=9)
    again = active_learning.reopen(state, ("a", "a"), more)
    assert again.stopped is None
    assert again.closing is None
    assert len(outstanding(again, RunMD, more)) == 2


def test_random_runs_survive_restarts_with_other_settings_and_ask_for_no_frame_twice():
    for seed in range(30):
        rng = random.Random(seed)
        n_test = rng.choice([0, 2])
        rules = replace(RULES, max_labels=rng.choice([9, 20, math.inf]), max_steps=400, n_test=n_test,
                        test_due=(0.2, 0.7), test_trajectory=(0, 1), equilibration=30, warm_up_epochs=4)  # fmt: skip
        state, asked = begun(3, rules), []
        for _ in range(900):
            works = active_learning.outstanding(state, rules)
            if not works:
                break
            work = rng.choice(works)
            state = from_plain(type(state), to_plain(state))
            state, effects = active_learning.step(state, _event(work, state, rng), rules)
            asked += [e.frame for e in effects if isinstance(e, AddToDataset)]
            if rng.random() < 0.03:  # a restart with other settings
                rules = replace(
                    rules, acquisition=rng.choice(["window", "crossing"]), window=rng.choice([30, 10, 70]),
                    max_labels=rules.max_labels + rng.choice([0, 3]), per_window=rng.choice([1, 5]),
                )  # fmt: skip
                state = active_learning.reopen(state, ("a",) * 3, rules)
        assert state.stopped, (seed, state)
        assert len(asked) == len(set(asked))
        assert state.n_asked <= rules.max_labels


def _event(work, state, rng):
    match work:
        case RequestLabel():
            return Labelled(work) if rng.random() < 0.9 else LabelFailed(work, "NotConverged", "no")
        case RunTraining():
            return Trained(work, state.n_train, (1.0,), (0.1,))
        case SelectFrames():
            return Selected(work, tuple(rng.sample(work.frames, min(work.n, len(work.frames)))))
    fault = "exploded" if rng.random() < 0.03 else None
    implausible = "too high" if rng.random() < 0.1 else None
    return Advanced(
        work, work.end, f"f{work.trajectory}-{work.end}-{work.n_rewinds}", (rng.random(),), fault, implausible
    )
