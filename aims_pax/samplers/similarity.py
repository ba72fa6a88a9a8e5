"""Similarity of two geometries of one system, and close contacts of atoms.

Two structures are similar when the mean displacement of their atoms,

    D = (1/N) Σ_a |ΔR_a|,      ΔR_a the minimum image of R_a − R'_a,

is below a threshold. Where cells differ, atoms are compared at equal fractional coordinates of one reference
cell, and the mean length of the differences of the lattice vectors must be below the threshold too.
Permutations and rotations count as differences.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
from ase.geometry import complete_cell
from ase.geometry.minkowski_reduction import minkowski_reduce
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from aims_pax.frames import Array, Frame

FIRST = 8  # atoms compared first, which excludes most of a pool


class MinimumImage:
    """Minimum-image lengths of displacements in a cell, exact for any skew.

    cell: (3, 3) Å, zeros allowed along open directions. pbc: (3,) bool.
    """

    def __init__(self, cell: Array, pbc: NDArray[np.bool_]) -> None:
        self.pbc = pbc
        self.cell, _ = minkowski_reduce(full_cell(cell, pbc), pbc)
        self.inverse = np.linalg.inv(self.cell)
        heights = 1 / np.linalg.norm(self.inverse, axis=0)
        # rounding gives the minimum image of vectors shorter than this; for longer ones neighbouring images are tried
        self.sure = heights[pbc].min() / 2 if pbc.any() else np.inf
        steps = [(-1, 0, 1) if p else (0,) for p in pbc]
        self.images = np.array(list(itertools.product(*steps)), float) @ self.cell

    def lengths(self, displacements: Array) -> Array:
        """(…,) Å: minimum-image lengths of displacements (…, 3) Å."""
        if not self.pbc.any():
            return _norm(displacements)
        turns = np.where(self.pbc, np.round(displacements @ self.inverse), 0.0)
        near = displacements - turns @ self.cell
        lengths = _norm(near)
        far = lengths > self.sure
        if far.any():
            lengths[far] = _norm(near[far][:, None] + self.images).min(1)
        return lengths


class StructurePool:
    """Structures of one system, for checking whether a new one is similar to any of them."""

    def __init__(self, reference: Frame, threshold: float) -> None:
        """reference: atoms are compared in its cell. threshold: Å."""
        self.threshold = threshold
        self.reference = reference
        self.metric = MinimumImage(reference.cell, reference.pbc)
        self._size = 0
        self._positions = np.empty((16, len(reference), 3))
        self._cells = np.empty((16, 3, 3))

    def __len__(self) -> int:
        return self._size

    def add(self, frame: Frame) -> None:
        """Add a structure to the pool."""
        if self._size == len(self._positions):
            more = max(16, self._size)
            self._positions = np.concatenate([self._positions, np.empty((more, len(self.reference), 3))])
            self._cells = np.concatenate([self._cells, np.empty((more, 3, 3))])
        self._positions[self._size] = self._in_reference_cell(frame)
        self._cells[self._size] = frame.cell
        self._size += 1

    def state_arrays(self) -> dict[str, Array]:
        """The structures as arrays."""
        return {"positions": self._positions[: self._size].copy(), "cells": self._cells[: self._size].copy()}

    def load_state_arrays(self, arrays: Mapping[str, Array]) -> None:
        """Restore the state from `state_arrays`."""
        self._positions, self._cells = np.array(arrays["positions"]), np.array(arrays["cells"])
        self._size = len(self._positions)

    def holds_like(self, frame: Frame) -> bool:
        """Whether any structure of the pool is similar to this one."""
        R: Array = self._in_reference_cell(frame)
        between = _norm(self._cells[: self._size] - frame.cell)[:, frame.pbc]  # (P, periodic vectors)
        alive = np.flatnonzero(between.sum(1) < self.threshold * max(1, between.shape[1]))
        total = np.zeros(len(alive))
        limit = len(R) * self.threshold
        begin, end = 0, FIRST
        while len(alive) and begin < len(R):  # a sum above the limit can only grow
            lengths = self.metric.lengths(self._positions[alive, begin:end] - R[begin:end])
            total = total + lengths.sum(1)
            alive, total = alive[total < limit], total[total < limit]
            begin, end = end, 2 * end
        return len(alive) > 0

    def _in_reference_cell(self, frame: Frame) -> Array:
        own, reference = frame.cell, self.reference.cell
        if (own == reference).all():
            return frame.positions
        return frame.positions @ mapping(own, reference, frame.pbc)


def mapping(old: Array, new: Array, pbc: NDArray[np.bool_]) -> Array:
    """(3, 3) M such that R·M has the same fractional coordinates in `new` as R has in `old`."""
    return np.asarray(np.linalg.solve(full_cell(old, pbc), full_cell(new, pbc)), float)


def full_cell(cell: Array, pbc: NDArray[np.bool_]) -> Array:
    """(3, 3) Å: the cell with unit vectors, orthogonal to the periodic ones, along open directions."""
    completed: Array = complete_cell(np.where(pbc[:, None], cell, 0.0))
    return completed


def closer_than(frame: Frame, distance: float) -> bool:
    """Whether any two atoms, including all periodic images, are closer than this (Å)."""
    if distance <= 0:
        return False
    if not frame.pbc.any():
        return len(cKDTree(frame.positions).query_pairs(distance, output_type="ndarray")) > 0
    return len(close_pairs(frame, distance)[2]) > 0


def close_pairs(frame: Frame, cutoff: float) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    """(P,) i, j and distance (Å) of all ordered pairs closer than the cutoff, periodic images included."""
    R = frame.positions
    if not frame.pbc.any():
        half = cKDTree(R).query_pairs(cutoff, output_type="ndarray")
        i, j = np.concatenate([half, half[:, ::-1]]).astype(np.int64).reshape(-1, 2).T
        return i, j, _norm(R[i] - R[j])
    from matscipy.neighbours import neighbour_list

    cell = full_cell(frame.cell, frame.pbc)
    along = R @ np.linalg.inv(cell)
    stretch = np.where(frame.pbc, 1.0, np.ptp(along, axis=0) + 1.0)  # open directions hold all atoms
    corner = np.where(frame.pbc, 0.0, along.min(0)) @ cell
    box = cell * stretch[:, None]
    i, j, d = neighbour_list("ijd", positions=R - corner, cell=box, pbc=frame.pbc, cutoff=cutoff)
    return np.asarray(i, np.int64), np.asarray(j, np.int64), np.asarray(d, float)


def _norm(vectors: Array) -> Array:
    lengths: Array = np.sqrt(np.einsum("...i,...i->...", vectors, vectors))
    return lengths
