"""The range of potential energies that a system visits at a temperature.

For f classical degrees of freedom near a minimum, equipartition gives the potential energy above it

    ⟨V⟩ = f/2 · k_B T,      σ_V = sqrt(f/2) · k_B T

(McQuarrie, Statistical Mechanics). The minimum is not known; the lowest labelled energy E₀ of the same atoms is above
it. A predicted energy outside

    E₀ − f/2 · k_B T − k σ_V   …   E₀ + f/2 · k_B T + k σ_V

belongs to no structure that MD at this temperature should reach: the model is wrong there, and a label would be spent
on a structure that no user's simulation visits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ase.units import kB


@dataclass(frozen=True)
class ThermalRange:
    """lowest: E₀, the lowest labelled energy of the same atoms, eV. degrees: f. widths: k."""

    lowest: float
    degrees: int
    widths: float

    def bounds(self, temperature: float) -> tuple[float, float]:
        """The allowed energies in eV at a temperature in K.

        >>> [round(e, 2) for e in ThermalRange(-10.0, 21, 5.0).bounds(500.0)]
        [-11.15, -8.85]
        """
        kT = kB * temperature
        away = self.degrees / 2 * kT + self.widths * math.sqrt(self.degrees / 2) * kT
        return self.lowest - away, self.lowest + away

    def implausible(self, energy: float, temperature: float) -> str | None:
        """Why this predicted energy (eV) is outside the range, or None."""
        low, high = self.bounds(temperature)
        if low <= energy <= high:
            return None
        limit = high if energy > high else low
        where = "above" if energy > high else "below"
        return (
            f"predicted energy {abs(energy - self.lowest):.2f} eV {where} the lowest label, "
            f"{abs(limit - self.lowest):.2f} eV is the limit at {temperature:.0f} K"
        )
