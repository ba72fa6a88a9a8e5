"""Quick potentials in torch with a binding, deterministic and independent of who shares the batch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from aims_pax.frames import Frame, Label
from aims_pax.potential import Evaluation


class _Torch:
    """`labels` from `bind`; counts what it was asked."""

    def __init__(self) -> None:
        self.bindings = 0
        self.evaluations = 0

    def labels(self, frames: Sequence[Frame]) -> list[Label]:
        return [self._label(f) for f in frames]

    def _label(self, frame: Frame) -> Label:
        bound = self.bind([frame])
        here = torch.from_numpy(frame.positions.copy()), torch.from_numpy(frame.cell.copy())[None]
        said = bound(*here, stress=frame.periodic)
        stress = said.stress.mean(0)[0].numpy() if frame.periodic else None
        return Label(float(said.energies.mean()), said.forces.mean(0).numpy(), stress)


class LennardJones(_Torch):
    """ε, σ the same for all atoms, cut and shifted at `cutoff`; `scales`: one factor of ε a member.

    smooth: force and its slope vanish at the cutoff as well. drives: bindings can be asked for single members.
    """

    def __init__(
        self, epsilon=0.0104, sigma=3.4, cutoff=8.5, scales=(1.0,), device="cpu", smooth=False, drives=False
    ) -> None:
        super().__init__()
        self.device, self.smooth, self.drives = device, smooth, drives
        self.alone = 0  # evaluations of the driving members only
        self.epsilon, self.sigma, self.cutoff, self.scales = epsilon, sigma, cutoff, scales

    def bind(self, frames: Sequence[Frame]):
        self.bindings += 1
        return _BoundLJ(self, frames)


class _BoundLJ:
    def __init__(self, lj: LennardJones, frames: Sequence[Frame]) -> None:
        self.lj, self.members, self.device = lj, len(lj.scales), lj.device
        first, second, shift, structure, start = [], [], [], [], 0
        for f, frame in enumerate(frames):
            for s in _images(frame, lj.cutoff):
                if any(s):  # the opposite image brings the other direction
                    i, j = (k.ravel() for k in np.indices((len(frame), len(frame))))
                else:
                    i, j = np.triu_indices(len(frame), 1)
                first.append(i + start)
                second.append(j + start)
                shift.append(np.tile(np.array(s, float), (len(i), 1)))
                structure.append(np.full(len(i), f))
            start += len(frame)
        self.first, self.second, self.shift, self.structure = (
            torch.from_numpy(np.concatenate(part)).to(lj.device) for part in (first, second, shift, structure)
        )
        self.periodic = bool(self.shift.any())
        self.atoms = torch.from_numpy(np.repeat(np.arange(len(frames)), [len(f) for f in frames])).to(
            lj.device
        )
        self.drives = lj.drives

    def __call__(
        self, positions: Tensor, cells: Tensor, *, stress: bool = False, driving_members=None
    ) -> Evaluation:
        self.lj.evaluations += 1
        d = positions[self.second] - positions[self.first]
        if self.periodic:
            d = d + (self.shift[:, :, None] * cells[self.structure]).sum(1)
        r2 = (d * d).sum(1)
        inside = r2 < self.lj.cutoff**2
        s2 = self.lj.sigma**2 / r2
        s6 = s2 * s2 * s2
        c2 = self.lj.cutoff**2
        edge = (self.lj.sigma / self.lj.cutoff) ** 6
        bend = 4 * self.lj.epsilon * (42 * edge * edge - 12 * edge) / c2**2 if self.lj.smooth else 0.0
        slope = 4 * self.lj.epsilon * (-6 * edge * edge + 3 * edge) / c2 if self.lj.smooth else 0.0
        energy = 4 * self.lj.epsilon * (s6 * s6 - s6 - edge * edge + edge)
        energy = energy - (r2 - c2) * slope - 0.5 * (r2 - c2) ** 2 * bend
        push = 24 * self.lj.epsilon * (2 * s6 * s6 - s6) / r2 + 2 * slope + 2 * (r2 - c2) * bend
        energy = torch.where(inside, energy, 0.0)
        push = torch.where(inside, push, 0.0)[:, None] * d
        forces = torch.zeros_like(positions).index_add_(0, self.second, push).index_add_(0, self.first, -push)
        total = cells.new_zeros(len(cells)).index_add_(0, self.structure, energy)
        sigma = self._stress(push, d, cells) if stress else None
        if driving_members is not None:
            self.lj.alone += 1
            k = torch.tensor([self.lj.scales[m] for m in driving_members], dtype=torch.float64)
            own = None if sigma is None else (k[:, None, None] * sigma)[None]
            return Evaluation((k * total)[None], (k[self.atoms][:, None] * forces)[None], own)
        return Evaluation(
            torch.stack([k * total for k in self.lj.scales]),
            torch.stack([k * forces for k in self.lj.scales]),
            None if sigma is None else torch.stack([k * sigma for k in self.lj.scales]),
        )

    def _stress(self, push: Tensor, d: Tensor, cells: Tensor) -> Tensor:
        """−Σ f⊗d / V."""
        each = (push[:, :, None] * d[:, None, :]).reshape(-1)
        index = (9 * self.structure[:, None] + torch.arange(9)).reshape(-1)
        virial = torch.zeros(9 * len(cells), dtype=torch.float64).index_add_(0, index, each)
        return (
            -virial.reshape(-1, 3, 3) / torch.stack([torch.linalg.det(h).abs() for h in cells])[:, None, None]
        )


def _images(frame: Frame, cutoff: float):
    """Half of the lattice vectors whose image may lie within the cutoff, the zero vector first.

    Also when the cell becomes a sixth lower than it is in the frame.
    """
    reach = [0, 0, 0]
    if frame.pbc.any():
        cell = np.where(frame.pbc[:, None], frame.cell, np.eye(3) * 1e6)
        heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
        reach = [int(1.2 * cutoff / h) + 1 if p else 0 for h, p in zip(heights, frame.pbc, strict=True)]
    shifts = itertools.product(*(range(-r, r + 1) for r in reach))
    return [(0, 0, 0), *(s for s in shifts if s > (0, 0, 0))]


class Springs(_Torch):
    """Every atom on a spring of its own to the origin: E = ½ k x². Atoms do not feel each other."""

    def __init__(self, k: float = 1.0) -> None:
        super().__init__()
        self.k = k

    def bind(self, frames: Sequence[Frame]):
        self.bindings += 1
        return _BoundSprings(self, frames)


class _BoundSprings:
    members = 1
    device = "cpu"

    def __init__(self, springs: Springs, frames: Sequence[Frame]) -> None:
        self.springs = springs
        self.structure = torch.from_numpy(np.repeat(np.arange(len(frames)), [len(f) for f in frames]))

    def __call__(self, positions: Tensor, cells: Tensor, *, stress: bool = False) -> Evaluation:
        self.springs.evaluations += 1
        per_atom = 0.5 * self.springs.k * (positions * positions).sum(1)
        energies = torch.zeros(len(cells), dtype=torch.float64).index_add_(0, self.structure, per_atom)
        virial = -self.springs.k * (positions[:, :, None] * positions[:, None, :])
        total = torch.zeros(len(cells), 3, 3, dtype=torch.float64).index_add_(0, self.structure, virial)
        sigma = (-total / torch.linalg.det(cells).abs()[:, None, None])[None] if stress else None
        return Evaluation(energies[None], -self.springs.k * positions[None], sigma)


def cluster(n: int = 7, spacing: float = 3.8, seed: int = 0, **system) -> Frame:
    """n argon atoms on a lattice, a little displaced."""
    grid = np.array(list(itertools.product(range(4), repeat=3))[:n], float) * spacing
    grid += np.random.default_rng(seed).normal(0, 0.05, grid.shape)
    return Frame(numbers=[18] * n, positions=grid, **system)


def crystal(repeat: int = 2, a: float = 5.3, **system) -> Frame:
    """fcc argon."""
    base = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    cells = np.array(list(itertools.product(range(repeat), repeat=3)))
    positions = (base[None] + cells[:, None]).reshape(-1, 3) * a
    cell = np.eye(3) * a * repeat
    return Frame(numbers=[18] * len(positions), positions=positions, cell=cell, pbc=True, **system)
