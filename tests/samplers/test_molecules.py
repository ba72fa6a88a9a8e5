"""Molecules are found and made whole, however their atoms were wrapped."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from ase.build import graphene, molecule

from aims_pax import samplers
from aims_pax.frames import Frame
from aims_pax.sampler import SamplingError
from aims_pax.samplers import molecules
from aims_pax.samplers.molecules import detect
from tests.samplers.crystals import shuffled, skewed, water_box

CRYSTALS = {"64 waters": water_box(), "triclinic ammonia": skewed(), "one cell of it": skewed((1, 1, 1))}


def inner(frame: Frame, positions, atoms) -> np.ndarray:
    return np.linalg.norm(positions[atoms][:, None] - positions[atoms][None], axis=2)


@pytest.mark.parametrize("frame", CRYSTALS.values(), ids=CRYSTALS)
@pytest.mark.parametrize("seed", range(5))
def test_any_wrapping_gives_the_molecules_the_box_was_built_of(frame, seed):
    size = 3 if frame.numbers[0] == 8 else 4
    torn = shuffled(frame, seed)
    found = detect(torn)
    assert [a.tolist() for a in found.atoms] == np.arange(len(frame)).reshape(-1, size).tolist()
    whole = found.whole(torn)
    for atoms in found.atoms:
        np.testing.assert_allclose(
            inner(frame, whole, atoms), inner(frame, frame.positions, atoms), atol=1e-7
        )
    np.testing.assert_allclose(whole, detect(frame).whole(frame), atol=1e-7)


def test_molecules_are_whole_within_the_cell():
    frame = skewed()
    found = detect(frame)
    along = found.centers(found.whole(shuffled(frame, 1))) @ np.linalg.inv(frame.cell)
    assert (along > -1e-5).all()
    assert (along < 1).all()


def test_a_molecule_without_a_cell_stays_where_it_is():
    frame = Frame.from_atoms(molecule("CH3CH2OH"))
    found = detect(frame)
    assert found.formulas == ("C2H6O",)
    assert (found.whole(frame) == frame.positions).all()


@pytest.mark.parametrize("size", [(1, 1, 1), (3, 2, 1)])
def test_graphene_is_no_crystal_of_molecules(size):
    with pytest.raises(SamplingError, match="infinite network"):
        detect(Frame.from_atoms(graphene(size=size, vacuum=5.0)))


def test_an_atom_bonded_to_its_own_image_is_a_network_too():
    chain = Frame([6], [[0, 0, 0]], np.diag([1.4, 9, 9]), True)
    with pytest.raises(SamplingError, match="atom 0 lead to its own periodic image"):
        detect(chain)


def test_a_center_of_mass_on_a_face_counts_the_same_from_both_sides():
    corners = np.array([[0, 0, 0], [0.5, 0, 0], [0, 0.5, 0.5], [0, 0.25, 0]])
    cell = 2.0 * skewed((1, 1, 1)).cell
    frame = Frame([18] * 4, corners @ cell, cell, True)
    found = detect(frame)
    for seed in range(5):
        torn = shuffled(frame, seed)
        trembling = torn.moved(torn.positions + np.random.default_rng(seed).choice([-1e-8, 1e-8], (4, 3)))
        np.testing.assert_allclose(found.whole(trembling), frame.positions, atol=1e-7)


def test_a_ring_is_no_network():
    benzene = molecule("C6H6", cell=[8, 8, 8], pbc=True)
    benzene.positions += [7.0, 0.3, 7.9]
    assert detect(shuffled(Frame.from_atoms(benzene), 0)).formulas == ("C6H6",)


def test_a_stretched_bond_is_kept_and_a_broken_one_told():
    frame = water_box(2)
    found = detect(frame)
    R = frame.positions.copy()
    bond = R[1] - R[0]
    R[1] = R[0] + 1.3 * bond  # beyond 1.15 × radii
    assert detect(frame.moved(R)).formulas.count("HO") == 1
    np.testing.assert_allclose(
        found.whole(shuffled(frame.moved(R), 3)), found.whole(frame.moved(R)), atol=1e-7
    )
    R[1] = R[0] + 1.6 * bond
    with pytest.raises(
        SamplingError, match=r"8 molecules in the reference structure, 9 here; atom 0 now .* HO"
    ):
        found.whole(frame.moved(R))


def test_a_new_bond_between_molecules_is_told():
    frame = water_box(2)
    R = frame.positions.copy()
    R[3:6] += R[0] + [0.0, 0.0, 1.2] - R[3]
    with pytest.raises(SamplingError, match="7 here"):
        detect(frame).whole(frame.moved(R))


def test_the_example_runs():
    assert doctest.testmod(molecules).failed == 0
    assert doctest.testmod(molecules).attempted > 3


def test_the_example_of_the_package_runs():
    result = doctest.testmod(samplers)
    assert result.attempted > 4
    assert result.failed == 0
