"""Supercells of least volume against brute force, and their copies of the atoms."""

from __future__ import annotations

import doctest
import itertools

import numpy as np
import pytest
from ase import Atoms
from ase.build import make_supercell

from aims_pax.frames import Frame
from aims_pax.sampler import SamplingError
from aims_pax.samplers import supercell
from aims_pax.samplers.supercell import least_volume, repeated, shortest_image

CELLS = {
    "cubic": 3.0 * np.eye(3),
    "fcc": 1.8 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]),
    "triclinic": np.array([[3.0, 0, 0], [1.4, 2.6, 0], [-1.1, 0.9, 4.2]]),
    "not reduced": np.array([[3.0, 0, 0], [7.4, 2.6, 0], [-1.1, 6.1, 4.2]]),
}


def shortest(cell: np.ndarray) -> float:
    v = np.array([v for v in itertools.product(range(-8, 9), repeat=3) if any(v)])
    return np.linalg.norm(v @ cell, axis=1).min()


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
@pytest.mark.parametrize("radius", [2.0, 4.4, 5.3])
def test_no_image_is_nearer_than_the_radius_and_no_smaller_cell_will_do(cell, radius):
    P = least_volume(cell, radius)
    cells = round(np.linalg.det(P))
    assert shortest(P @ cell) >= radius - 1e-6
    assert shortest(P @ cell) == pytest.approx(shortest_image(P @ cell))
    for a, d, f in itertools.product(range(1, cells), repeat=3):  # every sublattice with fewer cells
        if a * d * f < cells:
            for b, c, e in itertools.product(range(d), range(f), range(f)):
                form = np.array([[a, b, c], [0, d, e], [0, 0, f]])
                assert shortest_image(form @ cell) < radius


def test_a_radius_of_its_own_length_keeps_the_cubic_cell_and_a_little_more_needs_two():
    assert round(np.linalg.det(least_volume(3.0 * np.eye(3), 3.0))) == 1
    two = least_volume(3.0 * np.eye(3), 3.01)
    assert round(np.linalg.det(two)) == 2  # face-centred: its shortest vector is √2 as long
    assert np.count_nonzero(two) > 3
    # closest packing itself
    assert round(np.linalg.det(least_volume(3.0 * np.eye(3), 3.0 * np.sqrt(2)))) == 2


def test_it_is_quick_for_the_documents_radius():
    P = least_volume(5.6 * np.eye(3), 25.0)
    assert shortest_image(P @ (5.6 * np.eye(3))) >= 25.0
    assert np.linalg.det(P) < 0.8 * 5**3


def test_open_directions_and_absurd_radii_are_told():
    with pytest.raises(SamplingError, match="three directions"):
        least_volume(np.eye(3), 3.0, (True, True, False))
    with pytest.raises(ValueError, match="positive length"):
        least_volume(np.eye(3), 0.0)


@pytest.mark.parametrize("P", [[[2, 0, 0], [0, 3, 0], [0, 0, 1]], [[1, 1, 0], [-1, 2, 1], [0, 1, 2]]])
def test_copies_are_those_ase_makes(P):
    atoms = Atoms("NaCl", [[0.1, 0.2, 0.3], [1.5, 1.4, 2.0]], cell=CELLS["triclinic"], pbc=True)
    ours, shifts = repeated(Frame.from_atoms(atoms), np.array(P))
    theirs = make_supercell(atoms, P)
    assert len(ours) == len(theirs)
    np.testing.assert_allclose(ours.cell, theirs.cell.array)
    for number, position in zip(ours.numbers, ours.positions, strict=True):
        d = Atoms([0, *theirs.numbers], np.vstack([position, theirs.positions]), cell=theirs.cell, pbc=True)
        near = d.get_distances(0, range(1, len(d)), mic=True)
        assert near.min() < 1e-6
        assert theirs.numbers[near.argmin()] == number
    np.testing.assert_allclose(
        ours.positions.reshape(-1, 2, 3) - atoms.positions,
        np.repeat(shifts @ atoms.cell, 2, 0).reshape(-1, 2, 3),
    )


def test_what_belongs_to_atoms_is_copied_and_charge_multiplied():
    frame = Frame([3], [[0, 0, 0]], 3 * np.eye(3), True, charge=0.5, moments=[1.0], fixed=[True])
    grown, _ = repeated(frame, 2 * np.eye(3))
    assert grown.charge == 4.0
    assert grown.moments.tolist() == [1.0] * 8
    assert grown.fixed.all()
    with pytest.raises(SamplingError, match="spin 2"):
        repeated(Frame([3], [[0, 0, 0]], 3 * np.eye(3), True, spin=2), 2 * np.eye(3))


def test_the_example_runs():
    result = doctest.testmod(supercell)
    assert result.attempted > 2
    assert result.failed == 0


def test_copies_bring_masses_moments_and_statements_along():
    from dataclasses import replace

    cell = replace(
        Frame([26, 8], [[0, 0, 0], [0, 0, 2]], 4 * np.eye(3), True), masses=[56, 18], moments=[4, 0],
        zero_moments=[False, True], statements=("set_vacuum_level 3.0",),
    )  # fmt: skip
    grown, _ = repeated(cell, np.diag([2, 1, 1]))
    assert grown.masses.tolist() == [56, 18, 56, 18]
    assert grown.zero_moments.tolist() == [False, True, False, True]
    assert grown.statements == cell.statements
