"""Whether forces and stress of a reference are the derivatives of its energy: F = −dE/dx, σ = (1/V) dE/dε.

A calculator of one's own may return gradients for forces, hartree beside eV/Å, or a stress with the sign of the
pressure. Every number looks like a label, and the models would learn it.

The energy is differentiated along the forces, and in a crystal along the stress, from a structure that is rattled and
compressed a little so that neither vanishes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from aims_pax.energy_and_forces import FAR, mismatch
from aims_pax.errors import LabelError, SettingsError
from aims_pax.frames import Array, Frame, Label

RATTLE = 0.1  # Å
COMPRESSION = 0.01
STEP = 0.02  # Å, of the atom that moves most
STRAIN = 0.002
NOISE = 5e-4  # eV, of two energies
RELATIVE_NOISE = 2e-7  # of an energy, where it is computed in single precision
FORCES_AGREE = 0.1  # relative
STRESS_AGREES = 0.3  # relative; plane waves at a fixed cutoff have a Pulay stress


def check_derivatives(label: Callable[[Frame], Label], frame: Frame, place: str) -> list[str]:
    """Warnings where forces or stress of a structure are not the derivative of its energy; 3 or 5 labels.

    place: the key of the settings. Raises SettingsError where they differ so much that no label is right.
    """
    try:
        start = _distorted(frame)
        here = label(start)
        warnings = _compare(*_along_the_forces(label, start, here), "forces", FORCES_AGREE, place)
        if here.stress is not None and here.stress.any():
            warnings += _compare(*_along_the_stress(label, start, here), "stress", STRESS_AGREES, place)
    except LabelError as error:
        return [f"{place}: whether forces are the derivative of the energy is unknown: {error.reason}"]
    return warnings


def _distorted(frame: Frame) -> Frame:
    """The frame rattled, and compressed if it is a crystal."""
    moved = frame.positions + RATTLE * np.random.default_rng(0).normal(size=frame.positions.shape)
    return _strained(frame.moved(moved), -COMPRESSION * np.eye(3)) if frame.periodic else frame.moved(moved)


def _strained(frame: Frame, strain: Array) -> Frame:
    deformation = np.eye(3) + strain
    return frame.moved(frame.positions @ deformation, frame.cell @ deformation)


def _along_the_forces(
    label: Callable[[Frame], Label], frame: Frame, here: Label
) -> tuple[float, float, float]:
    """(−ΔE by the forces, −ΔE, its uncertainty) in eV for a step along them; in any direction if all are zero."""
    forces = here.forces if here.forces.any() else np.random.default_rng(1).normal(size=here.forces.shape)
    step = forces * (STEP / np.linalg.norm(forces, axis=1).max())
    ahead, behind = (label(frame.moved(frame.positions + sign * step)).energy for sign in (1, -1))
    return 2 * float((here.forces * step).sum()), behind - ahead, _noise(here)


def _along_the_stress(
    label: Callable[[Frame], Label], frame: Frame, here: Label
) -> tuple[float, float, float]:
    """(ΔE as the stress says, ΔE, its uncertainty) in eV for a strain along it."""
    assert here.stress is not None
    symmetric = (here.stress + here.stress.T) / 2
    strain = symmetric * (STRAIN / abs(symmetric).max())
    more, less = (label(_strained(frame, sign * strain)).energy for sign in (1, -1))
    volume = abs(float(np.linalg.det(frame.cell)))
    return 2 * volume * float((symmetric * strain).sum()), more - less, _noise(here)


def _noise(label: Label) -> float:
    return NOISE + RELATIVE_NOISE * abs(label.energy)


def _compare(said: float, measured: float, noise: float, what: str, agree: float, place: str) -> list[str]:
    """said: the change of energy that forces or stress predict; measured: that of the energies."""
    if abs(said - measured) <= noise + agree * abs(measured):
        return []
    text = (
        f"{place}: its {what} {'is' if what == 'stress' else 'are'} not the derivative of its energy: in a small step "
        f"the energy changes by {measured:.3g} eV, the {what} would give {said:.3g} eV"
    )
    alike = 1 / FAR < (said / measured if measured else np.inf) < FAR
    if alike or abs(said - measured) <= FAR * noise:
        return [f"{text}; are its energies converged, and of the same method and state?"]
    raise SettingsError(f"{text}; {_reason(said, measured, what)}")


def _reason(said: float, measured: float, what: str) -> str:
    expected = "energies in eV, forces −dE/dx in eV/Å" if what == "forces" else "σ = (1/V) dE/dε in eV/Å³"
    if said < 0 < measured or measured < 0 < said:
        return f"they have opposite signs; expected {expected}"
    reason = mismatch(said / measured) if measured and said and what == "forces" else None
    return f"{reason}; expected {expected}" if reason else f"expected {expected}"
