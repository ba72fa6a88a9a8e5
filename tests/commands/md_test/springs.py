"""Molecules held together by springs, with known frequencies, and ways for a force field to be wrong."""

from __future__ import annotations

import numpy as np
import torch

from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.potential import Evaluation
from aims_pax.settings.md import MDSettings

WATER = Frame([8, 1, 1], [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
LENGTHS = np.linalg.norm(WATER.positions[[1, 2, 2]] - WATER.positions[[0, 0, 1]], axis=1)
MD = MDSettings(stat_ensemble="NVT", temperature=300.0, timestep=0.5)


class Springs:
    """Water of three springs, E = Σ ½ k (d − d₀)².

    snaps: elongation in Å from which a spring has no force any more. swirl: a force in eV/Å that is no derivative of
    the energy: it drives every atom along x.
    """

    elements, members = (1, 8), 1

    def __init__(self, k=30.0, snaps=np.inf, swirl=0.0):
        self.k, self.snaps, self.swirl, self.evaluations = k, snaps, swirl, 0

    def bind(self, frames):
        return _Bound(self, len(frames))

    def evaluate(self, frames):
        positions = torch.from_numpy(np.concatenate([f.positions for f in frames]))
        return self.bind(frames)(positions, torch.zeros(len(frames), 3, 3))

    def labels(self, frames):
        said = self.evaluate(frames)
        forces = np.split(said.forces[0].numpy(), len(frames))
        return [Label(float(E), F) for E, F in zip(said.energies[0], forces, strict=True)]


class _Bound:
    members, device = 1, "cpu"

    def __init__(self, springs, n):
        self.springs, self.n = springs, n

    def __call__(self, positions, cells, *, stress=False):
        own = self.springs
        own.evaluations += 1
        x = positions.reshape(self.n, 3, 3)
        first, second = [0, 0, 1], [1, 2, 2]
        way = x[:, second] - x[:, first]
        d = way.norm(dim=2)
        longer = torch.clamp(d - torch.tensor(LENGTHS), max=own.snaps)
        pull = torch.where(longer < own.snaps, own.k * longer / d, 0.0)[:, :, None] * way
        forces = torch.zeros_like(x)
        forces.index_add_(1, torch.tensor(first), pull)
        forces.index_add_(1, torch.tensor(second), -pull)
        forces[:, :, 0] += own.swirl
        return Evaluation((0.5 * own.k * longer**2).sum(1)[None], forces.reshape(1, -1, 3))


def frames(n=6, springs=None, seed=0):
    """Labelled frames near the minimum."""
    random, springs = np.random.default_rng(seed), springs or Springs()
    moved = [WATER.moved(WATER.positions + random.normal(scale=0.03, size=(3, 3))) for _ in range(n)]
    return [
        LabelledFrame(f, label, {"system": "water"})
        for f, label in zip(moved, springs.labels(moved), strict=True)
    ]
