"""Loads foundation models by their short names (`settings.bundled_models`), as potentials and as ASE calculators.

>>> from aims_pax.potentials.bundled import bundled_potential      # doctest: +SKIP
>>> bundled_potential("so3lr", device="cpu").labels(frames)        # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from aims_pax.atoms_info import changes_with_electrons, electrons_in
from aims_pax.errors import SetupError
from aims_pax.frames import Frame
from aims_pax.potential import Potential
from aims_pax.settings.bundled_models import BUNDLED
from aims_pax.user_code import load_object


def bundled_potential(name: str, device: str | None = None, dtype: str = "float32") -> Potential:
    """The model of a short name. device: None for the GPU if there is one. dtype: float32 or float64.

    Raises SetupError with the extra to install if its package is missing.
    """
    model = BUNDLED[name]
    if not model.installed:
        raise SetupError(model.missing)
    make: Callable[[str | None, str], Potential] = load_object(model.make)
    return make(device, dtype)


class BundledCalculator(Calculator):
    """The model of a short name as an ASE calculator, for one structure at a time.

    Charge and multiplicity 2S+1 are read from `atoms.info` ("charge", "spin").
    """

    def __init__(self, name: str, device: str | None = None, dtype: str = "float32") -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.implemented_properties = ["energy", "free_energy", "forces", "stress"]
        self.potential = bundled_potential(name, device, dtype)
        self._electrons: tuple[Any, ...] = ()

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """What has changed since the last calculation; charge and spin in `atoms.info` count too."""
        changes = super().check_state(atoms, tol=tol)  # type: ignore[no-untyped-call]
        return changes_with_electrons(changes, atoms.info, self._electrons)

    def calculate(
        self, atoms: Atoms | None = None, properties: Any = ("energy",), system_changes: Any = all_changes
    ) -> None:
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        assert self.atoms is not None
        bare = self.atoms.copy()
        bare.set_constraint()  # constraints do not change energies
        label = self.potential.labels([Frame.from_atoms(bare)])[0]
        self._electrons = electrons_in(self.atoms.info)
        self.results = {"energy": label.energy, "free_energy": label.energy, "forces": label.forces}
        if label.stress is not None:
            self.results["stress"] = label.stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]


def so3lr(dtype: str = "float32", device: str = "cpu") -> BundledCalculator:
    """SO3LR as an ASE calculator."""
    return BundledCalculator("so3lr", device, dtype)


def chgnet(device: str = "cpu") -> BundledCalculator:
    """CHGNet as an ASE calculator."""
    return BundledCalculator("chgnet", device)
