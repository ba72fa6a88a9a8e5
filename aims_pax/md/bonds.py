"""Covalent bonds along a trajectory: which there are, how long they are, and which one breaks.

Only bonds between two non-metals count: where a metal takes part, neighbours may change in a sound simulation.

    bonded:   d < 1.25 (r_i + r_j) in at least 90 % of the given structures
    broken:   d > 1.5 (r_i + r_j)          r: covalent radii (Cordero et al., Dalton Trans. 2008, 2832)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols, covalent_radii
from ase.geometry import find_mic
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

from aims_pax.frames import Array, Geometry

BONDED, BROKEN = 1.25, 1.5  # times the sum of covalent radii
MOSTLY = 0.9  # share of the structures in which a pair must be bonded
METALLOIDS = {5, 14, 32, 33, 51, 52}
NON_METALS = METALLOIDS | {1, 2, *range(6, 11), *range(15, 19), *range(34, 37), 53, 54, 85, 86}


@dataclass(frozen=True)
class CovalentBonds:
    """B bonds of one system. pairs: (B, 2) atoms. limit: (B,) Å, from which a bond is broken.

    longest: (B,) Å in the structures from which they were found, number of these: `structures`.
    """

    pairs: NDArray[np.int64]
    limit: Array
    longest: Array
    structures: int

    def lengths(self, geometry: Geometry) -> Array:
        """(B,) Å, by the nearest periodic image."""
        if not len(self.pairs):
            return np.zeros(0)
        way = geometry.positions[self.pairs[:, 1]] - geometry.positions[self.pairs[:, 0]]
        return np.asarray(find_mic(way, geometry.cell, geometry.pbc)[1], float)

    def whole_in(self, geometry: Geometry) -> CovalentBonds:
        """Those that are not broken in this structure."""
        whole = self.lengths(geometry) <= self.limit
        return replace(self, pairs=self.pairs[whole], limit=self.limit[whole], longest=self.longest[whole])

    def broken(self, geometry: Geometry) -> str:
        """The bond that is longest relative to its limit, as text, if it is broken; else ""."""
        d = self.lengths(geometry)
        if not len(d) or not (d > self.limit).any():
            return ""
        k = int(np.argmax(d / self.limit))
        i, j = (int(a) for a in self.pairs[k])
        return (
            f"bond {atom_name(geometry, i)}–{atom_name(geometry, j)} broke ({d[k]:.2f} Å; "
            f"the longest in the labelled frames is {self.longest[k]:.2f} Å)"
        )


def atom_name(geometry: Geometry, i: int) -> str:
    """`O3`: element and number of an atom, counted from 1 as molecular viewers do."""
    return f"{chemical_symbols[int(geometry.numbers[i])]}{i + 1}"


def find_bonds(structures: Sequence[Geometry]) -> CovalentBonds:
    """The bonds that structures of one system, with equal atoms in equal order, have in common."""
    counted: Counter[tuple[int, int]] = Counter()
    for one in structures:
        counted.update(_bonded(one))
    pairs = sorted(pair for pair, n in counted.items() if n >= MOSTLY * len(structures))
    index = np.array(pairs, np.int64).reshape(-1, 2)
    sums = covalent_radii[structures[0].numbers[index]].sum(1) if pairs else np.zeros(0)
    bonds = CovalentBonds(index, BROKEN * sums, np.zeros(len(index)), len(structures))
    longest = np.max([bonds.lengths(s) for s in structures], axis=0)
    return CovalentBonds(index, bonds.limit, longest, len(structures))


def _bonded(one: Geometry) -> set[tuple[int, int]]:
    """Pairs i < j of non-metal atoms whose distance is that of a bond."""
    atoms = Atoms(numbers=one.numbers, positions=one.positions, cell=one.cell, pbc=one.pbc)
    radii = BONDED * covalent_radii[one.numbers]
    first, second = neighbor_list("ij", atoms, list(radii))
    sound = np.isin(one.numbers, list(NON_METALS))
    near = (first < second) & sound[first] & sound[second]
    return {(int(i), int(j)) for i, j in zip(first[near], second[near], strict=True)}
