"""`GPRCalculator`: a Gaussian process as ASE calculator, with its uncertainty in eV and eV/Å."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from aims_pax.atoms_info import changes_with_electrons, electrons_in
from aims_pax.errors import NotFinite, SettingsError
from aims_pax.frames import Frame
from aims_pax.models.gp.coordinate_process import CoordinateProcess
from aims_pax.models.gp.process import GaussianProcess
from aims_pax.models.gp.process_file import AnyProcess, load_any_process
from aims_pax.potential import CalculatorPotential, Potential

if TYPE_CHECKING:
    from ase import Atoms


def _as_potential(baseline: Calculator | Potential | None) -> Potential | None:
    if isinstance(baseline, Calculator):
        return CalculatorPotential(lambda: baseline)
    return baseline


SPREAD = ("unc_energy", "unc_forces")


class GPRCalculator(Calculator):
    """process: a GaussianProcess or CoordinateProcess, or the path of its file. baseline: the prior mean that a process
    from a file was trained with, an ASE calculator or a potential.

    Results: energy (eV), forces (eV/Å), for periodic structures stress (eV/Å³). The standard deviations `unc_energy`
    (eV) and `unc_forces` (N, 3) eV/Å are computed when they are asked for, by `uncertainty(atoms)` or
    `get_property("unc_forces", atoms)`, or at each step with `spread=True`. Raises NotFinite where energy or forces are
    not finite.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress", *SPREAD]  # noqa: RUF012 (as in ASE)

    def __init__(
        self,
        process: AnyProcess | str | Path,
        spread: bool = False,
        baseline: Calculator | Potential | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)  # type: ignore[no-untyped-call]
        if isinstance(process, (GaussianProcess, CoordinateProcess)):
            if baseline is not None:
                raise SettingsError("baseline: only for a process from a file; this one has its own")
            self.process: AnyProcess = process
        else:
            self.process = load_any_process(Path(process), _as_potential(baseline))
        self.spread = spread
        self._electrons: tuple[Any, ...] = ()

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """What has changed since the last calculation; charge and spin in `atoms.info` count too, for the baseline."""
        changes = super().check_state(atoms, tol=tol)  # type: ignore[no-untyped-call]
        return changes_with_electrons(changes, atoms.info, self._electrons)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        assert self.atoms is not None
        bare = self.atoms.copy()
        bare.set_constraint()
        frame = Frame.from_atoms(bare)
        if "stress" in properties and not frame.periodic:
            raise PropertyNotImplementedError("stress: the structure is not periodic in three directions")
        if "stress" in properties and isinstance(self.process, CoordinateProcess):
            raise PropertyNotImplementedError(
                "stress: a process on coordinates has none; Descriptor auto has"
            )
        spread = self.spread or any(name in properties for name in SPREAD)
        said = self.process.predict([frame], spread=spread, stress="stress" in properties)
        energy = float(said.energies[0])
        if not (np.isfinite(energy) and np.isfinite(said.forces).all()):
            raise NotFinite(
                f"the Gaussian process has no finite energy or forces for {frame.formula}: look for atoms on one place"
            )
        self._electrons = electrons_in(self.atoms.info)
        self.results.update({"energy": energy, "free_energy": energy, "forces": said.forces})
        if said.stress is not None:
            self.results["stress"] = full_3x3_to_voigt_6_stress(said.stress[0])
        if said.energy_sd is not None:
            self.results.update({"unc_energy": float(said.energy_sd[0]), "unc_forces": said.force_sd})

    def uncertainty(self, atoms: Atoms) -> tuple[float, np.ndarray]:
        """Standard deviations of energy (eV) and force components (N, 3) eV/Å."""
        energy = float(self.get_property("unc_energy", atoms))  # type: ignore[no-untyped-call]
        return energy, np.asarray(self.get_property("unc_forces", atoms))  # type: ignore[no-untyped-call]
