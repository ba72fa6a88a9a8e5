"""An ASE calculator from model files or from the results of a run, with the fast inference of a run.

    atoms.calc = calculator("results")                      # the delivered model; the committee gives the spread
    atoms.calc = calculator(["a.model", "b.model"])         # the mean of a committee

Structures are bound to the model once. While only positions and cell change, neighbour lists with a skin are used
again, as in the MD of a run.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from ase import Atoms
from ase.calculators.calculator import (
    CalculationFailed,
    Calculator,
    PropertyNotImplementedError,
    all_changes,
)
from ase.data import chemical_symbols
from ase.stress import full_3x3_to_voigt_6_stress

from aims_pax.atoms_info import changes_with_electrons, electrons_in
from aims_pax.core.uncertainty import atomic_spread
from aims_pax.errors import SettingsError
from aims_pax.frames import Frame
from aims_pax.models.base import ModelPotential
from aims_pax.models.kinds import ModelKind, kind_of_file
from aims_pax.potential import Bound, Evaluation
from aims_pax.record.delivered_models import FILE, file_digest, recorded_models
from aims_pax.suggestions import no_such

INFERENCE = ("auto", "native", "torch")
DTYPES = (None, "float32", "float64")


def calculator(
    path: Path | str | Sequence[Path | str],
    inference: str = "auto",
    *,
    device: str = "cpu",
    dtype: str | None = None,
    spread: bool = True,
) -> ModelCalculator:
    """An ASE calculator of models from files or from a run.

    path: a model file; several files, or a pattern such as `models/*.model`, whose mean is used; or the folder of a
    run or its `results/`, whose delivered model is used while the other members of the committee give the spread.
    inference: `native` (symmetrix), `torch`, or `auto`: native where it supports the model. device: cpu, cuda, cuda:N.
    dtype: float32 or float64; None: as stored in the files. spread: False to evaluate the delivered model of a run
    alone, which is faster.

    Results, in eV, Å: energy, free_energy, forces, stress, for MACE also energies (of atoms). With several models, or
    with models that predict their own uncertainty: forces_spread (N,) and, from several, energy_spread (standard
    deviations), and as MACECalculator names them energy_comm, energy_var, forces_comm and stress_var.

    Raises SettingsError for files that cannot be used. Calculating raises SettingsError for an element that the model
    does not know, and ASE's CalculationFailed for atoms so far apart or so dense that there are no neighbour lists.
    """
    if inference not in INFERENCE:
        raise SettingsError(f"inference: expected {', '.join(INFERENCE)}, got {inference!r}")
    if dtype not in DTYPES:
        raise SettingsError(f"dtype: expected float32, float64 or None, got {dtype!r}")
    chosen = chosen_files(path)
    files = chosen.files if spread else chosen.files[: chosen.acting]
    kind = common_kind(files)
    made = ModelCalculator(kind.load_fast(files, device, dtype, inference), chosen.acting, kind.has_stress)
    made.source = Source(tuple(file.absolute() for file in files), chosen.acting, inference, device, dtype)
    return made


@dataclass(frozen=True)
class Source:
    """The files of a calculator and how they are read, so that another process can do it again."""

    files: tuple[Path, ...]
    acting: int
    inference: str
    device: str
    dtype: str | None

    def read(self) -> ModelCalculator:
        """The calculator. Raises SettingsError for files that cannot be used."""
        made = calculator(self.files, self.inference, device=self.device, dtype=self.dtype)
        made.acting, made.source = self.acting, self
        return made


class ModelCalculator(Calculator):
    """Energies and forces of a `ModelPotential`; made by `calculator`.

    acting: the first so many members give energy, forces and stress, by their mean; all of them give the spread.
    A copy shares the models. Pickled, it is the names of its files, which the other process reads.
    """

    name = "aims-pax"

    def __init__(self, potential: ModelPotential, acting: int | None = None, has_stress: bool = True) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.potential = potential
        self.acting = potential.members if acting is None else acting
        self.implemented_properties = ["energy", "free_energy", "forces", *(["stress"] if has_stress else [])]
        if getattr(potential, "gives_atom_energies", False):
            self.implemented_properties.append("energies")
        if potential.members > 1:
            self.implemented_properties += ["energy_spread", "energy_comm", "energy_var", "forces_comm"]
            self.implemented_properties += ["stress_var"] if has_stress else []
        if potential.members > 1 or getattr(potential, "has_spread", False):
            self.implemented_properties.append("forces_spread")
        self.has_stress = has_stress
        self.source: Source | None = None  # of those that `calculator` has made
        self._bound: Bound | None = None
        self._electrons: tuple[Any, ...] = ()
        self._stress = (
            False  # whether it was ever requested: then it is always computed along with the forces
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> ModelCalculator:
        new = ModelCalculator(self.potential, self.acting, self.has_stress)
        new.source, new._electrons = self.source, self._electrons
        new.atoms, new.results = deepcopy(self.atoms, memo), deepcopy(self.results, memo)
        return new

    def __reduce__(self) -> tuple[Callable[[Source], ModelCalculator], tuple[Source]]:
        if self.source is None:
            raise TypeError(
                "only calculators that `aims_pax.calculator` made from files can be sent to another process"
            )
        return Source.read, (self.source,)

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """What has changed since the last calculation; charge and spin in `atoms.info` count too."""
        changes = super().check_state(atoms, tol=tol)  # type: ignore[no-untyped-call]
        return changes_with_electrons(changes, atoms.info, self._electrons)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy", "forces"),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        import torch

        atoms = cast(Atoms, self.atoms)
        if set(system_changes) - {"positions", "cell"} or electrons_in(atoms.info) != self._electrons:
            self._bound = (
                None  # before anything is refused: ASE reports the change of a refused call only once
            )
        asked = {"stress", "stress_var"} & set(properties)
        if asked and not atoms.pbc.all():
            raise PropertyNotImplementedError(
                f"there is no stress: {atoms.get_chemical_formula()} is not periodic in three directions"
            )
        if self._bound is None:
            self._bind(atoms)
        assert self._bound is not None
        self._stress |= bool(asked)
        positions = torch.tensor(atoms.positions, dtype=torch.float64, device=self._bound.device)
        cells = torch.tensor(atoms.cell.array[None], dtype=torch.float64, device=self._bound.device)
        said = self._bound(positions, cells, stress=self._stress and bool(atoms.pbc.all()))
        self.results = self._results(said, atoms)
        if "energies" in properties:
            own: Any = self._bound
            self.results["energies"] = (
                own.atom_energies(positions, cells)[: self.acting].mean(0).cpu().numpy()
            )

    def _bind(self, atoms: Atoms) -> None:
        if len(atoms) == 0:
            raise SettingsError("there are no atoms, so there is no energy")
        unknown = sorted({*map(int, atoms.numbers)} - {*self.potential.elements})
        if unknown:
            names, known = (
                " ".join(chemical_symbols[z] for z in zs) for zs in (unknown, self.potential.elements)
            )
            raise SettingsError(
                f"the model does not know {names} (in {atoms.get_chemical_formula()}); it knows {known}"
            )
        bare = atoms.copy()
        bare.set_constraint()  # constraints do not change energies
        frame = Frame.from_atoms(bare)
        pieces = getattr(self.potential, "pieces", None)
        if pieces is not None:
            pieces([frame])  # prepares for a structure that needs much memory
        self._bound, self._electrons = self.potential.bind([frame]), electrons_in(atoms.info)

    def _results(self, said: Evaluation, atoms: Atoms) -> dict[str, Any]:
        energies = _numpy(said.energies)[:, 0]  # (M,)
        forces = _numpy(said.forces)  # (M, N, 3)
        if not (np.isfinite(energies).all() and np.isfinite(forces).all()):
            raise CalculationFailed(
                f"energy or forces of {atoms.get_chemical_formula()} are not finite: positions are not finite, the "
                "atoms are too far apart or too dense, or the cell has no lattice vector along a periodic direction"
            )
        acting = slice(0, self.acting)
        energy = float(energies[acting].mean())
        found: dict[str, Any] = {"energy": energy, "free_energy": energy, "forces": forces[acting].mean(0)}
        tensors = None if said.stress is None else _numpy(said.stress)[:, 0]  # (M, 3, 3)
        # NaN: the baseline of the models has no stress
        if tensors is not None and np.isfinite(tensors).all():
            found["stress"] = full_3x3_to_voigt_6_stress(tensors[acting].mean(0))
            if len(tensors) > 1:
                found["stress_var"] = tensors.var(axis=0)
        if len(forces) > 1:
            found |= {"energy_comm": energies, "energy_var": float(energies.var()), "forces_comm": forces}
            found["energy_spread"] = float(energies.std())
        own = None if said.spread is None else _numpy(said.spread)
        if own is not None or len(forces) > 1:
            found["forces_spread"] = atomic_spread(forces, own)
        return found


@dataclass(frozen=True)
class ChosenFiles:
    """acting: the first so many files give energy and forces; all give the spread."""

    files: list[Path]
    acting: int


def chosen_files(path: Path | str | Sequence[Path | str]) -> ChosenFiles:
    """The files of a name, a pattern, a list of files, or the folder of a run. Raises SettingsError."""
    if isinstance(path, str | Path):
        named = Path(path).expanduser()
        if named.is_dir():
            return _of_run(named)
        pattern = not named.exists() and glob.has_magic(str(named))
        files = [Path(p) for p in sorted(glob.glob(str(named)))] if pattern else [named]
    else:
        files = [Path(p).expanduser() for p in path]
    if not files:
        raise SettingsError(f"{path}: no model files; expected a model file, several, or the folder of a run")
    for file in files:
        if not file.is_file():
            raise SettingsError(f"{file}: {no_such(file)}; expected a model file, or the folder of a run")
    return ChosenFiles(files, len(files))


def _of_run(folder: Path) -> ChosenFiles:
    """The delivered models of a run, then the other members. Raises SettingsError for files it did not write."""
    results = folder / "results" if (folder / "results").is_dir() else folder
    entries = recorded_models(results)
    if not entries:
        raise SettingsError(
            f"{folder}: no models of a run in it ({results / FILE} is missing or lists none): a run writes them at its "
            "end; or name model files"
        )
    ordered = sorted(entries, key=lambda name: ("/" in name, name))
    for name in ordered:
        file = results / name
        if not file.is_file():
            raise SettingsError(f"{file}: {no_such(file)}; {results / FILE} lists it; or name model files")
        if entries[name].get("sha256") != file_digest(file):
            raise SettingsError(
                f"{file}: not the file that this run wrote, and opening a model file may run code in it; if you trust "
                "it, name the file instead of the folder"
            )
    return ChosenFiles([results / name for name in ordered], sum("/" not in name for name in ordered))


def common_kind(files: Sequence[Path]) -> ModelKind:
    """The kind of models of these files. Raises SettingsError when there are several."""
    kinds = {kind.title: kind for kind in map(kind_of_file, files)}
    if len(kinds) > 1:
        raise SettingsError(
            f"the models are of several kinds and cannot form a committee: {', '.join(kinds)}"
        )
    return next(iter(kinds.values()))


def _numpy(values: Any) -> Any:
    return values.detach().cpu().double().numpy() if hasattr(values, "detach") else np.asarray(values, float)
