"""Molecules in a periodic box: finds the atoms of each molecule and unwraps molecules across cell boundaries.

Atoms closer than 1.15 × the sum of their covalent radii are bonded. A breadth-first search over the bonds carries
integer lattice vectors, so a molecule is unwrapped exactly, however its atoms were wrapped. A closed loop whose
lattice vectors do not add up to zero belongs to an infinite network (graphene, quartz, a metal).

>>> from aims_pax.frames import Frame
>>> torn = Frame([8, 1, 1], [[0.1, 5, 5], [9.14, 5, 5], [0.3, 5.94, 5]], 10 * np.eye(3), True)
>>> molecules = detect(torn)
>>> len(molecules), molecules.formulas
(1, ('H2O',))
>>> molecules.whole(torn)[1].round(2).tolist()
[-0.86, 5.0, 5.0]
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import atomic_masses
from ase.neighborlist import natural_cutoffs, neighbor_list
from ase.symbols import Symbols
from numpy.typing import NDArray

from aims_pax.frames import Array, Frame
from aims_pax.sampler import SamplingError
from aims_pax.samplers.similarity import full_cell

SCALE = 1.15  # atoms closer than this times their covalent radii are bonded
BROKEN = 1.5  # a bond of the reference structure longer than this times the radii is broken
Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Bonds:
    """Each bond once. first, second: (B,) atoms. image: (B, 3) lattice vectors added to `second`."""

    first: Integers
    second: Integers
    image: Integers


@dataclass(frozen=True, eq=False)
class Molecules:
    """The molecules of one system, in the order of their first atoms.

    atoms: for each molecule its atoms, ascending. numbers: (N,) atomic numbers. pairs: bonded atoms.
    scale: factor on the covalent radii.
    """

    atoms: tuple[Integers, ...]
    numbers: Integers
    pairs: frozenset[tuple[int, int]]
    scale: float = SCALE

    def __len__(self) -> int:
        return len(self.atoms)

    @property
    def formulas(self) -> tuple[str, ...]:
        """Hill formula of each molecule."""
        return tuple(Symbols(self.numbers[a]).get_chemical_formula("hill") for a in self.atoms)

    @property
    def identical(self) -> bool:
        """Whether all have one elemental composition."""
        return len(set(self.formulas)) == 1

    def whole(self, frame: Frame) -> Array:
        """(N, 3) Å: the positions of a frame of this system with every molecule unwrapped, its centre of mass within
        the cell. The result does not depend on the wrapping of the input.

        Raises SamplingError where atoms are no longer bonded as in the reference: a bond longer than 1.5 × the
        covalent radii, or a new one between molecules.
        """
        atoms, shifts = _components(len(frame), _bonds(frame, self.scale, self.pairs))
        if [a.tolist() for a in atoms] != [a.tolist() for a in self.atoms]:
            raise SamplingError(f"{frame.formula}: {_changed(self, atoms)}")
        R: Array = frame.positions + shifts @ frame.cell
        if frame.pbc.any():
            for inside in self.atoms:
                R[inside] -= _cells_away(center_of_mass(R[inside], self.numbers[inside]), frame) @ frame.cell
        return R

    def centers(self, positions: Array) -> Array:
        """(K, 3) Å: centres of mass of the K molecules in unwrapped positions (N, 3)."""
        return np.array([center_of_mass(positions[a], self.numbers[a]) for a in self.atoms])


def detect(frame: Frame, scale: float = SCALE) -> Molecules:
    """The molecules of a structure, periodic or not, with any wrapping.

    Raises SamplingError when bonds form an infinite network.
    """
    bonds = _bonds(frame, scale)
    atoms, _ = _components(len(frame), bonds)
    pairs = frozenset(
        (min(i, j), max(i, j)) for i, j in zip(bonds.first.tolist(), bonds.second.tolist(), strict=True)
    )
    return Molecules(atoms, frame.numbers, pairs, scale)


def center_of_mass(positions: Array, numbers: Integers) -> Array:
    """(3,) Å: the centre of mass."""
    m = atomic_masses[numbers]
    center: Array = m @ positions / m.sum()
    return center


def _bonds(frame: Frame, scale: float, known: frozenset[tuple[int, int]] = frozenset()) -> Bonds:
    """Pairs within `scale` × radii; for `known` pairs also the nearest image within BROKEN × radii."""
    atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)
    radii = np.array(natural_cutoffs(atoms))
    reach = max(scale, BROKEN) if known else scale
    i, j, image, d = neighbor_list("ijSd", atoms, reach * radii)
    once = (i < j) | ((i == j) & (_sign(image) > 0))
    i, j, image, d = i[once], j[once], image[once], d[once]
    bonded = d < scale * (radii[i] + radii[j])
    if known:
        nearest: dict[tuple[int, int], int] = {}
        for b in np.argsort(d, kind="stable").tolist():
            nearest.setdefault((int(i[b]), int(j[b])), b)
        bonded[[b for pair, b in nearest.items() if pair in known]] = True
    return Bonds(i[bonded], j[bonded], image[bonded])


def _sign(image: Integers) -> Integers:
    """The sign of the first nonzero component of each lattice vector."""
    return np.asarray(np.sign(image @ np.array([1 << 40, 1 << 20, 1])), np.int64)


def _components(n: int, bonds: Bonds) -> tuple[tuple[Integers, ...], Integers]:
    """Connected atoms and the (N, 3) lattice vectors that bring each next to the first of its component."""
    neighbours: list[list[tuple[int, Integers]]] = [[] for _ in range(n)]
    for i, j, image in zip(bonds.first.tolist(), bonds.second.tolist(), bonds.image, strict=True):
        neighbours[i].append((j, image))
        neighbours[j].append((i, -image))
    shifts = np.zeros((n, 3), np.int64)
    found: list[Integers] = []
    seen = np.zeros(n, bool)
    for first in range(n):
        if seen[first]:
            continue
        seen[first], queue, inside = True, deque([first]), [first]
        while queue:
            i = queue.popleft()
            for j, image in neighbours[i]:
                there = shifts[i] + image
                if not seen[j]:
                    seen[j], shifts[j] = True, there
                    queue.append(j)
                    inside.append(j)
                elif (shifts[j] != there).any():
                    raise SamplingError(
                        f"the bonds of atom {j} lead to its own periodic image: this is an infinite network, not a "
                        "molecular crystal; switch finite clusters off, or use a larger cell if a molecule touches "
                        "its image"
                    )
        found.append(np.array(sorted(inside)))
    return tuple(found), shifts


def _cells_away(center: Array, frame: Frame) -> Integers:
    """The lattice vector of the cell that contains this point; points on a face count as inside."""
    along = np.linalg.solve(full_cell(frame.cell, frame.pbc).T, center)
    return np.where(frame.pbc, np.floor(along + 1e-6), 0).astype(np.int64)


def _changed(molecules: Molecules, atoms: tuple[Integers, ...]) -> str:
    """The difference from the reference, as text."""
    before = {tuple(a.tolist()) for a in molecules.atoms}
    new = sorted(tuple(a.tolist()) for a in atoms)
    other = [a for a in new if a not in before]
    formula = Symbols(molecules.numbers[list(other[0])]).get_chemical_formula("hill")
    return (
        f"{len(molecules)} molecules in the reference structure, {len(atoms)} here; atom {other[0][0]} now belongs "
        f"to {formula}: a bond broke or formed; lower the temperature, or leave this frame out"
    )
