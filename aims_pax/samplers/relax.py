"""Relaxation with any potential: only the atoms, also the cell's shape at constant volume, or also the volume.

>>> from ase.build import bulk
>>> from ase.calculators.emt import EMT
>>> from aims_pax.frames import Frame
>>> from aims_pax.potential import CalculatorPotential
>>> copper = Frame.from_atoms(bulk("Cu", a=3.70))
>>> relaxed = relax(copper, CalculatorPotential(EMT), "full")
>>> round(4 ** (1 / 3) * abs(float(np.linalg.det(relaxed.cell))) ** (1 / 3), 2)
3.59
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE
from ase.optimize.precon import PreconLBFGS
from ase.stress import full_3x3_to_voigt_6_stress

from aims_pax.frames import Array, Frame
from aims_pax.potential import Potential
from aims_pax.sampler import SamplingError

log = logging.getLogger(__name__)

KINDS = ("only_atoms", "constant_volume", "full")


class PotentialCalculator(Calculator):
    """A `Potential` as an ASE calculator, for ASE's optimisers and filters."""

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012  # ASE's own spelling

    def __init__(self, potential: Potential, check: Callable[[], None] = lambda: None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.potential, self.check = potential, check

    def calculate(
        self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes
    ) -> None:
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        self.check()
        frame = Frame.from_atoms(atoms)
        label = self.potential.labels([frame])[0]
        if not label.finite:  # optimisers would fail with unclear messages
            raise SamplingError(f"{frame.formula}: the potential gave energies or forces that are not finite")
        self.results = {"energy": label.energy, "free_energy": label.energy, "forces": np.array(label.forces)}
        if label.stress is not None:
            self.results["stress"] = full_3x3_to_voigt_6_stress(label.stress)


def relax(
    frame: Frame,
    potential: Potential,
    what: str = "only_atoms",
    fmax: float = 1e-4,
    max_steps: int = 1000,
    check: Callable[[], None] = lambda: None,
) -> Frame:
    """The frame at a minimum of the potential; fixed atoms stay.

    what: `only_atoms`, `constant_volume` (atoms and the cell's shape) or `full` (also its volume). fmax: eV/Å, for
    the cell as in ASE's `FrechetCellFilter`. check: called before every evaluation.
    Raises SamplingError when it does not converge, or for the cell of a structure that is not a crystal.
    """
    if what not in KINDS:
        raise ValueError(f"relaxation {what!r}: expected one of {', '.join(KINDS)}")
    if what != "only_atoms" and not frame.periodic:
        raise SamplingError(
            f"{frame.formula}: {what} relaxes the cell, but this structure has none; choose only_atoms"
        )
    if what != "only_atoms" and frame.fixed is not None:
        raise SamplingError(f"{frame.formula}: fixed atoms cannot stay in a changing cell; choose only_atoms")
    atoms = frame.to_atoms()
    atoms.calc = PotentialCalculator(potential, check)
    moving: Any = atoms
    if what != "only_atoms":
        if potential.labels([frame])[0].stress is None:
            raise SamplingError(f"{what}: this potential gives no stress; choose only_atoms")
        moving = FrechetCellFilter(atoms, constant_volume=what == "constant_volume")
    if not _converged(moving, fmax, max_steps):
        left = float(np.linalg.norm(moving.get_forces(), axis=1).max())
        raise SamplingError(
            f"{frame.formula}: relaxation ({what}) left forces of {left:.2g} eV/Å after {max_steps} steps, expected "
            f"{fmax:g}; start from a better structure, or allow larger forces (fmax)"
        )
    found = frame.moved(atoms.positions, atoms.cell.array)
    log.info("relaxed %s (%s): atoms moved by at most %.3f Å", frame.formula, what, _moved(frame, found))
    return found


def _converged(moving: Any, fmax: float, max_steps: int) -> bool:
    """LBFGS with line search first; FIRE if that fails (noise, large initial forces)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the line search warns of every step that it shortens
        try:
            if PreconLBFGS(moving, precon=None, use_armijo=False, logfile=None).run(
                fmax=fmax, steps=max_steps
            ):
                return True
        except RuntimeError as error:  # the line search found no lower energy
            log.debug("LBFGS: %s", error)
        return bool(FIRE(moving, logfile=None).run(fmax=fmax, steps=max_steps))


def _moved(before: Frame, after: Frame) -> float:
    if not before.pbc.any():
        return float(np.linalg.norm(after.positions - before.positions, axis=1).max())
    scaled: Array = before.positions
    if before.periodic:
        scaled = before.positions @ np.linalg.solve(before.cell, after.cell)
    return float(np.linalg.norm(after.positions - scaled, axis=1).max())
