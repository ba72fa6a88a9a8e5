"""Where trajectories begin: at structures that the initial dataset's sampler reached, or at the geometry itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aims_pax.core.thermal_energy import ThermalRange
from aims_pax.dataset import Dataset
from aims_pax.frames import Frame
from aims_pax.md.degrees_of_freedom import degrees
from aims_pax.systems import System, same_electrons, system_of

GOLDEN = 0.6180339887498949  # its multiples are spread evenly, however many trajectories there are


def start_structures(
    dataset: Dataset, systems: Sequence[System], dealt: Sequence[System], flexible: Sequence[bool]
) -> list[Frame]:
    """The first frame of each trajectory, from the frames of the initial dataset of its system; else its geometry.

    Frames that a user gave are not used: they may be far from equilibrium. Nor are frames with other atoms or other
    fixed atoms than the geometry (finite clusters, supercells), or with another cell where the cell is not to move.
    dealt: the system of each trajectory. flexible: whether its cell moves.
    """
    sampled: dict[str, list[Frame]] = {}
    for labelled in dataset.union("train"):
        if labelled.origin.get("stage") == "initial":
            name = system_of(labelled.frame, labelled.origin, systems)
            sampled.setdefault(name, []).append(labelled.frame)
    starts = []
    for i, (system, moves) in enumerate(zip(dealt, flexible, strict=True)):
        frames = [f for f in sampled.get(system.name, []) if _like(f, system.frame, moves)]
        starts.append(_spread(frames, i) or system.frame)
    return starts


def _like(frame: Frame, geometry: Frame, flexible: bool) -> bool:
    """Whether a trajectory of this geometry may begin at the frame."""
    if len(frame) != len(geometry) or (frame.numbers != geometry.numbers).any():
        return False
    fixed = [f.fixed if f.fixed is not None else np.zeros((len(f), 3), bool) for f in (frame, geometry)]
    same_cell = flexible or np.allclose(frame.cell, geometry.cell, atol=1e-6)
    return bool((frame.pbc == geometry.pbc).all() and same_cell and (fixed[0] == fixed[1]).all())


def _spread(frames: Sequence[Frame], i: int) -> Frame | None:
    return frames[int(len(frames) * ((0.5 + i * GOLDEN) % 1.0))] if frames else None


class EnergyRanges:
    """The thermal range of potential energies of each system, from the labels in a dataset as they arrive."""

    def __init__(self, dataset: Dataset, systems: Sequence[System], widths: float) -> None:
        """widths: of the thermal distribution, see `core.thermal_energy`; infinite: nothing is implausible."""
        self.dataset, self.systems, self.widths = dataset, systems, widths
        self._read = 0
        self._lowest: dict[str, float] = {}

    def implausible(self, system: System, frame: Frame, energy: float, temperature: float) -> str | None:
        """Why the predicted energy (eV) of a frame of this system is outside its range, or None."""
        if self.widths == float("inf"):
            return None
        self._update()
        if system.name not in self._lowest:
            return None
        f = degrees(len(frame), frame.fixed, at_rest=False)
        return ThermalRange(self._lowest[system.name], f, self.widths).implausible(energy, temperature)

    def _update(self) -> None:
        entries = self.dataset.entries
        if self._read > len(entries):  # it was cut back to a snapshot
            self._read, self._lowest = 0, {}
        for entry in entries[self._read :]:
            labelled = self.dataset.labelled(entry.frame, entry.label)
            if labelled is None:
                continue
            name = system_of(labelled.frame, labelled.origin, self.systems)
            system = next((s for s in self.systems if s.name == name), None)
            if system is not None and _same_substance(system.frame, labelled.frame):
                self._lowest[name] = min(labelled.label.energy, self._lowest.get(name, labelled.label.energy))
        self._read = len(entries)


def _same_substance(one: Frame, other: Frame) -> bool:
    """Whether two structures have the same elements, charge and spin, so that their energies can be compared."""
    return sorted(one.numbers) == sorted(other.numbers) and same_electrons(one, other)
