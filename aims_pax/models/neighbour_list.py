"""Neighbour lists with a skin, for many structures at once, in one canonical order.

A pair (i, j, S) is an edge when |x_j − x_i + S·h| < r, with h the cell (rows) and S integers along periodic
axes.
Edges are sorted by (i, j, S), so the order does not depend on when or how a list was made and equal
structures give bit-equal forces.

With a skin s the list holds all pairs closer than r + s at positions x0 and cell h0. It stays complete while

    (r + s)·σ_min(F) − 2·max_a |x_a − x0_a·F| ≥ r,      F = h0⁻¹·h

(σ_min: smallest singular value; F = 1 at constant cell, where this is the familiar max |x − x0| ≤ s/2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matscipy import neighbours as matscipy_neighbours
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from aims_pax.frames import Array, Frame

Ints = NDArray[np.int64]

FAR = 1e5  # Å from the mean position: beyond this the structure has exploded
FLAT = 1e-6  # Å or Å²: length or area of a wire's or slab's cell, below which it has no lattice
CROWD = 3000  # neighbours per atom: beyond this the cell has collapsed


def neighbour_list(
    positions: Array, cell: Array, pbc: NDArray[np.bool_], cutoff: float
) -> tuple[Ints, Ints, Ints]:
    """All pairs within the cutoff: i (E,), j (E,), S (E, 3), canonically ordered.

    positions: (N, 3) Å, wrapped or not. cell: (3, 3) Å, zeros allowed along non-periodic axes.
    """
    if not pbc.any():
        pairs = cKDTree(positions).query_pairs(cutoff, output_type="ndarray").astype(np.int64)
        i, j = np.concatenate([pairs, pairs[:, ::-1]]).T
        S = np.zeros((len(i), 3), np.int64)
    else:
        box, moved = _box(positions, cell, pbc, cutoff)
        i, j, S = matscipy_neighbours.neighbour_list("ijS", positions=moved, cell=box, pbc=pbc, cutoff=cutoff)
        i, j, S = i.astype(np.int64), j.astype(np.int64), S.astype(np.int64)
    order = np.lexsort((S[:, 2], S[:, 1], S[:, 0], j, i))
    return i[order], j[order], S[order]


def completed(cell: Array, pbc: NDArray[np.bool_]) -> Array:
    """(3, 3) Å with a unit vector, orthogonal to the periodic ones, in place of each non-periodic vector."""
    if pbc.all():
        return cell
    full = np.where(pbc[:, None], cell, 0.0)
    _, _, directions = np.linalg.svd(full)  # the last rows span what the periodic vectors do not
    full[~pbc] = directions[int(pbc.sum()) :]
    return full


def _box(positions: Array, cell: Array, pbc: NDArray[np.bool_], cutoff: float) -> tuple[Array, Array]:
    """A cell that contains every atom along the non-periodic axes, and positions shifted into it."""
    box = completed(cell, pbc).copy()
    moved = positions.copy()
    for axis in np.flatnonzero(~pbc):
        along = positions @ box[axis]
        moved += (cutoff - along.min()) * box[axis]
        box[axis] = box[axis] * (np.ptp(along) + 2 * cutoff)
    return box, moved


def is_sane_structure(positions: Array, cell: Array, pbc: NDArray[np.bool_], cutoff: float) -> bool:
    """Whether a neighbour list can be made: all finite, not exploded, not collapsed, lattice vectors independent."""
    if not (np.isfinite(positions).all() and np.isfinite(cell).all()):
        return False
    if np.abs(positions - positions.mean(0)).max(initial=0) > FAR:
        return False
    if not pbc.any():
        return True
    volume = abs(np.linalg.det(completed(cell, pbc)))
    if pbc.all():
        return bool(len(positions) * 4.19 * cutoff**3 < CROWD * volume)
    return bool(volume > FLAT)


@dataclass(frozen=True)
class Edges:
    """Edges of all frames in one list. sender, receiver: (E,) atom indices; vectors: (E, 3) Å float64."""

    sender: torch.Tensor
    receiver: torch.Tensor
    vectors: torch.Tensor


class SkinNeighbours:
    """Neighbours within r_max of F moving structures; the list of a structure is rebuilt only when necessary."""

    def __init__(self, frames: Sequence[Frame], r_max: float, skin: float, device: torch.device) -> None:
        self.r_max, self.skin, self.device = r_max, skin, device
        self.pbc = [frame.pbc for frame in frames]
        sizes = [len(frame) for frame in frames]
        self.starts = np.concatenate([[0], np.cumsum(sizes)])
        self.frame_of = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)).to(device)
        self.x0 = torch.full((int(self.starts[-1]), 3), torch.nan, dtype=torch.float64, device=device)
        self.h0 = torch.zeros((len(sizes), 3, 3), dtype=torch.float64, device=device)
        nothing = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 3), np.int64))
        self.lists: list[tuple[Ints, Ints, Ints]] = [nothing] * len(sizes)
        self.lost = np.zeros(len(sizes), bool)
        self.builds = 0
        self.shifted = any(pbc.any() for pbc in self.pbc)

    def __call__(self, positions: torch.Tensor, cells: torch.Tensor) -> Edges:
        """Edges at these positions (A, 3) and cells (F, 3, 3), float64 on the device."""
        stale = self._stale(positions, cells)
        if stale.any():
            self._rebuild(stale, positions, cells)
        vectors = positions[self.receiver] - positions[self.sender]
        if self.shifted:
            vectors = vectors + torch.einsum("ek,ekc->ec", self.S, cells[self.frame_of_edge])
        near = torch.nonzero(vectors.square().sum(-1) < self.r_max**2).squeeze(-1)
        return Edges(self.sender[near], self.receiver[near], vectors[near])

    def _stale(self, positions: torch.Tensor, cells: torch.Tensor) -> NDArray[np.bool_]:
        """(F,) bool: the list may miss a pair (always true for structures in `lost`)."""
        same_cells = not self.shifted or torch.equal(cells, self.h0)
        if same_cells and not self.lost.any():  # the usual case, with half the work of the one below
            furthest_of_all = float((positions - self.x0).square().sum(-1).amax())
            if 4 * furthest_of_all <= self.skin**2:  # False for NaN
                return self.lost
        reach = torch.full((len(self.pbc),), self.r_max + self.skin, dtype=torch.float64, device=self.device)
        x0 = self.x0
        if not same_cells:
            F = self._deformation(cells)
            reach = reach * torch.linalg.svdvals(F)[:, -1]
            x0 = torch.einsum("ak,akc->ac", x0, F[self.frame_of])
        moved = (positions - x0).square().sum(-1)
        furthest = torch.zeros_like(reach).scatter_reduce(0, self.frame_of, moved, "amax")
        fresh = reach - 2 * furthest.sqrt() >= self.r_max  # False for NaN
        return (~fresh).cpu().numpy() | self.lost

    def _deformation(self, cells: torch.Tensor) -> torch.Tensor:
        """F (F, 3, 3) = h0⁻¹·h, the identity for structures without periodic axes."""
        F = np.tile(np.eye(3), (len(self.pbc), 1, 1))
        before, now = self.h0.cpu().numpy(), cells.cpu().numpy()
        for f, pbc in enumerate(self.pbc):
            if not pbc.any() or np.array_equal(before[f], now[f]):
                continue
            if not np.isfinite(now[f]).all() or not before[f].any():
                F[f] = 0.0
                continue
            F[f] = np.linalg.solve(completed(before[f], pbc), completed(now[f], pbc))
        return torch.from_numpy(F).to(self.device)

    def _rebuild(self, stale: NDArray[np.bool_], positions: torch.Tensor, cells: torch.Tensor) -> None:
        x, h = positions.detach().cpu().numpy(), cells.detach().cpu().numpy()
        cutoff = self.r_max + self.skin
        for f in np.flatnonzero(stale):
            atoms = slice(self.starts[f], self.starts[f + 1])
            if is_sane_structure(x[atoms], h[f], self.pbc[f], cutoff):
                i, j, S = neighbour_list(x[atoms], h[f], self.pbc[f], cutoff)
                self.lists[f] = (i + self.starts[f], j + self.starts[f], S)
                self.lost[f] = False
                self.builds += 1
            else:
                self.lists[f] = tuple(part[:0] for part in self.lists[f])  # type: ignore[assignment]
                self.lost[f] = True
            self.x0[atoms] = positions[atoms].detach()
            self.h0[f] = cells[f].detach()
        sender, receiver, S = (np.concatenate(parts) for parts in zip(*self.lists, strict=True))
        per_frame = torch.tensor([len(part[0]) for part in self.lists])
        self.sender = torch.from_numpy(sender).to(self.device)
        self.receiver = torch.from_numpy(receiver).to(self.device)
        self.S = torch.from_numpy(S).to(self.device, torch.float64)
        self.frame_of_edge = torch.repeat_interleave(torch.arange(len(self.lists)), per_frame).to(self.device)
