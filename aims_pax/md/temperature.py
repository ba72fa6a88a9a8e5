"""The target temperature of a trajectory: one number, or a ramp over its whole length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from ase import units
from torch import Tensor

from aims_pax.errors import SettingsError
from aims_pax.md.batch import MDBatch


def temperature_at(md: Any, step: float, length: float | None) -> float:
    """Target in K at a step: T, or T₀ + (T₁ − T₀) · step / length, T₁ from the last step on.

    It depends on the absolute step of the trajectory only, so a restart does not change it. length: MD steps of the
    whole trajectory. Raises SettingsError for a ramp with an unknown or infinite length.
    """
    if not ramped(md):
        return float(md.temperature)
    first, last = md.temperature
    if length is None or not math.isfinite(length) or length <= 0:
        raise SettingsError(
            f"MD.temperature: {[first, last]} is a ramp over the whole trajectory, whose length is unlimited; "
            "set max_MD_steps, or one temperature"
        )
    return float(first + (last - first) * min(max(step / length, 0.0), 1.0))


def ramped(md: Any) -> bool:
    """Whether the temperature is a ramp."""
    return isinstance(md.temperature, list | tuple)


def hottest(md: Any) -> float:
    """The highest target of a trajectory in K."""
    return float(max(md.temperature) if ramped(md) else md.temperature)


class Targets:
    """k_B T of each trajectory of a batch, in eV, halfway through each step."""

    def __init__(self, batch: MDBatch, md: Sequence[Any], length: float | None) -> None:
        self.batch, self.md, self.length = batch, list(md), length
        self.now = self._at(0)
        self.ramped = any(ramped(m) for m in md)

    def __call__(self, steps: int) -> Tensor:
        """(F,) eV for the step that begins `steps` steps after the start of the batch."""
        return self._at(steps) if self.ramped else self.now

    def _at(self, steps: int) -> Tensor:
        T = [
            temperature_at(m, s.step + steps + 0.5, self.length)
            for m, s in zip(self.md, self.batch.states, strict=True)
        ]
        return units.kB * torch.tensor(T, dtype=torch.float64, device=self.batch.device)
