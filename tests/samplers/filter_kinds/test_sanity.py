from __future__ import annotations

import numpy as np
import pytest

from aims_pax.frames import Frame, Label
from aims_pax.sampler import Sample
from aims_pax.samplers import filtered, sanity
from tests.md.potentials import cluster


def test_touching_atoms_and_endless_positions_are_not_sane():
    good = cluster(4)
    touching = good.positions.copy()
    touching[1] = touching[0] + [0.4, 0, 0]
    with np.errstate(invalid="ignore"):
        lost = good.moved(good.positions * np.nan)
    samples = [Sample(good), Sample(good.moved(touching)), Sample(lost)]
    assert list(filtered(samples, sanity())) == samples[:1]
    assert list(filtered(samples, sanity(min_separation=0.39))) == samples[:2]


def test_strong_forces_are_not_sane():
    calm, wild, unknown = (Label(0.0, np.full((4, 3), f)) for f in (1.0, 9.0, np.nan))
    samples = [Sample(cluster(4), label) for label in (calm, wild, unknown, None)]
    assert list(filtered(samples, sanity(max_force=5.0))) == [samples[0], samples[3]]


def test_the_image_of_an_atom_is_an_atom_too():
    box = Frame([18], [[0.0, 0, 0]], np.diag([0.45, 5.0, 5.0]), True)
    through = Frame([18, 18], [[0.1, 0, 0], [4.9, 0, 0]], np.eye(3) * 5.0, True)
    free = Frame(through.numbers, through.positions, through.cell, False)
    samples = [Sample(f) for f in (box, through, free)]
    assert list(filtered(samples, sanity())) == samples[2:]
    assert list(filtered(samples, sanity(min_separation=0.19))) == samples


def test_the_largest_force_is_that_of_one_atom_not_of_one_component():
    forces = np.array([[3.0, 4.0, 0.0], [0.0, 0.0, 0.0]])
    sample = Sample(cluster(2), Label(0.0, forces))
    assert list(filtered([sample], sanity(max_force=5.0))) == [sample]
    assert list(filtered([sample], sanity(max_force=4.9))) == []


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_a_cell_that_is_not_finite_is_not_sane(bad):
    good = cluster(2, cell=np.eye(3) * 20, pbc=True)
    cell = np.eye(3) * 20
    cell[0, 0] = bad
    with np.errstate(invalid="ignore"):
        assert list(filtered([Sample(good.moved(good.positions, cell))], sanity())) == []
