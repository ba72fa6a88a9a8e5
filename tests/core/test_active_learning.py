"""Active learning as a state machine: every transition of the table, and 300 random runs with crashes."""

import json
import math
import random
from dataclasses import replace

import pytest

from aims_pax.core import active_learning
from aims_pax.core.active_learning_state import BackgroundLabel
from aims_pax.core.rules import ExploreRules
from aims_pax.core.warm_up import WarmUp
from aims_pax.core.work import (
    AddToDataset,
    Advanced,
    IllegalEvent,
    LabelDropped,
    LabelFailed,
    Labelled,
    RecordError,
    RequestLabel,
    Rewind,
    RunMD,
    RunTraining,
    Trained,
    UncertaintyCheck,
)
from aims_pax.record.checkpoint import from_plain, to_plain
from tests.sweeps import thinned

RULES = ExploreRules(
    skip_step=10, c_x=0.0, valid_ratio=0.1, epochs_per_worker=2, epochs_per_visit=1, max_steps=1000
)


def fresh(n=1, rules=RULES, n_train=20, systems=("a",)):
    names = tuple(systems[i % len(systems)] for i in range(n))
    return active_learning.begin(names, rules, n_train, dict.fromkeys(systems, 5))


def moves(state, rules=RULES):
    return {w.trajectory: w for w in active_learning.outstanding(state, rules) if isinstance(w, RunMD)}


def move(state, i=0, uncertainty=(0.1,), rules=RULES, frame=None, fault=None, step=None):
    work = moves(state, rules)[i]
    step = work.end if step is None else step
    event = Advanced(work, step, frame or f"f{i}-{step}", uncertainty, fault)
    return active_learning.step(state, event, rules)


def warmed(n=1, rules=RULES, **kwargs):
    """Past the ten evaluations without a threshold; δ is then about 0.1."""
    state = fresh(n, rules, **kwargs)
    for k in range(10):
        state, _ = move(state, k % n, rules=rules)
    return state


def labelled(state, rules=RULES):
    work = next(w for w in active_learning.outstanding(state, rules) if isinstance(w, RequestLabel))
    return active_learning.step(state, Labelled(work), rules)


def trained(state, rules=RULES, n_train=None, mae=0.05):
    work = next(w for w in active_learning.outstanding(state, rules) if isinstance(w, RunTraining))
    event = Trained(work, state.n_train if n_train is None else n_train, (1.0,), (mae,))
    return active_learning.step(state, event, rules)


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
    rules = ExploreRules(
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
    assert (
        active_learning.reopen(state, ("a", "a"), replace(more, max_labels=7)) == state
    )  # no label for the second


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
    assert active_learning.fraction_done(state, rules) == 0
    half = replace(state, n_train=45, n_added=17, n_valid_added=2)
    assert active_learning.fraction_done(half, rules) == pytest.approx(0.5)
    assert active_learning.fraction_done(replace(half, n_train=60, n_added=33, n_valid_added=3), rules) == 1
