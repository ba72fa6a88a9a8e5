"""Structures with free labels: how many, and which of them are for validation."""

import pytest

from aims_pax.core import pretraining
from aims_pax.core.rules import PretrainingRules
from aims_pax.core.work import AddToDataset, IllegalEvent, RunSampler, Sampled


def rules(**changes):
    return PretrainingRules(
        **{"systems": ("a", "b"), "n_frames": 21, "batch": 3, "valid_ratio": 0.1, **changes}
    )


def run(r, state=None, fails=lambda frame: False):
    state, added = state or pretraining.begin(r), []
    while work := pretraining.outstanding(state, r):
        (batch,) = work
        made = [(s, f"{s}{batch.visit}-{k}") for k in range(batch.per_system) for s in r.systems]
        state, effects = pretraining.step(state, Sampled(batch, tuple(m for m in made if not fails(m[1]))), r)
        added += [(e.frame, e.split, e.member) for e in effects if isinstance(e, AddToDataset)]
    return state, added


def test_it_makes_exactly_the_number_asked_for_and_every_tenth_is_for_validation():
    state, added = run(rules())
    assert state.stopped == "n_frames: 21 structures"
    assert len({frame for frame, _, _ in added}) == 21
    assert [k for k, (_, split, _) in enumerate(added) if split == "valid"] == [9, 19]
    assert {member for _, _, member in added} == {None}, "all members learn from all free labels"


def test_the_sets_do_not_depend_on_the_size_of_the_batches():
    splits = [[split for _, split, _ in run(rules(batch=n))[1]] for n in (1, 3, 50)]
    assert splits[0] == splits[1] == splits[2]


def test_structures_that_the_potential_cannot_label_are_replaced():
    state, added = run(rules(), fails=lambda frame: frame.endswith("-1"))
    assert state.frames == len(added) == 21


def test_it_gives_up_when_nothing_can_be_labelled():
    state, added = run(rules(), fails=lambda frame: True)
    assert (state.visit, added) == (3, [])
    assert "no structure could be labelled" in state.stopped


def test_more_structures_can_be_asked_for_later():
    state, first = run(rules())
    again = pretraining.reopen(state, rules(n_frames=31))
    assert again.stopped is None
    final, more = run(rules(n_frames=31), again)
    assert (final.frames, len(first) + len(more)) == (31, 31)
    assert pretraining.reopen(state, rules(n_frames=20)) == state
    fewer = pretraining.reopen(again, rules(n_frames=20))  # lowered before the end
    assert fewer.stopped == f"n_frames: {state.frames} structures"
    assert pretraining.outstanding(fewer, rules(n_frames=20)) == ()


def test_a_batch_that_was_not_asked_for_raises():
    with pytest.raises(IllegalEvent):
        pretraining.step(pretraining.begin(rules()), Sampled(RunSampler(7, 3), ()), rules())
