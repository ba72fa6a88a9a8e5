"""Active learning as a state machine: every transition of the table, and 300 random runs with crashes."""

import json
import math
import random
from dataclasses import replace

import pytest

from aims_pax.core import active_learning
from aims_pax.core.active_learning_state import fraction_done
from aims_pax.core.rules import ActiveLearningRules
from aims_pax.core.work import (
    AddToDataset,
    Advanced,
    IllegalEvent,
    LabelDropped,
    LabelFailed,
    Labelled,
    RequestLabel,
    Rewind,
    RunMD,
    RunTraining,
    Trained,
)
from aims_pax.record.checkpoint import from_plain, to_plain
from tests.core.trajectories import RULES, fresh, labelled, move, moves, trained, warmed
from tests.sweeps import thinned


def test_points_2_12_and_22_go_to_validation():
    state, splits = fresh(n_train=0), []
    state = warmed(n_train=0)
    rules = replace(RULES, epochs_per_worker=0, max_steps=math.inf)
    for k in range(25):
        state, _ = move(state, uncertainty=(1e9 + k,), frame=f"x{k}", rules=rules)
        state, effects = labelled(state, rules)
        splits += [e.split for e in effects if isinstance(e, AddToDataset)]
        if any(t.status == "training" for t in state.trajectories):
            state, _ = trained(state, rules)
        state = replace(state, thresholds=(("", replace(state.thresholds[0][1], history=((0.1, 1),) * 10)),))
    assert [i + 1 for i, s in enumerate(splits) if s == "valid"] == [2, 12, 22]


def test_a_training_point_trains_epochs_per_worker_epochs_in_visits_while_others_move():
    state, _ = move(warmed(2), 0, uncertainty=(5.0,))
    state, _ = labelled(state)
    assert state.trajectories[0].status == "training"
    assert set(moves(state)) == {1}
    state, _ = trained(state)
    assert state.trajectories[0].status == "training"
    state, _ = trained(state)
    assert state.trajectories[0].status == "running"
    assert set(moves(state)) == {0, 1}


def test_a_point_that_arrived_during_a_visit_was_not_seen_by_it():
    state, _ = move(warmed(), uncertainty=(5.0,))
    before = state.n_train
    state, _ = labelled(state)
    state, _ = trained(state, n_train=before)
    assert state.trajectories[0].epochs == 0
    state, _ = trained(state)
    assert state.trajectories[0].epochs == 1


def test_a_rewind_goes_to_the_last_labelled_frame():
    state, _ = move(warmed(), uncertainty=(5.0,), frame="home")
    state, _ = labelled(state)
    state, _ = trained(state)
    state, _ = trained(state)
    _, effects = move(state, fault="boom")
    assert Rewind(0, "home", 1) in effects


def test_a_failed_label_rewinds_with_fresh_momenta_and_ends_the_trajectory_when_it_keeps_failing():
    state = warmed()
    for k in range(5):
        state, _ = move(state, uncertainty=(1e3 * 10**k,), frame=f"bad{k}")
        work = RequestLabel(f"bad{k}")
        state, effects = active_learning.step(state, LabelFailed(work, "NotConverged", "no SCF"), RULES)
        if k < 4:
            assert Rewind(0, None, k + 1) in effects
            assert state.trajectories[0].n_rewinds == k + 1
    assert state.trajectories[0].status == "done"
    assert "NotConverged" in state.trajectories[0].reason


def test_a_label_given_up_after_the_stop_does_not_count():
    rules = replace(RULES, max_train=21)
    state = warmed(2, rules=rules)
    state, _ = move(state, 0, (5.0,), rules=rules, frame="x")
    state, _ = move(state, 1, (50.0,), rules=rules, frame="y")
    state, _ = labelled(state, rules)
    asked = state.n_asked
    state, _ = active_learning.step(state, LabelDropped(RequestLabel("y")), rules)
    assert state.n_asked == asked - 1
    assert active_learning.outstanding(state, rules) == ()


def test_desired_acc_is_believed_only_with_enough_validation_frames():
    rules = replace(RULES, desired_acc=0.1)
    state, _ = move(warmed(rules=rules), uncertainty=(5.0,), rules=rules)
    state, _ = labelled(state, rules)
    few, effects = trained(state, rules)
    assert few.stopped is None
    assert "too few" in effects[0].text
    many, _ = trained(replace(state, valid=(("a", 10),)), rules)
    assert many.stopped.startswith("desired_acc")
    worse, _ = trained(replace(state, valid=(("a", 10),)), rules, mae=0.2)
    assert worse.stopped is None
    nan, _ = trained(replace(state, valid=(("a", 10),)), rules, mae=math.nan)
    assert nan.stopped is None


def test_two_trajectories_waiting_for_one_frame_share_its_label():
    state = warmed(2)
    state, _ = move(state, 0, (5.0,), frame="same")
    state, _ = move(state, 1, (50.0,), frame="same")
    assert active_learning.outstanding(state, RULES) == (RequestLabel("same"),)
    state, effects = labelled(state)
    assert sum(isinstance(e, AddToDataset) for e in effects) == 1
    assert [t.status for t in state.trajectories] == ["training", "training"]


def test_an_event_whose_work_is_not_outstanding_raises():
    with pytest.raises(IllegalEvent):
        active_learning.step(fresh(), Labelled(RequestLabel("unknown")), RULES)
    state, _ = move(fresh())
    with pytest.raises(IllegalEvent):
        active_learning.step(state, Advanced(RunMD(0, 0, 10, 0), 10, "old", (0.1,)), RULES)


# ---------------------------------------------------------------- random runs with crashes


def random_event(dice, state, rules, counter):
    work = dice.choice(active_learning.outstanding(state, rules))
    match work:
        case RequestLabel():
            bad = LabelFailed(work, "Crashed", "dice")
            return Labelled(work) if dice.random() < 0.85 else bad
        case RunTraining():
            seen = state.n_train - (dice.random() < 0.2)
            return Trained(work, seen, (dice.random(),) * 2, (dice.random(),) * 2)
        case RunMD():
            if dice.random() < 0.05:
                return Advanced(work, dice.randint(work.start + 1, work.end), "", (), "exploded")
            return Advanced(work, work.end, f"frame{counter}", (dice.expovariate(3),))


@pytest.mark.parametrize("seed", thinned(range(300), 3))
def test_every_random_run_ends_and_its_journal_replays_to_the_same_state(seed):
    dice = random.Random(seed)
    n = dice.randint(1, 6)
    n_test = dice.choice([0, 3])
    rules = ActiveLearningRules(
        skip_step=dice.choice([5, 10]),
        c_x=dice.choice([-0.2, 0.0, 0.5]),
        valid_ratio=dice.choice([0.0, 0.1, 0.5]),
        epochs_per_worker=dice.choice([1, 2, 5]),
        epochs_per_visit=dice.choice([1, 2]),
        max_steps=dice.choice([300, 1000]),
        max_train=dice.choice([math.inf, 30]),
        max_labels=dice.choice([math.inf, 25]),
        desired_acc=dice.choice([0.0, 0.05]),
        freeze_at=dice.choice([math.inf, 22]),
        quiet_limit=dice.choice([100, 5000]),
        per_system=dice.random() < 0.5,
        n_test=n_test,
        test_due=tuple(k / 4 for k in range(n_test)),
        test_trajectory=(0,) * n_test,
        analysis_skip=dice.choice([0, 50]),
    )
    begin = fresh(n, rules, systems=("a", "b") if n > 1 else ("a",))
    state, journal, added = begin, [], set()
    for counter in range(100_000):
        if not active_learning.outstanding(state, rules):
            break
        if dice.random() < 0.02:  # crash: whatever was in flight is gone, the state comes back from JSON
            state = from_plain(active_learning.State, json.loads(json.dumps(to_plain(state))))
        event = random_event(dice, state, rules, counter)
        state, effects = active_learning.step(state, event, rules)
        journal.append(event)
        for effect in effects:
            if isinstance(effect, AddToDataset):
                assert (effect.frame, effect.split) not in added
                added.add((effect.frame, effect.split))
        work = active_learning.outstanding(state, rules)
        assert len(set(work)) == len(work)
        assert state.n_asked <= rules.max_labels
    else:
        pytest.fail("the run does not end")
    assert state.stopped
    assert all(t.status in ("done", "running", "training") for t in state.trajectories)
    replayed = begin
    for event in journal:
        copy = from_plain(type(event), json.loads(json.dumps(to_plain(event))))
        replayed, _ = active_learning.step(replayed, copy, rules)
    assert replayed == state


# ---------------------------------------------------------------- changed settings


def finished(rules, n=2):
    state, u = warmed(n, rules=rules), 1.0
    while work := active_learning.outstanding(state, rules):
        if isinstance(work[0], RequestLabel):
            state, _ = labelled(state, rules)
        elif isinstance(work[0], RunTraining):
            state, _ = trained(state, rules)
        else:
            u *= 1.01
            state, _ = move(state, work[0].trajectory, (u,), rules=rules, frame=f"f{u}")
    assert state.stopped
    return state


@pytest.mark.parametrize("limit", ["max_steps", "max_train", "max_labels"])
def test_a_finished_run_goes_on_when_its_limit_is_raised(limit):
    few = {"max_steps": 200, "max_train": 25, "max_labels": 6}[limit]
    rules = replace(RULES, **{"max_steps": 400, limit: few})
    state = finished(rules)
    assert active_learning.reopen(state, ("a", "a"), rules) == state
    more = replace(rules, **{limit: 2 * few})
    again = active_learning.reopen(state, ("a", "a"), more)
    assert again.stopped is None
    assert active_learning.outstanding(again, more)


def test_a_finished_run_draws_the_test_frames_that_are_asked_for_later():
    rules = replace(RULES, max_steps=400, max_labels=6)
    state = finished(rules)
    more = replace(rules, max_labels=8, n_test=2, test_due=(0.5, 0.5), test_trajectory=(0, 1))
    again = active_learning.reopen(state, ("a", "a"), more)
    assert again.closing
    assert again.stopped is None
    assert active_learning.outstanding(again, more)
    # no label for the second
    assert active_learning.reopen(state, ("a", "a"), replace(more, max_labels=7)) == state


def test_added_trajectories_begin_and_the_others_stay_as_they_are():
    state = warmed(2)
    more = active_learning.reopen(state, ("a", "a", "b"), RULES)
    assert more.trajectories[:2] == state.trajectories
    assert more.trajectories[2] == active_learning.Trajectory("b")
    assert dict(more.valid)["b"] == 0


def test_trajectories_cannot_vanish_or_change_their_system():
    for systems in (("a",), ("a", "b")):
        with pytest.raises(ValueError, match="removed"):
            active_learning.reopen(warmed(2), systems, RULES)


def test_a_trajectory_that_ended_for_a_physical_reason_is_not_revived():
    state = warmed()
    for _ in range(5):
        state, _ = move(state, fault="boom")
    again = active_learning.reopen(state, ("a",), replace(RULES, max_steps=9999))
    assert again.stopped


def test_the_initial_dataset_is_no_progress_so_test_frames_spread_over_the_run():
    rules = replace(RULES, max_train=60, max_steps=math.inf, max_labels=math.inf)
    state = active_learning.begin(("a",), rules, 30, {"a": 3})
    assert fraction_done(state, rules) == 0
    half = replace(state, n_train=45, n_added=17, n_valid_added=2)
    assert fraction_done(half, rules) == pytest.approx(0.5)
    assert fraction_done(replace(half, n_train=60, n_added=33, n_valid_added=3), rules) == 1
