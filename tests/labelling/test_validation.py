"""The gate stops nonsense and lets honest structures through."""

import numpy as np
import pytest
from ase.data import covalent_radii

from aims_pax.errors import Unphysical
from aims_pax.frames import Frame
from aims_pax.labelling import validation
from aims_pax.labelling.validation import check_geometry
from tests import worlds

HYDROGEN = Frame([1], [[0, 0, 0]])


@pytest.mark.parametrize(
    "frame",
    [worlds.water(), worlds.ethanol(), worlds.crystal(), worlds.slab(), worlds.cluster(), HYDROGEN],
)
def test_honest_structures_pass(frame):
    check_geometry(frame)


def test_a_slab_without_a_third_vector_passes():
    cell, pbc = np.diag([2.9, 2.9, 0.0]), [True, True, False]
    check_geometry(Frame([13, 13], [[0, 0, 0], [1.4, 1.4, 2.0]], cell, pbc))


def test_nan_is_insane():
    with pytest.raises(Unphysical, match="atom 1 is not a number"):
        check_geometry(Frame([1, 1], [[0, 0, 0], [np.nan, 0, 0]]))


def test_overlapping_atoms_are_named():
    with pytest.raises(Unphysical, match=r"atoms C0 and H1 are 0\.400 Å apart"):
        check_geometry(Frame([6, 1], [[0, 0, 0], [0.4, 0, 0]]))


@pytest.mark.parametrize("factor", [0.49, 0.51])
def test_the_limit_is_half_the_sum_of_covalent_radii(factor):
    frame = Frame([6, 8], [[0, 0, 0], [factor * (covalent_radii[6] + covalent_radii[8]), 0, 0]])
    if factor < 0.5:
        with pytest.raises(Unphysical):
            check_geometry(frame)
    else:
        check_geometry(frame)


def test_periodic_images_count():
    cell = 5 * np.eye(3)
    positions = [[0.1, 0, 0], [4.9, 0, 0]]
    check_geometry(Frame([6, 6], positions, cell))
    with pytest.raises(Unphysical, match=r"0\.200 Å apart"):
        check_geometry(Frame([6, 6], positions, cell, [True] * 3))


def test_an_atom_too_close_to_its_own_image_is_insane():
    with pytest.raises(Unphysical, match="atoms Au0 and Au0"):
        check_geometry(Frame([79], [[0, 0, 0]], np.diag([1.0, 9, 9]), [True] * 3))


@pytest.mark.parametrize(("scale", "what"), [(1e4, "long"), (1e-2, "thin")])
def test_exploded_and_collapsed_cells_are_insane(scale, what):
    crystal = worlds.crystal()
    with pytest.raises(Unphysical, match=what):
        check_geometry(crystal.moved(crystal.positions, scale * crystal.cell))


def test_a_flat_cell_is_insane():
    with pytest.raises(Unphysical, match="thin"):
        check_geometry(Frame([1], [[0, 0, 0]], [[3, 0, 0], [0, 3, 0], [3, 3, 0.0]], [True] * 3))


@pytest.mark.parametrize("seed", range(6))
def test_all_distances_find_what_a_search_for_neighbours_finds(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    frame = Frame(rng.choice([1, 6, 79], 30), rng.uniform(0, 4, (30, 3)))
    radii = 0.5 * covalent_radii[frame.numbers]

    def pairs():
        i, j, d = validation.overlapping_pairs(frame, radii)
        return {(min(a, b), max(a, b), round(float(x), 10)) for a, b, x in zip(i, j, d, strict=True)}

    found = pairs()
    monkeypatch.setattr(validation, "SMALL", 0)
    assert found == pairs()
    assert found
