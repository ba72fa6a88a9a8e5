"""A descriptor of structures that is invariant to translation, rotation and renumbering of atoms.

For each atom a and every element Z, a smooth histogram of the distances to its neighbours of that element,

    g_a,Zk = Σ_{b ≠ a, Z_b = Z} f(r_ab) exp(−(r_ab − r_k)²/2w²),      f(r) = ½ (1 + cos πr/r_c) below r_c, 0 beyond,

periodic images included (the radial functions of Behler and Parrinello, Phys. Rev. Lett. 98, 146401 (2007)). Then,
for each element of the centre and each component, the values of all its atoms, sorted, divided by √N. The result
is invariant to translations, rotations, reflections, permutations of equal atoms and the choice of the cell's origin,
and smooth in the positions; the Euclidean distance of two descriptors is at most that of the best assignment of the
atoms. Interatomic distances do not determine a structure: a structure and its mirror image have the same descriptor,
and so have structures that differ in angles only, if every atom has the same distances.

>>> water = Frame([8, 1, 1], [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
>>> turned = Frame([8, 1, 1], [[5, 5, 5], [5, 5.93, 4.76], [5, 5, 5.96]])
>>> a, b = radial([water, turned])
>>> float(abs(a - b).max()) < 1e-6
True
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from aims_pax.frames import Array, Frame
from aims_pax.samplers.similarity import close_pairs

Describe = Callable[[Sequence[Frame]], Array]  # F frames of one composition → (F, D)

CUTOFF, CENTRES, FIRST = 5.0, 16, 0.5  # Å: r_c; r_k from FIRST to r_c; w is their spacing


def radial(frames: Sequence[Frame]) -> Array:
    """(F, D) the descriptor of the module's docstring, for F frames with the same elements in the same order."""
    if not frames:
        return np.empty((0, 0))
    return pooled(np.stack([histograms(frame) for frame in frames]), frames[0].numbers)


def histograms(frame: Frame) -> Array:
    """(N, elements × k) g of every atom, elements ascending."""
    i, j, r = close_pairs(frame, CUTOFF)
    kinds, which = np.unique(frame.numbers, return_inverse=True)
    centres = np.linspace(FIRST, CUTOFF, CENTRES)
    width = centres[1] - centres[0]
    weight = 0.5 * (1 + np.cos(np.pi * r / CUTOFF))
    values = weight[:, None] * np.exp(-0.5 * ((r[:, None] - centres) / width) ** 2)
    g = np.zeros((len(frame) * len(kinds), CENTRES))
    np.add.at(g, i * len(kinds) + which[j], values)
    return g.reshape(len(frame), -1)


def pooled(features: Array, numbers: NDArray[np.int64]) -> Array:
    """(F, N·D) from features (F, N, D) of atoms: for each element and component the sorted values, divided by √N."""
    parts = [
        np.sort(features[:, numbers == z], axis=1).reshape(len(features), -1) for z in np.unique(numbers)
    ]
    return np.asarray(np.concatenate(parts, axis=1) / np.sqrt(len(numbers)), float)


def distances(points: Array, to: Array) -> Array:
    """(P,) Euclidean distances of points (P, D) to one (D,), computed from differences: exactly 0 for equal points."""
    away = points - to
    return np.asarray(np.sqrt(np.einsum("pd,pd->p", away, away)), float)


def farthest_points(points: Array, n: int, chosen: Array | None = None) -> list[int]:
    """Indices of n of the points (P, D), each the farthest from those before it and from `chosen` (C, D).

    Without `chosen`, the first point is the farthest from the mean. Of equally far points (to 1e-9) the first is
    taken, so that the result depends on the order of the points only (Gonzalez, Theor. Comput. Sci. 38, 293 (1985)).

    >>> farthest_points(np.array([[0.0], [1.0], [4.0], [10.0], [9.0]]), 3)
    [3, 0, 2]
    """
    X = np.asarray(points, float)
    n = min(n, len(X))
    if n < 1:
        return []
    nearest = np.full(len(X), np.inf)  # distance of each point to the chosen ones
    for point in () if chosen is None else chosen:
        nearest = np.minimum(nearest, distances(X, point))
    taken: list[int] = []
    free = np.ones(len(X), bool)
    for _ in range(n):
        by = distances(X, X.mean(0)) if np.isinf(nearest).all() else nearest
        k = int(np.argmax(np.where(free, np.round(by, 9), -1.0)))
        taken.append(k)
        free[k] = False
        nearest = np.minimum(nearest, distances(X, X[k]))
    return taken
