"""Augmentation: perturbed copies of labelled structures, labelled by a Gaussian process where it is known to be right.

A copy is refused when a force or its energy is uncertain, when two atoms come closer than atoms do in the data, or when
no atom can move. Whether the process is good enough for any copy is for the caller to decide, from its leave-one-out
errors. The labels are not those of a reference: `surrogate:<hash of the process>` is in the origin of every copy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from aims_pax import seeds
from aims_pax.frames import WEIGHT, Array, Frame, Label, LabelledFrame
from aims_pax.models.gp.sparse_process import ProcessPrediction
from aims_pax.surrogate_labels import BY, PROVENANCE

UNSURE, UNSURE_ENERGY, CLOSE = "uncertain force", "uncertain energy", "atoms too close"
UNLEARNABLE = "the baseline fails"
STILL = "no atom can move"  # one atom alone, or all fixed: the copy is its parent
AT_ONCE = 20


class Surrogate(Protocol):
    """What labels copies."""

    def predict(
        self, frames: Sequence[Frame], spread: bool = False, stress: bool = False
    ) -> ProcessPrediction: ...


@dataclass(frozen=True)
class CopyLimits:
    """sigma: standard deviation of displacements, Å. copies: of each structure. max_sd: largest standard deviation of a
    force component, eV/Å. max_energy_sd: of the energy, eV. separation: smallest share of the shortest distance in the
    data."""

    sigma: float
    copies: int
    max_sd: float = 0.1
    max_energy_sd: float = 0.025
    separation: float = 0.7
    seed: int = 0


@dataclass(frozen=True)
class LabelledCopies:
    """copies: with labels and origin. parents: index of the structure of each. energy_sd: (F,) eV, force_sd: one
    (N, 3) eV/Å each. refused: {reason: number}. largest_sd: eV/Å, of a force component in each copy, refused ones of
    known distances included."""

    copies: tuple[LabelledFrame, ...] = ()
    parents: tuple[int, ...] = ()
    energy_sd: tuple[float, ...] = ()
    force_sd: tuple[Array, ...] = ()
    refused: Mapping[str, int] = field(default_factory=dict)
    largest_sd: tuple[float, ...] = ()


def make_copies(
    process: Surrogate,
    name: str,
    data: Sequence[LabelledFrame],
    limits: CopyLimits,
    check: Callable[[], Any] = lambda: None,
    learnable: Callable[[list[Frame]], list[Frame]] = list,
) -> LabelledCopies:
    """Copies of each structure, in order. name: hash of the process. The same seed gives the same copies.

    learnable: those of some copies that a model can learn.
    """
    closest = closest_atoms([x.frame for x in data])
    copies: list[LabelledFrame] = []
    parents: list[int] = []
    energy_sd: list[float] = []
    force_sd: list[Array] = []
    refused: Counter[str] = Counter()
    largest: list[float] = []
    for k, parent in enumerate(data):
        for start in range(0, limits.copies, AT_ONCE):
            check()
            several = range(start, min(start + AT_ONCE, limits.copies))
            frames = [_moved(parent.frame, limits, n) for n in several]
            moved = [f for f in frames if (f.positions != parent.frame.positions).any()]
            refused[STILL] += len(frames) - len(moved)
            apart = [f for f in moved if closest_atoms([f]) >= limits.separation * closest]
            refused[CLOSE] += len(moved) - len(apart)
            usable = learnable(apart)
            refused[UNLEARNABLE] += len(apart) - len(usable)
            if not usable:
                continue
            said = process.predict(usable, spread=True)
            for frame, label, de, df in _each(usable, said):
                largest.append(float(df.max()))
                if df.max() > limits.max_sd:
                    refused[UNSURE] += 1
                elif de > limits.max_energy_sd:
                    refused[UNSURE_ENERGY] += 1
                else:
                    copies.append(LabelledFrame(frame, label, copy_origin(parent, name)))
                    parents.append(k)
                    energy_sd.append(de)
                    force_sd.append(df)
    accepted = (tuple(copies), tuple(parents), tuple(energy_sd), tuple(force_sd))
    return LabelledCopies(*accepted, dict(refused), tuple(largest))


def closest_atoms(frames: Sequence[Frame]) -> float:
    """Å; 0 when all structures are single atoms without images nearby."""
    from ase.neighborlist import neighbor_list

    shortest = np.inf
    for frame in frames:
        reach = 3.0
        while len(d := neighbor_list("d", frame.to_atoms(), reach)) == 0 and reach < 24:
            reach *= 2
        shortest = min(shortest, float(d.min()) if len(d) else np.inf)
    return float(shortest) if np.isfinite(shortest) else 0.0


def _moved(frame: Frame, limits: CopyLimits, number: int) -> Frame:
    """A copy, displaced by normal deviates minus their mean; fixed components stay."""
    rng = seeds.rng("augment", limits.seed, frame.id, number)
    steps = rng.normal(0, limits.sigma, frame.positions.shape)
    steps -= steps.mean(0)
    if frame.fixed is not None:
        steps[frame.fixed] = 0
    return frame.moved(frame.positions + steps)


def _each(frames: Sequence[Frame], said: ProcessPrediction) -> list[tuple[Frame, Label, float, Array]]:
    assert said.force_sd is not None
    assert said.energy_sd is not None
    ends = np.cumsum([len(f) for f in frames])[:-1]
    forces, deviations = np.split(said.forces, ends), np.split(said.force_sd, ends)
    return [
        (frame, Label(float(e), f), float(de), df)
        for frame, e, f, de, df in zip(frames, said.energies, forces, said.energy_sd, deviations, strict=True)
    ]


def copy_origin(parent: LabelledFrame, name: str) -> dict[str, str | int | float]:
    """The origin of a copy: what decides the weight of its parent in training, the parent's id, and the process, by its
    hash, that labelled the copy."""
    known = {
        key: parent.origin[key] for key in ("config_type", WEIGHT, "system", "stage") if key in parent.origin
    }
    return {**known, PROVENANCE: f"{BY}{name}", "parent": parent.id}
