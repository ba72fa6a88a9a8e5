"""Checks of a model against the reference: errors along its own trajectory, harmonic frequencies, equation of state.

Each check first says which structures the reference has to label; with the labels it gives its result.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from ase import units
from ase.eos import EquationOfState
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

from aims_pax.commands.md_test.starts import TestedSystem
from aims_pax.commands.md_test.trajectories import Followed
from aims_pax.errors import SettingsError
from aims_pax.frames import Array, Frame, Label
from aims_pax.models.base import ModelPotential
from aims_pax.models.calculator import ModelCalculator

ERRORS, FREQUENCIES, EQUATION = "errors", "frequencies", "eos"
CHECKS = (ERRORS, FREQUENCIES, EQUATION)
STEP = 0.01  # Å, finite displacement
FRAMES = 12  # structures along the model's trajectories, of each system and temperature
STRAINS = (0.94, 0.96, 0.98, 1.0, 1.02, 1.04, 1.06)  # V / V0
RELAXED = 0.005  # eV/Å
MOST_STEPS = 500
Labels = Callable[[Frame], Label | None]  # None: the reference failed


class ReferenceCheck(Protocol):
    """One check of one system. kind: its key in the results."""

    @property
    def kind(self) -> str: ...
    @property
    def system(self) -> str: ...

    def frames(self) -> list[Frame]:
        """The structures that the reference labels."""
        ...

    def result(self, potential: ModelPotential, reference: Labels) -> dict[str, Any] | None:
        """Plain values; None when labels that it needs have failed."""
        ...


def named_checks(words: str) -> tuple[str, ...]:
    """The checks in `errors,frequencies,eos` or `all`. Raises SettingsError."""
    asked = [w.strip() for w in words.split(",") if w.strip()]
    if unknown := [w for w in asked if w not in (*CHECKS, "all")]:
        raise SettingsError(f"--reference: {unknown[0]!r} is no check; expected {', '.join(CHECKS)} or all")
    if not asked:
        raise SettingsError(f"--reference: expected {', '.join(CHECKS)} or all")
    return CHECKS if "all" in asked else tuple(c for c in CHECKS if c in asked)


def planned_checks(
    asked: Sequence[str],
    potential: ModelPotential,
    systems: Sequence[TestedSystem],
    thermal: Sequence[Followed],
) -> list[ReferenceCheck]:
    """The checks of all systems. Relaxes with the model where a check begins at its minimum."""
    found: list[ReferenceCheck] = []
    if ERRORS in asked:
        groups = dict.fromkeys((f.start.system, f.start.temperature) for f in thermal)
        found += [
            AlongTrajectory(
                system,
                T,
                _spread([f for f in thermal if (f.start.system, f.start.temperature) == (system, T)]),
            )
            for system, T in groups
        ]
    for system in systems:
        if FREQUENCIES in asked:
            vibrations = Frequencies.at_minimum(system, potential)
            if 3 * len(vibrations.moving) > rigid_motions(vibrations.minimum):  # an atom alone has none
                found.append(vibrations)
        if EQUATION in asked and system.frames[0].frame.periodic:
            found.append(EquationOfStateCheck.at_minimum(system, potential))
    return found


def _spread(followed: Sequence[Followed]) -> tuple[Frame, ...]:
    """FRAMES structures, evenly over these trajectories and their times."""
    states = [state for f in followed for state in f.states]
    if not states:
        return ()
    index = np.unique(np.linspace(0, len(states) - 1, min(FRAMES, len(states))).round().astype(int))
    return tuple(states[k].frame() for k in index)


# ---------------------------------------------------------------- errors along the model's trajectory


@dataclass(frozen=True)
class AlongTrajectory:
    """Errors on structures that the model's own MD has reached: the only ones that matter for its use."""

    system: str
    temperature: float
    structures: tuple[Frame, ...]
    kind: str = "errors"

    def frames(self) -> list[Frame]:
        return list(self.structures)

    def result(self, potential: ModelPotential, reference: Labels) -> dict[str, Any] | None:
        """Errors in eV, Å; the energy's after its mean error has been removed."""
        pairs = [(f, label) for f in self.structures if (label := reference(f)) is not None]
        if not pairs:
            return None
        said = potential.labels([f for f, _ in pairs])
        force = np.concatenate([s.forces - label.forces for s, (_, label) in zip(said, pairs, strict=True)])
        energy = np.array(
            [(s.energy - label.energy) / len(f) for s, (f, label) in zip(said, pairs, strict=True)]
        )
        return {
            "system": self.system, "temperature": self.temperature, "frames": len(pairs),
            "force_mae": float(np.abs(force).mean()), "force_rmse": float(np.sqrt((force**2).mean())),
            "force_max": float(np.abs(force).max()),
            "energy_mae": float(np.abs(energy - energy.mean()).mean()), "energy_offset": float(energy.mean()),
        }  # fmt: skip


# ---------------------------------------------------------------- harmonic frequencies


@dataclass(frozen=True)
class Frequencies:
    """Harmonic frequencies by central differences of forces, of model and reference at the model's minimum.

    H_{ia,jb} = −(F_{jb}(x_ia + h) − F_{jb}(x_ia − h)) / 2h, symmetrised and divided by √(m_i m_j).
    """

    system: str
    minimum: Frame
    kind: str = "frequencies"

    @classmethod
    def at_minimum(cls, system: TestedSystem, potential: ModelPotential) -> Frequencies:
        return cls(system.name, model_minimum(lowest(system), potential))

    @property
    def moving(self) -> list[int]:
        """Atoms without constraints, which are displaced."""
        fixed = self.minimum.fixed
        return [i for i in range(len(self.minimum)) if fixed is None or not fixed[i].any()]

    def displaced(self) -> list[Frame]:
        """+h and −h for each atom and direction."""
        found = []
        for i, a, sign in itertools.product(self.moving, range(3), (1, -1)):
            positions = np.array(self.minimum.positions)
            positions[i, a] += sign * STEP
            found.append(self.minimum.moved(positions, self.minimum.cell))
        return found

    def frames(self) -> list[Frame]:
        return [self.minimum, *self.displaced()]

    def result(self, potential: ModelPotential, reference: Labels) -> dict[str, Any] | None:
        labels = [reference(f) for f in self.frames()]
        if any(label is None for label in labels):
            return None
        forces = [np.asarray(label.forces) for label in labels if label is not None]
        own = [np.asarray(label.forces) for label in potential.labels(self.displaced())]
        model, true = self.wavenumbers(own), self.wavenumbers(forces[1:])
        off = np.abs(model - true)
        worst = int(off.argmax())
        return {
            "system": self.system, "model": _list(model), "reference": _list(true), "mae": float(off.mean()),
            "largest": float(off[worst]), "largest_at": float(true[worst]),
            "residual_force": float(np.abs(forces[0][self.moving]).max()),
        }  # fmt: skip

    def wavenumbers(self, forces: Sequence[Array]) -> Array:
        """cm⁻¹, rising, without rigid motions; negative: imaginary. forces: as `displaced` orders them."""
        free, m = self.moving, self.minimum.all_masses
        rows = [-(forces[k] - forces[k + 1])[free].ravel() / (2 * STEP) for k in range(0, len(forces), 2)]
        mass = np.repeat(m[free], 3)
        H = np.array(rows) / np.sqrt(np.outer(mass, mass))
        values = np.linalg.eigvalsh((H + H.T) / 2)
        nu = np.sign(values) * np.sqrt(np.abs(values)) * units._hbar * 1e10 / math.sqrt(units._e * units._amu)
        nu = nu / units.invcm
        keep = np.sort(np.argsort(np.abs(nu))[rigid_motions(self.minimum) :])
        return np.asarray(nu[keep], float)


def rigid_motions(frame: Frame) -> int:
    """Number of modes without a restoring force: 6, 5 for a linear molecule, 3 in a crystal, 0 with fixed atoms."""
    if frame.fixed is not None:
        return 0
    if frame.pbc.any():
        return 3
    centred = frame.positions - frame.positions.mean(0)
    return 3 + {0: 0, 1: 2}.get(int(np.linalg.matrix_rank(centred, tol=1e-2)), 3)  # an atom, a line


# ---------------------------------------------------------------- equation of state


@dataclass(frozen=True)
class EquationOfStateCheck:
    """Energies against volume: the cell scaled in all directions, fractional coordinates unchanged.

    V₀, B₀ from the fit of Birch and Murnaghan (Phys. Rev. 71, 809 (1947)).
    """

    system: str
    minimum: Frame
    kind: str = "equation_of_state"

    @classmethod
    def at_minimum(cls, system: TestedSystem, potential: ModelPotential) -> EquationOfStateCheck:
        return cls(system.name, model_minimum(lowest(system), potential, cell=True))

    def frames(self) -> list[Frame]:
        scales = [v ** (1 / 3) for v in STRAINS]
        return [self.minimum.moved(s * self.minimum.positions, s * self.minimum.cell) for s in scales]

    def result(self, potential: ModelPotential, reference: Labels) -> dict[str, Any] | None:
        frames = self.frames()
        pairs = [(f, label) for f in frames if (label := reference(f)) is not None]
        if len(pairs) < 5:
            return None
        n = len(self.minimum)
        V = np.array([abs(np.linalg.det(f.cell)) for f, _ in pairs]) / n
        E = np.array([s.energy for s in potential.labels([f for f, _ in pairs])]) / n
        E_ref = np.array([label.energy for _, label in pairs]) / n
        difference = (E - E.mean()) - (E_ref - E_ref.mean())
        fits = [birch_murnaghan(V, energies) for energies in (E, E_ref)]
        (V0, B), (V0_ref, B_ref) = fits
        return {
            "system": self.system, "volume": _list(V), "model": _list(E), "reference": _list(E_ref),
            "rms": float(np.sqrt((difference**2).mean())),
            "V0_model": V0, "B_model": B, "V0_reference": V0_ref, "B_reference": B_ref,
        }  # fmt: skip


def birch_murnaghan(V: Array, E: Array) -> tuple[float | None, float | None]:
    """(V₀ Å³/atom, B₀ GPa) of the fit; (None, None) when the curve has no minimum within its volumes."""
    if not 0 < int(np.argmin(E)) < len(E) - 1:
        return None, None
    V0, _, B = EquationOfState(V, E, eos="birchmurnaghan").fit(warn=False)
    return float(V0), float(B / units.GPa)


# ---------------------------------------------------------------- the model's minimum


def lowest(system: TestedSystem) -> Frame:
    """The labelled structure of lowest energy."""
    return min(system.frames, key=lambda f: f.label.energy).frame


def model_minimum(frame: Frame, potential: ModelPotential, cell: bool = False) -> Frame:
    """The model's minimum near a structure; cell: also of the volume, where the model has a stress."""
    calculator = ModelCalculator(potential)
    atoms = frame.to_atoms()
    atoms.calc = calculator
    scaled = cell and "stress" in calculator.implemented_properties and frame.fixed is None
    moving: Any = FrechetCellFilter(atoms, hydrostatic_strain=True) if scaled else atoms
    BFGS(moving, logfile=None, maxstep=0.1).run(fmax=RELAXED, steps=MOST_STEPS)
    return frame.moved(atoms.positions, atoms.cell.array)


def _list(values: Array) -> list[float]:
    return [float(f"{v:.8g}") for v in values]
