"""The initial dataset as a state machine."""

import json
import math
import random
from dataclasses import replace

import pytest

from aims_pax.core import initial_dataset
from aims_pax.core.rules import InitialRules
from aims_pax.core.work import (
    AddToDataset,
    IllegalEvent,
    LabelFailed,
    Labelled,
    RequestLabel,
    RunSampler,
    RunTraining,
    Sampled,
    Trained,
)
from aims_pax.record.checkpoint import from_plain, to_plain


def rules(**changes):
    values = {
        "members": 4, "systems": ("a", "b"), "n_points": 3, "epochs_per_visit": 5, "valid_ratio": 0.1,
        "max_epochs": 20,
    }  # fmt: skip
    return InitialRules(**{**values, **changes})


def run(rules, mae=lambda visit: 1.0, fails=lambda frame: False, shuffle=None):
    """The whole stage with instant answers; returns final state, (member, split, frame) of each Add, events."""
    state, added, events = initial_dataset.begin(rules), [], []
    while work := initial_dataset.outstanding(state, rules):
        chosen = shuffle.choice(work) if shuffle else work[0]
        match chosen:
            case RunSampler(visit, per_system):
                made = [(s, f"{s}-{visit}-{k}") for k in range(per_system) for s in rules.systems]
                event = Sampled(chosen, tuple(made))
            case RequestLabel(frame):
                event = LabelFailed(chosen, "Crashed", "x") if fails(frame) else Labelled(chosen)
            case RunTraining():
                m = mae(state.visit)
                event = Trained(chosen, 0, (m,) * rules.members, (m,) * rules.members)
        state, effects = initial_dataset.step(state, event, rules)
        events.append(event)
        added += [(e.member, e.split, e.frame) for e in effects if isinstance(e, AddToDataset)]
        assert len(events) < 20_000
    return state, added, events


def test_each_step_samples_members_times_points_of_every_geometry_and_deals_them_evenly():
    state, added, _ = run(rules(max_epochs=5))
    assert len(added) == 4 * 3 * 2
    for member in range(4):
        mine = [frame for m, _, frame in added if m == member]
        assert len(mine) == 6
        assert sum(f.startswith("a") for f in mine) == 3
    assert len({frame for _, _, frame in added}) == len(added), "a frame was dealt twice"


def test_every_member_gets_a_validation_frame_in_every_step():
    _, added, _ = run(rules())
    for visit in range(4):
        for member in range(4):
            step = [(s, f) for m, s, f in added if m == member and f.split("-")[1] == str(visit)]
            assert sum(s == "valid" for s, _ in step) >= 1
            assert sum(s == "train" for s, _ in step) >= 1


def test_validation_follows_the_ratio_over_time():
    state, _, _ = run(rules(n_points=20, valid_ratio=0.25, max_epochs=50))
    for member in state.members:
        share = member.n_valid / (member.n_valid + member.n_train)
        assert share == pytest.approx(0.25, abs=0.02)


def test_one_frame_a_step_still_gives_every_member_training_and_validation():
    state, _, _ = run(rules(systems=("a",), n_points=1, max_epochs=50))
    assert all(m.n_train > m.n_valid > 0 for m in state.members)


def test_it_stops_at_max_initial_epochs_without_stepping_over():
    state, _, events = run(rules(max_epochs=13))
    assert state.epochs == 13
    assert state.stopped.startswith("max_initial_epochs")


def test_max_initial_set_size_alone_stops_and_is_hardly_overshot():
    state, added, _ = run(rules(max_epochs=math.inf, max_train=50))
    n_train = sum(s == "train" for _, s, _ in added)
    assert state.stopped.startswith("max_initial_set_size")
    assert 50 <= n_train <= 58


@pytest.mark.parametrize("less", [{"max_epochs": 5}, {"max_train": 10}])
def test_a_limit_that_was_lowered_to_what_there_is_stops_before_the_next_batch(less):
    state, _, events = run(rules(max_epochs=5))
    state = initial_dataset.reopen(state, rules(max_epochs=20))
    assert initial_dataset.outstanding(state, rules(max_epochs=20))[0] == RunSampler(1, 12)
    stopped = initial_dataset.reopen(state, rules(**less))
    assert stopped.stopped
    assert initial_dataset.outstanding(stopped, rules(**less)) == ()
    begun = initial_dataset.reopen(initial_dataset.begin(rules()), rules(max_epochs=0))
    assert begun.stopped is None  # without any training there is no model
    training = replace(state, phase="train", epochs=10)
    assert initial_dataset.outstanding(training, rules(max_epochs=5)) == (RunTraining(1, 0),)


def test_desired_accuracy_stops_once_there_are_ten_validation_frames():
    state, _, _ = run(rules(desired_acc=0.1, max_epochs=math.inf), mae=lambda visit: 0.05)
    assert state.stopped.startswith("desired_acc")
    assert sum(n for _, n in state.valid) >= 10
    state, _, _ = run(rules(desired_acc=0.1, max_epochs=30), mae=lambda visit: math.nan)
    assert state.stopped.startswith("max_initial_epochs")


def test_the_sets_do_not_depend_on_the_order_in_which_labels_arrive():
    fails = lambda frame: hash_of(frame) % 5 == 0  # noqa: E731
    _, first, _ = run(rules(), fails=fails)
    _, second, _ = run(rules(), fails=fails, shuffle=random.Random(7))
    assert first == second


def test_failed_labels_are_left_out_and_sampling_goes_on_until_every_member_can_train():
    state, added, events = run(rules(n_points=1, systems=("a",), max_epochs=5), fails=lambda f: "-0-" in f)
    assert all("-0-" not in frame for _, _, frame in added)
    first_training = next(i for i, e in enumerate(events) if isinstance(e, Trained))
    assert all(any(m == k for m, _, _ in added) for k in range(4))
    assert first_training > 0


def test_when_nothing_can_be_labelled_it_gives_up():
    state, added, _ = run(rules(), fails=lambda frame: True)
    assert not added
    assert "no reference calculation succeeded" in state.stopped


def test_sampling_goes_on_from_the_last_frame_of_each_system():
    r = rules(max_epochs=5)
    state, _, _ = run(r)
    assert dict(state.last) == {"a": "a-0-11", "b": "b-0-11"}


@pytest.mark.parametrize("seed", range(50))
def test_a_crash_at_any_event_changes_nothing(seed):
    dice = random.Random(seed)
    r = rules(
        members=dice.randint(1, 4),
        n_points=dice.randint(1, 3),
        max_epochs=17,
        max_train=dice.choice([20, math.inf]),
        shared=dice.random() < 0.3,
    )
    final, _, events = run(r, fails=lambda f: hash_of(f) % 7 == 0, shuffle=dice)
    state = initial_dataset.begin(r)
    for event in events:
        state = from_plain(initial_dataset.State, json.loads(json.dumps(to_plain(state))))
        state, _ = initial_dataset.step(state, event, r)
    assert state == final


def test_an_event_whose_work_is_not_outstanding_raises():
    with pytest.raises(IllegalEvent):
        initial_dataset.step(initial_dataset.begin(rules()), Labelled(RequestLabel("x")), rules())


def hash_of(text):
    return sum(ord(c) * (i + 1) for i, c in enumerate(text))


def test_validation_frames_come_from_every_system():
    state, _, _ = run(rules(members=2, systems=("a", "b", "c"), n_points=5, max_epochs=15))
    counts = [n for _, n in state.valid]
    assert min(counts) >= 1
    assert max(counts) - min(counts) <= 1


def test_members_that_share_one_set_cost_no_more_labels_than_one_model():
    shared, alone = rules(members=4, shared=True, max_epochs=15), rules(members=1, max_epochs=15)
    (state, added, _), (one, own, _) = run(shared), run(alone)
    assert {member for member, _, _ in added} == {None}
    assert [place for _, *place in added] == [place for _, *place in own]
    assert state.members == one.members
