"""What tests of motion share: conserved quantities, cells of any shape, our potentials as ASE calculators."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from aims_pax.frames import Frame
from aims_pax.md import MDState
from aims_pax.md.batch import Forces, MDBatch
from aims_pax.md.integrators import make_integrator
from aims_pax.md.temperature import Targets

TRICLINIC = np.array([[10.6, 0, 0], [2.1, 10.4, 0], [-1.3, 1.9, 10.2]])


def rotation(seed: int = 1) -> np.ndarray:
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return turn * np.linalg.det(turn)


def in_cell(frame: Frame, cell: np.ndarray) -> Frame:
    """The frame with its atoms at the same places of another cell."""
    return Frame(frame.numbers, frame.positions @ np.linalg.inv(frame.cell) @ cell, cell, frame.pbc)


def conserved(state: MDState, md: Any, potential: Any) -> float:
    """eV, from what a state remembers."""
    batch = MDBatch.of([state], "cpu")
    integrator = make_integrator(batch, [md])
    kT = Targets(batch, [md], None).now
    motion = batch.motion(integrator.begin(kT))
    energy = potential.bind([state.frame()])(motion.positions, motion.cells).energies.mean(0)
    return float(integrator.conserved(motion, energy, kT)[0])


def at_rest(state: MDState) -> MDState:
    """The cell and its thermostats begin without motion."""
    zero = {"mtk/eta": np.zeros((3, 3)), "mtk/chains": np.zeros((2, 2, 3))}
    return replace(state, extras=zero)


class Steps:
    """One trajectory moved by an integrator made by hand."""

    def __init__(self, state: MDState, integrator: Any, potential: Any, temperature: float) -> None:
        from ase import units

        batch = integrator.batch
        self.integrator, self.bound = integrator, potential.bind([state.frame()])
        self.kT = torch.full((1,), units.kB * temperature, dtype=torch.float64)
        self.motion = batch.motion(integrator.begin(self.kT))
        self.acting = self._felt()

    def _felt(self) -> Forces:
        said = self.bound(self.motion.positions, self.motion.cells, stress=True)
        return Forces(said.forces[0], said.stress[0])

    def step(self, noise: torch.Tensor | None = None) -> None:
        self.motion = self.integrator.before(self.motion, self.acting, noise, self.kT)
        self.acting = self._felt()
        self.motion = self.integrator.after(self.motion, self.acting, self.kT)

    @property
    def conserved(self) -> float:
        energies = self.bound(self.motion.positions, self.motion.cells).energies[0]
        return float(self.integrator.conserved(self.motion, energies, self.kT)[0])


class AsCalculator(Calculator):
    """One structure of ours for ASE; bound once."""

    implemented_properties = ("energy", "free_energy", "forces", "stress")

    def __init__(self, potential: Any, frame: Frame) -> None:
        super().__init__()
        self.bound = potential.bind([frame])

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        here = torch.from_numpy(atoms.positions.copy()), torch.from_numpy(np.array(atoms.cell))[None]
        said = self.bound(*here, stress=True)
        energy = float(said.energies[0, 0])
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "forces": said.forces[0].numpy(),
            "stress": full_3x3_to_voigt_6_stress(said.stress[0, 0].numpy()),
        }
