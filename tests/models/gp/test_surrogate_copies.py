"""Copies are right, refused where they are not, the same for the same seed, and never taken for labels."""

import numpy as np
import pytest
from ase.calculators.lj import LennardJones

from aims_pax.frames import Frame, LabelledFrame
from aims_pax.models.gp import surrogate_copies
from aims_pax.models.gp.process import GaussianProcess
from aims_pax.models.gp.surrogate_copies import (
    CopyLimits,
    closest_atoms,
    make_copies,
)  # fmt: skip
from aims_pax.potential import calculate
from aims_pax.surrogate_labels import is_surrogate_copy
from tests.models.gp import systems

DATA = systems.h2(np.linspace(0.95, 2.0, 7))


@pytest.fixture(scope="module")
def process():
    return GaussianProcess.fit(DATA)


def test_every_copy_has_almost_the_true_energy(process):
    made = make_copies(process, "abc", DATA, CopyLimits(0.05, 50))
    assert len(made.copies) > 250
    assert len(made.copies) + sum(made.refused.values()) == 350
    for copy in made.copies:
        assert abs(copy.label.energy - calculate(copy.frame, LennardJones()).energy) < 0.05
    assert len(made.energy_sd) == len(made.force_sd) == len(made.parents) == len(made.copies)


def test_copies_are_refused_and_counted(process):
    wild = make_copies(process, "abc", DATA[:2], CopyLimits(0.4, 50))
    assert wild.refused["uncertain force"] > 10
    assert wild.refused["atoms too close"] > 0
    strict = make_copies(process, "abc", DATA, CopyLimits(0.05, 5, max_sd=1e-9))
    assert strict.copies == ()
    unsure = make_copies(process, "abc", DATA, CopyLimits(0.05, 5, max_energy_sd=1e-12))
    assert unsure.refused["uncertain energy"] > 0


def test_what_cannot_move_has_no_copies(process):
    held = [
        LabelledFrame(Frame(x.frame.numbers, x.frame.positions, fixed=[True, True]), x.label)
        for x in DATA[:2]
    ]
    made = make_copies(process, "abc", [*held, DATA[2]], CopyLimits(0.01, 5))
    assert made.refused["no atom can move"] == 10
    assert set(made.parents) == {2}


def test_the_same_seed_gives_the_same_copies_in_batches_of_any_size(process, monkeypatch):
    one = make_copies(process, "abc", DATA, CopyLimits(0.05, 10))
    monkeypatch.setattr(surrogate_copies, "AT_ONCE", 3)
    other = make_copies(process, "abc", DATA, CopyLimits(0.05, 10))
    assert [c.id for c in one.copies] == [c.id for c in other.copies]
    third = make_copies(process, "abc", DATA, CopyLimits(0.05, 10, seed=1))
    assert {c.id for c in one.copies}.isdisjoint(c.id for c in third.copies)


def test_copies_name_their_surrogate(process):
    first = DATA[3]
    named = LabelledFrame(first.frame, first.label, {"system": "hydrogen"})
    made = make_copies(process, "abc", [named], CopyLimits(0.02, 3)).copies
    assert made[0].origin == {"system": "hydrogen", "provenance": "surrogate:abc", "parent": named.id}
    assert is_surrogate_copy(made[0])


def test_fixed_atoms_stay_and_the_centre_too(process):
    frame = Frame(DATA[0].frame.numbers, DATA[0].frame.positions, fixed=np.array([True, False]))
    copy = make_copies(
        process, "a", [LabelledFrame(frame, DATA[0].label)], CopyLimits(0.02, 1, 10, 10)
    ).copies[0]
    assert copy.frame.positions[0] == pytest.approx(frame.positions[0])
    assert copy.frame.positions[1] != pytest.approx(frame.positions[1])


def test_the_shortest_distance_also_of_far_and_single_atoms():
    assert closest_atoms([DATA[0].frame, DATA[1].frame]) == pytest.approx(0.95)
    assert closest_atoms([Frame([1, 1], [[0, 0, 0], [9.0, 0, 0]])]) == pytest.approx(9.0)
    assert closest_atoms([Frame([1], np.zeros((1, 3)))]) == 0
