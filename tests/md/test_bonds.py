"""Covalent bonds: found where structures have them in common, and reported when they break."""

import numpy as np
import pytest

from aims_pax.frames import Frame
from aims_pax.md.bonds import find_bonds

WATER = np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])


def water(scale=1.0, shift=(0, 0, 0), cell=None):
    positions = WATER.copy()
    positions[1] *= scale
    box = {} if cell is None else {"cell": cell, "pbc": [True] * 3}
    return Frame([8, 1, 1], positions + shift, **box)


def test_water_has_two_bonds_and_the_longest_of_the_structures_is_remembered():
    bonds = find_bonds([water(), water(1.1)])
    assert bonds.pairs.tolist() == [[0, 1], [0, 2]]
    assert bonds.longest == pytest.approx([1.056, np.hypot(0.24, 0.93)])
    assert bonds.broken(water(1.3)) == ""
    text = bonds.broken(water(1.8))
    assert text == "bond O1–H2 broke (1.73 Å; the longest in the labelled frames is 1.06 Å)"


def test_a_pair_bonded_in_few_of_the_structures_is_no_bond():
    bonds = find_bonds([*[water()] * 8, *[water(3.0)] * 2])
    assert bonds.pairs.tolist() == [[0, 2]]
    assert len(find_bonds([*[water()] * 19, water(3.0)]).pairs) == 2


def test_bonds_cross_the_faces_of_a_cell():
    cell = 6.0 * np.eye(3)
    apart = water(shift=(5.5, 1, 1), cell=cell)
    wrapped = Frame(apart.numbers, apart.positions % 6.0, cell=cell, pbc=[True] * 3)
    bonds = find_bonds([apart, wrapped])
    assert len(bonds.pairs) == 2
    assert bonds.lengths(wrapped) == pytest.approx(bonds.lengths(apart))


def test_neighbours_of_metals_are_no_bonds():
    assert len(find_bonds([Frame([29, 29, 8], [[0, 0, 0], [2.5, 0, 0], [1.2, 1.3, 0]])]).pairs) == 0
    assert find_bonds([Frame([18], [[0, 0, 0]])]).broken(Frame([18], [[0, 0, 0]])) == ""
