"""Neighbour lists of atom pairs that could come too close, for many structures with moving atoms and cells."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols, covalent_radii
from ase.geometry import complete_cell
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from aims_pax.md.batch import MDBatch
from aims_pax.md.linalg3x3 import rows_times
from aims_pax.md.state import MDState

SKIN = 1.0  # Å: pairs are listed up to this much beyond the smallest allowed distance
ALL_PAIRS = 40  # molecules with up to this many atoms list all pairs once


class Contacts:
    """The pairs of atoms that could come too close, with a skin, including all periodic images.

    The list of pairs nearer than reach + SKIN at positions x₀ and cell h₀ is complete while, for each trajectory,
    (reach + SKIN)·σ_min(F) − 2 max_a |x_a − x₀_a·F| ≥ reach with F = h₀⁻¹h; σ_min(F) ≥ 1 − |F − 1|.
    """

    def __init__(self, batch: MDBatch, flexible: bool = False) -> None:
        """flexible: whether cells move; then `follow` must be called with every new cell."""
        self.batch = batch
        self.flexible = flexible
        self.cells = torch.stack([torch.tensor(s.cell) for s in batch.states]).to(batch.device)
        self.lists = [_pairs(s, s.positions, s.cell) for s in batch.states]
        roaming = [f for f, s in enumerate(batch.states) if not _lists_all(s)]
        rows = [np.arange(batch.slices[f].start, batch.slices[f].stop) for f in roaming]
        self.roaming = roaming
        self.rows = torch.from_numpy(np.concatenate(rows)).to(batch.device) if rows else None
        self.never = torch.zeros((), dtype=torch.bool, device=batch.device)
        self.inverse = torch.zeros_like(self.cells)
        self.boxed = torch.tensor([bool(s.pbc.all()) for s in batch.states], device=batch.device)  # (F,)
        self.offset: Tensor | None = None
        self._join()
        start = np.concatenate([s.positions for s in batch.states])
        self.origin = torch.from_numpy(start).to(batch.device)
        self._remember_cells(range(len(batch.states)))

    def follow(self, cells: Tensor) -> None:
        """Set the current cells (F, 3, 3)."""
        if self.flexible:
            self.cells = cells
            if self.offset is not None:
                self.offset = rows_times(self.shift, cells.index_select(0, self.structure))

    def close(self, positions: Tensor) -> Tensor:
        """(P,) whether the pair is too close."""
        return self._squared(positions) < self.reach2

    def moved(self, positions: Tensor) -> Tensor:
        """Whether atoms or cells have moved so far that a pair that is not in the list may be too close."""
        if self.rows is None:
            return self.never
        if not self.flexible:
            way = positions.index_select(0, self.rows) - self.origin.index_select(0, self.rows)
            return (way * way).sum(1).max() > (SKIN / 2) ** 2
        return (self._used(positions).index_select(0, self.rows) > SKIN / 2).any()

    def _used(self, positions: Tensor) -> Tensor:
        """(A,) Å: the part of half the skin that the motion of each atom and its cell has used up."""
        strain = self.inverse @ self.cells - torch.eye(3, dtype=torch.float64, device=self.cells.device)
        strain = torch.where(self.boxed[:, None, None], strain, 0.0)
        spread = self.batch.spread
        way = positions - self.origin - rows_times(self.origin, spread(strain))
        by_cell = 0.5 * (self.widest + SKIN) * strain.square().sum((1, 2)).sqrt()
        return way.square().sum(1).sqrt() + spread(by_cell)

    def rebuild(self, positions: Tensor) -> None:
        """Make new lists for trajectories whose atoms or cells have used up SKIN/8 or more."""
        now, then = positions.cpu().numpy(), self.origin.cpu().numpy().copy()
        cells = self.cells.cpu().numpy()
        used = self._used(positions).cpu().numpy() if self.flexible else abs(now - then).max(1)
        renewed = []
        for f in self.roaming:
            rows = self.batch.slices[f]
            if not (used[rows].max() < SKIN / 8):
                then[rows] = now[rows]
                self.lists[f] = _pairs(self.batch.states[f], now[rows], cells[f])
                renewed.append(f)
        self.origin = torch.from_numpy(then).to(self.batch.device)
        self._join()
        self._remember_cells(renewed)

    def named(self, positions: Tensor, close: Tensor) -> dict[int, str]:
        """{trajectory: text with its closest pair} for those with a pair that is too close."""
        found: dict[int, tuple[float, str]] = {}
        squared = self._squared(positions)
        for pair in torch.nonzero(close)[:, 0].tolist():
            f = int(self.batch.system[self.first[pair]])
            state, start = self.batch.states[f], self.batch.slices[f].start
            a, b = (chemical_symbols[state.numbers[int(k[pair]) - start]] for k in (self.first, self.second))
            distance = float(squared[pair]) ** 0.5
            found[f] = min(found.get(f, (np.inf, "")), (distance, f"pair {a}–{b} {distance:.2f} Å"))
        return {f: text for f, (_, text) in found.items()}

    def _squared(self, positions: Tensor) -> Tensor:
        d = positions.index_select(0, self.second) - positions.index_select(0, self.first)
        if self.offset is not None:
            d = d + self.offset
        return (d * d).sum(1)

    def _join(self) -> None:
        starts = [rows.start for rows in self.batch.slices]
        device = self.batch.device

        def tensor(parts: list[NDArray[Any]]) -> Tensor:
            return torch.from_numpy(np.concatenate(parts)).to(device)

        self.first = tensor([i + start for (i, _, _, _), start in zip(self.lists, starts, strict=True)])
        self.second = tensor([j + start for (_, j, _, _), start in zip(self.lists, starts, strict=True)])
        self.reach2 = tensor([reach**2 for *_, reach in self.lists])
        self.shift = tensor([S for _, _, S, _ in self.lists])
        self.structure = self.batch.system.index_select(0, self.first)
        anywhere = any(s.pbc.any() for s in self.batch.states)
        cells = self.cells.index_select(0, self.structure)
        self.offset = rows_times(self.shift, cells) if anywhere else None
        widest = [reach.max(initial=0.0) for *_, reach in self.lists]
        self.widest = torch.tensor(widest, dtype=torch.float64, device=device)  # (F,) Å

    def _remember_cells(self, frames: Iterable[int]) -> None:
        """Store the cells for which the lists of these trajectories were made."""
        for f in frames:
            if self.flexible and self.batch.states[f].pbc.all():
                self.inverse[f] = torch.linalg.inv(self.cells[f])


Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]


def _lists_all(state: MDState) -> bool:
    return not state.pbc.any() and len(state) <= ALL_PAIRS


def _pairs(state: MDState, positions: NDArray[np.float64], cell: NDArray[np.float64]) -> Pairs:
    """(i, j, S, reach): d = x_j − x_i + S·cell, too close when |d| < reach; each pair once."""
    half = 0.5 * covalent_radii[state.numbers]
    if _lists_all(state):
        i, j = np.triu_indices(len(state), 1)
        return i.astype(np.int64), j.astype(np.int64), np.zeros((len(i), 3)), half[i] + half[j]
    if not state.pbc.any():  # a grid over the space between fragments that fly apart would fill the memory
        i, j = cKDTree(positions).query_pairs(2 * half.max() + SKIN, output_type="ndarray").astype(np.int64).T
        reach = half[i] + half[j]
        near = np.square(positions[j] - positions[i]).sum(1) < (reach + SKIN) ** 2
        i, j, reach = i[near], j[near], reach[near]
        return i, j, np.zeros((len(i), 3)), reach
    from matscipy.neighbours import neighbour_list

    box, origin = _box(state, positions, cell)
    i, j, S = neighbour_list(
        "ijS",
        positions=positions,
        cell=box,
        pbc=state.pbc,
        numbers=state.numbers.astype(np.int32),
        cutoff=half + SKIN / 2,  # spheres that touch: half a skin for each atom
        cell_origin=origin,
    )
    ahead = (S * [4_000_000, 2_000, 1]).sum(1) > 0  # one of each pair of opposite images
    once = (i < j) | ((i == j) & ahead)
    i, j, S = i[once].astype(np.int64), j[once].astype(np.int64), S[once]
    return i, j, S.astype(float), half[i] + half[j]


def _box(
    state: MDState, positions: NDArray[np.float64], cell: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A cell with a volume that contains all atoms along open directions; periodic vectors stay."""
    cell = np.where(state.pbc[:, None], cell, 0.0)  # an open direction's vector may be short or missing
    cell = complete_cell(cell)
    along = positions @ np.linalg.inv(cell)
    low, high = along.min(0), along.max(0)
    origin = np.zeros(3)
    for axis in np.flatnonzero(~state.pbc):
        length = np.linalg.norm(cell[axis])
        origin += (low[axis] - 1 / length) * cell[axis]
        cell[axis] *= high[axis] - low[axis] + 2 / length
    return cell, origin
