"""The smallest supercell whose periodic images are at least a given distance apart.

All supercells of n cells are the Hermite normal forms of determinant n; n grows until one of them has no lattice
vector shorter than the radius (Hart and Forcade, Phys. Rev. B 77, 224115 (2008)). The supercell may have any shape,
not only repeats along the three vectors.

>>> primitive = 3.61 / 2 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
>>> P = least_volume(primitive, radius=7.0)
>>> round(float(np.linalg.det(P))), round(shortest_image(P @ primitive), 2)
(27, 7.66)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from ase.geometry.minkowski_reduction import minkowski_reduce
from numpy.typing import NDArray

from aims_pax.frames import Array, Frame
from aims_pax.sampler import SamplingError

Integers = NDArray[np.int64]

MOST = 20_000  # cells
SLACK = 1e-6  # Å, numerical tolerance


def least_volume(cell: Array, radius: float, pbc: Sequence[bool] = (True, True, True)) -> Integers:
    """(3, 3) whole numbers P with the smallest determinant > 0 for which no nonzero vector of the lattice P·cell is
    shorter than `radius` (Å).

    Among equals the one with the longest shortest vector. Rows are Minkowski-reduced. Raises SamplingError for open
    directions and for more than 20 000 cells.
    """
    if not all(pbc):
        raise SamplingError("a supercell radius needs a structure that is periodic in three directions")
    if not 0 < radius < math.inf:
        raise ValueError(f"radius {radius}: expected a positive length")
    cell, turn = minkowski_reduce(np.asarray(cell, float), True)
    volume = abs(np.linalg.det(cell))
    near, lengths = _vectors(cell, 2.0 * radius)
    short = near[lengths < radius - SLACK]
    n = max(1, math.ceil((radius - SLACK) ** 3 / math.sqrt(2) / volume - 1e-9))  # close packing is densest
    for cells in range(n, MOST + 1):
        fits = _hermite(cells)
        for some in np.split(short, [4, 32]):  # few vectors exclude most forms
            fits = fits[~_holds(fits, some).any(1)]
        if len(fits):
            best = _roundest(fits, near)
            _, inner = minkowski_reduce(best @ cell, True)
            P: Integers = np.rint(inner @ best @ turn).astype(np.int64)
            return P if np.linalg.det(P) > 0 else -P
    raise SamplingError(f"supercell_radius {radius:g} Å needs more than {MOST} cells; choose a smaller one")


def shortest_image(cell: Array) -> float:
    """Å: the shortest lattice vector."""
    reduced, _ = minkowski_reduce(np.asarray(cell, float), True)
    return float(np.linalg.norm(reduced, axis=1).min())


def repeated(frame: Frame, P: Integers) -> tuple[Frame, Integers]:
    """The frame in the cell P·cell, and (c, 3) the lattice vectors of its c copies in their order.

    Copy after copy, each with the atoms in the frame's order. Charge is multiplied, spin cannot be.
    """
    P = np.asarray(P, np.int64)
    shifts = copies(P)
    c = len(shifts)
    if frame.spin not in (None, 1) and c > 1:
        raise SamplingError(
            f"{frame.formula}: spin {frame.spin} of one cell says nothing about {c} cells; remove it"
        )
    grown = frame.chosen(
        np.tile(np.arange(len(frame)), c),
        (frame.positions[None] + (shifts @ frame.cell)[:, None]).reshape(-1, 3),
        cell=P @ frame.cell,
        charge=None if frame.charge is None else c * frame.charge,
    )
    return grown, shifts


def copies(P: Integers) -> Integers:
    """(c, 3) the c = det P lattice vectors within the cell P, in a fixed order. Raises ValueError when c < 1."""
    c = round(np.linalg.det(P))
    if c < 1:
        raise ValueError(f"supercell matrix {P.tolist()}: its determinant is {c}, expected at least 1")
    corners = np.array(list(itertools.product((0, 1), repeat=3))) @ P
    low, high = corners.min(0), corners.max(0)
    grid = np.array(list(itertools.product(*(range(a, b + 1) for a, b in zip(low, high, strict=True)))))
    adjugate = np.rint(c * np.linalg.inv(P)).astype(np.int64)  # exact: x·P⁻¹ in [0, 1) without rounding
    along = grid @ adjugate
    within: Integers = grid[((along >= 0) & (along < c)).all(1)]
    return within


def _vectors(cell: Array, longest: float) -> tuple[Integers, Array]:
    """One of each pair ±v of lattice vectors up to a length, shortest first; and their lengths (Å)."""
    heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    reach = np.ceil(longest / heights).astype(int)
    v = np.array(list(itertools.product(*(range(-r, r + 1) for r in reach))), np.int64)
    v = v[len(v) // 2 + 1 :]  # the second half, lexicographically above zero
    lengths = np.linalg.norm(v @ cell, axis=1)
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] <= longest]
    return v[order], lengths[order]


def _hermite(n: int) -> Integers:
    """(M, 3, 3) every upper triangular Hermite normal form of determinant n."""
    forms = []
    for a in (k for k in range(1, n + 1) if n % k == 0):
        for d in (k for k in range(1, n // a + 1) if n // a % k == 0):
            f = n // a // d
            b, c, e = (x.ravel() for x in np.indices((d, f, f)))
            some = np.zeros((len(b), 3, 3), np.int64)
            some[:, 0, 0], some[:, 1, 1], some[:, 2, 2] = a, d, f
            some[:, 0, 1], some[:, 0, 2], some[:, 1, 2] = b, c, e
            forms.append(some)
    return np.concatenate(forms)


def _holds(forms: Integers, vectors: Integers) -> NDArray[np.bool_]:
    """(M, V): whether v = x·H with whole x, by substitution."""
    holds = np.ones((len(forms), len(vectors)), bool)
    rest = np.broadcast_to(vectors, (len(forms), *vectors.shape)).copy()
    for row in range(3):
        x, left = np.divmod(rest[:, :, row], forms[:, row, row, None])
        holds &= left == 0
        rest -= x[:, :, None] * forms[:, row, None, :]
    return holds


def _roundest(forms: Integers, near: Integers) -> Integers:
    """The form with the longest shortest vector; `near` is sorted by length."""
    held = _holds(forms, near)
    first = np.where(held.any(1), held.argmax(1), len(near))
    best: Integers = forms[int(np.argmax(first))]
    return best
