"""Makes one child of a structure: random displacements, a random cell change, short steps along the forces."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from ase.units import kB

from aims_pax.frames import Array, Frame
from aims_pax.samplers.similarity import full_cell, mapping

CELL_CHANGE = ("cell_sigma does not support", "set it to null")  # for `System.refuses_cell_change`
STEEP = 1e-6  # eV/Å: a smaller force has no direction


@dataclass(frozen=True)
class Rattling:
    """Parameters for making children. Energies, kT and forces are in the potential's units (eV unless `k` differs).

    temperature: K. beta: weight of low energies against late generations when a parent is chosen.
    sigma_range: Å. cell_sigma: spread of the cell's change, None for a constant cell. max_force: eV/Å.
    min_separation, similarity_threshold: Å. max_attempts: rejected children in a row before a tree is given up.
    k: Boltzmann constant in energy/K.

    Where augment-atoms' document and code (0.2.0) differ:
    beta_reading: `document`, or `code`, which exchanges β and 1 − β.
    boltzmann: energies in exp(−E/kT) `per_atom` (its code), or `total` (its document).
    cell_sigma_reading: C = (1 + A)·C0 with A_ij from N(0, s), s uniform in [0, cell_sigma] (`strain`, the
    document's formula); C = C0 + N(0, cell_sigma) in Å (`length`, the document's units); C_ij = C0_ij +
    N(0, cell_sigma)·|a_j| (`code`).
    """

    temperature: float
    beta: float = 0.5
    sigma_range: tuple[float, float] = (0.05, 0.2)
    cell_sigma: float | None = None
    max_force: float = 30.0
    min_separation: float = 0.5
    max_relax_steps: int = 20
    similarity_threshold: float = 0.1
    max_attempts: int = 500
    beta_reading: str = "document"
    boltzmann: str = "per_atom"
    cell_sigma_reading: str = "strain"
    k: float = kB

    def __post_init__(self) -> None:
        low, high = self.sigma_range
        wrong = {
            f"temperature {self.temperature}": not self.temperature >= 0,
            f"beta {self.beta}": not 0 <= self.beta <= 1,
            f"sigma_range {self.sigma_range}": not 0 < low <= high < math.inf,
            f"max_relax_steps {self.max_relax_steps}": self.max_relax_steps < 0,
            f"max_attempts {self.max_attempts}": self.max_attempts < 1,
            f"beta_reading {self.beta_reading!r}": self.beta_reading not in ("document", "code"),
            f"boltzmann {self.boltzmann!r}": self.boltzmann not in ("per_atom", "total"),
            f"cell_sigma_reading {self.cell_sigma_reading!r}": self.cell_sigma_reading
            not in ("strain", "length", "code"),
        }
        for what, is_wrong in wrong.items():
            if is_wrong:
                raise ValueError(f"{what} is not possible")

    def parents(self, energies: Array, levels: Array, atoms: int) -> Array:
        """(P,) the probability of each structure to be chosen as the next parent."""
        E = (energies - energies.min()) / self._divisor(atoms)
        kT = self.k * self.temperature
        boltzmann = np.exp(-E / kT) if kT > 0 else (E == 0).astype(float)
        G = levels + 1.0
        beta = self.beta if self.beta_reading == "document" else 1 - self.beta
        p: Array = beta * boltzmann / boltzmann.sum() + (1 - beta) * G / G.sum()
        return p

    def stop(self, energy: float, parent_energy: float, atoms: int) -> float:
        """The probability min(¼, exp(−ΔE/kT)) to end the relaxation here."""
        rise = (energy - parent_energy) / self._divisor(atoms)
        kT = self.k * self.temperature
        if rise <= 0:
            return 0.25
        return min(0.25, math.exp(-rise / kT)) if kT > 0 else 0.0

    def _divisor(self, atoms: int) -> int:
        return atoms if self.boltzmann == "per_atom" else 1


def rattled(
    frame: Frame, start: Frame, rattling: Rattling, rng: np.random.Generator
) -> tuple[Frame | None, float]:
    """A rattled copy and its σ (Å); None for a cell that collapsed or was inverted.

    The cell is varied around that of `start`. Fixed components do not move; along a direction without fixed
    components, the mean position of the atoms does not move.
    """
    positions, cell = frame.positions, frame.cell
    if rattling.cell_sigma is not None and frame.pbc.any():
        cell = _strained(start, rattling, rng)
        before = full_cell(start.cell, frame.pbc)
        after = np.where(frame.pbc[:, None], cell, before)
        if np.linalg.det(after) / np.linalg.det(before) < 0.1:
            return None, 0.0
        positions = positions @ mapping(frame.cell, cell, frame.pbc)
    sigma = math.exp(rng.uniform(*np.log(rattling.sigma_range)))
    shift = rng.standard_normal(positions.shape) * sigma
    fixed = np.zeros(shift.shape, bool) if frame.fixed is None else frame.fixed
    shift -= np.where(fixed.any(0), 0.0, shift.mean(0))
    return frame.moved(positions + np.where(fixed, 0.0, shift), cell), sigma


def relaxed(frame: Frame, forces: Array, step: float) -> Frame:
    """R + step·F/|F|: every atom moves by the full step (Å) along its force."""
    F = forces if frame.fixed is None else np.where(frame.fixed, 0.0, forces)
    strength = np.linalg.norm(F, axis=1, keepdims=True)
    return frame.moved(frame.positions + step * F / np.maximum(strength, STEEP))


def _strained(start: Frame, rattling: Rattling, rng: np.random.Generator) -> Array:
    """(3, 3) Å: the cell of `start` changed according to `cell_sigma_reading`; vectors of open directions stay.

    Slabs and wires stay in their plane or line: a slab that tilts has the same energy in vacuum, but not where the
    reference expects its surface (a dipole correction along z, a field).
    """
    s, C0 = rattling.cell_sigma or 0.0, start.cell
    noise = rng.standard_normal((3, 3))
    if rattling.cell_sigma_reading == "strain":
        cell = C0 + rng.uniform(0, s) * C0 @ noise.T
    elif rattling.cell_sigma_reading == "length":
        cell = C0 + s * noise
    else:
        cell = C0 + s * noise * np.linalg.norm(C0, axis=1)
    if start.pbc.all():
        return cell
    periodic = C0[start.pbc]
    within = np.linalg.pinv(periodic) @ periodic  # projects on the plane or line of the periodic vectors
    return np.where(start.pbc[:, None], C0 + (cell - C0) @ within, C0)
