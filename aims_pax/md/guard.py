"""Exploded trajectories: looked for in the whole batch at every step, named when found.

A frame is impossible when its energy, forces or momenta are not finite, when it is hotter than 10 × its
target (at least 3 000 K), or when a pair of atoms is closer than half the sum of their covalent radii.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ase import units
from ase.data import chemical_symbols, covalent_radii
from ase.geometry import complete_cell
from numpy.typing import NDArray
from torch import Tensor

from aims_pax.md.batch import Batch, Motion
from aims_pax.md.state import MDState

SKIN = 1.0  # Å: pairs are listed this far beyond the distance that is too close
ALL_PAIRS = 40  # molecules up to this many atoms list every pair once and for all


class Guard:
    """Watches a batch. `faults` costs a dozen small operations and one look at the device."""

    def __init__(self, batch: Batch, temperatures: Sequence[float]) -> None:
        """temperatures: the target of each trajectory in K."""
        hottest = [max(10 * t, 3000.0) for t in temperatures]
        limit = [s.degrees / 2 * units.kB * t for s, t in zip(batch.states, hottest, strict=True)]
        self.batch = batch
        self.limit = torch.tensor(limit, dtype=torch.float64, device=batch.device)  # (F,) eV
        self.half_inverse_mass = 0.5 / batch.masses
        self.contacts = Contacts(batch)

    def faults(self, motion: Motion, energies: Tensor, forces: Tensor, steps: int) -> dict[int, str]:
        """{trajectory: reason} of those that are impossible now, `steps` steps after the batch began.

        energies: (M, F) eV. forces: (A, 3) eV/Å, the mean that moves the atoms.
        """
        kinetic = self._kinetic(motion)
        finite = energies.sum(0).isfinite()
        cold = kinetic <= self.limit  # not a number is not cold
        close = self.contacts.close(motion.positions)
        flags = [(cold & finite).all().logical_not(), close.any(), forces.sum().isfinite().logical_not()]
        moved = self.contacts.moved(motion.positions)
        hot, near, wild, far = torch.stack([*flags, moved]).tolist()
        if far and not (hot or wild):  # else the next batch begins with new lists anyway
            self.contacts.rebuild(motion.positions)
            close = self.contacts.close(motion.positions)
            near = bool(close.any())
        if not (hot or near or wild):
            return {}
        return self._reasons(motion, kinetic, finite & self._finite(forces), cold, close, steps)

    def _kinetic(self, motion: Motion) -> Tensor:
        """(F,) eV."""
        per_atom = (motion.momenta * motion.momenta * self.half_inverse_mass).sum(1)
        return torch.zeros_like(self.limit).index_add_(0, self.batch.system, per_atom)

    def _finite(self, forces: Tensor) -> Tensor:
        """(F,) whether all forces of the trajectory are finite."""
        return torch.stack([forces[rows].isfinite().all() for rows in self.batch.slices])

    def _reasons(
        self, motion: Motion, kinetic: Tensor, finite: Tensor, cold: Tensor, close: Tensor, steps: int
    ) -> dict[int, str]:
        pairs = self.contacts.named(motion.positions, close)
        reasons: dict[int, str] = {}
        for f, state in enumerate(self.batch.states):
            if not bool(finite[f]):
                what = "energy or forces are not finite"
            elif not bool(kinetic[f].isfinite()):
                what = "momenta are not finite"
            elif not bool(cold[f]):
                what = f"temperature {spaced(2 * float(kinetic[f]) / (max(state.degrees, 1) * units.kB))} K"
            elif f in pairs:
                what = pairs[f]
            else:
                continue
            reasons[f] = f"{what} at step {spaced(state.step + steps)}"
        return reasons


class Contacts:
    """The pairs of atoms that could come too close, with a skin, periodic images (own ones too) included.

    Cells are taken to stay as they are at the beginning of the batch: no integrator changes them yet.
    """

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.lists = [_pairs(s, s.positions) for s in batch.states]
        roaming = [f for f, s in enumerate(batch.states) if not _lists_all(s)]
        rows = [np.arange(batch.slices[f].start, batch.slices[f].stop) for f in roaming]
        self.roaming = roaming
        self.rows = torch.from_numpy(np.concatenate(rows)).to(batch.device) if rows else None
        self.never = torch.zeros((), dtype=torch.bool, device=batch.device)
        self._join()
        start = np.concatenate([s.positions for s in batch.states])
        self.origin = torch.from_numpy(start).to(batch.device)

    def close(self, positions: Tensor) -> Tensor:
        """(P,) whether the pair is too close."""
        return self._squared(positions) < self.reach2

    def moved(self, positions: Tensor) -> Tensor:
        """Whether an atom went so far that a pair outside the list may be close."""
        if self.rows is None:
            return self.never
        way = positions.index_select(0, self.rows) - self.origin.index_select(0, self.rows)
        return (way * way).sum(1).max() > (SKIN / 2) ** 2

    def rebuild(self, positions: Tensor) -> None:
        """List the pairs of those trajectories anew that have used up a good part of their skin."""
        now, then = positions.cpu().numpy(), self.origin.cpu().numpy().copy()
        for f in self.roaming:
            rows = self.batch.slices[f]
            if not (abs(now[rows] - then[rows]).max() < SKIN / 8):
                then[rows] = now[rows]
                self.lists[f] = _pairs(self.batch.states[f], now[rows])
        self.origin = torch.from_numpy(then).to(self.batch.device)
        self._join()

    def named(self, positions: Tensor, close: Tensor) -> dict[int, str]:
        """{trajectory: its closest pair in words} for those that have one too close."""
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
        anywhere = any(s.pbc.any() for s in self.batch.states)
        self.offset = tensor([offset for _, _, offset, _ in self.lists]) if anywhere else None


Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]


def _lists_all(state: MDState) -> bool:
    return not state.pbc.any() and len(state) <= ALL_PAIRS


def _pairs(state: MDState, positions: NDArray[np.float64]) -> Pairs:
    """(i, j, offset, reach): d = x_j − x_i + offset, too close when |d| < reach; each pair once."""
    half = 0.5 * covalent_radii[state.numbers]
    if _lists_all(state):
        i, j = np.triu_indices(len(state), 1)
        return i.astype(np.int64), j.astype(np.int64), np.zeros((len(i), 3)), half[i] + half[j]
    from matscipy.neighbours import neighbour_list

    cell, origin = _box(state, positions)
    i, j, S = neighbour_list(
        "ijS",
        positions=positions,
        cell=cell,
        pbc=state.pbc,
        numbers=state.numbers.astype(np.int32),
        cutoff=half + SKIN / 2,  # spheres that touch: half a skin from each side
        cell_origin=origin,
    )
    ahead = (S * [4_000_000, 2_000, 1]).sum(1) > 0  # of an image and its opposite, one
    once = (i < j) | ((i == j) & ahead)
    i, j, S = i[once].astype(np.int64), j[once].astype(np.int64), S[once]
    return i, j, S @ cell, half[i] + half[j]


def _box(state: MDState, positions: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A cell with volume that holds the atoms along open directions; periodic vectors stay."""
    if not state.pbc.any():
        low, high = positions.min(0) - 1, positions.max(0) + 1
        return np.diag(high - low), low
    cell = np.where(state.pbc[:, None], state.cell, 0.0)  # an open direction's vector may be short or missing
    cell = complete_cell(cell)
    along = positions @ np.linalg.inv(cell)
    low, high = along.min(0), along.max(0)
    origin = np.zeros(3)
    for axis in np.flatnonzero(~state.pbc):
        length = np.linalg.norm(cell[axis])
        origin += (low[axis] - 1 / length) * cell[axis]
        cell[axis] *= high[axis] - low[axis] + 2 / length
    return cell, origin


def spaced(value: float) -> str:
    """A whole number as people read it: 12 345."""
    return f"{value:,.0f}".replace(",", " ")
