"""MACE as a kind of model. Modules that need torch are imported only when they are used."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ase.data import chemical_symbols

from aims_pax.errors import SettingsError
from aims_pax.frames import Frame
from aims_pax.labelled_data import read_structures
from aims_pax.models.base import ForceFieldModel, ModelPotential, ProcessPool
from aims_pax.models.kinds import FOUNDATIONAL_SIZE, ExportedModel, Features, ModelKind, Pauses
from aims_pax.models.mace import resource_estimates
from aims_pax.settings.callables import ELEMENTS_OF_PUBLISHED
from aims_pax.settings.content_hashes import contents
from aims_pax.settings.geometries import found_geometries
from aims_pax.settings.mace import FROM_REFERENCE, ArchitectureSettings, atomic_energies_by_element
from aims_pax.systems import elements

if TYPE_CHECKING:
    from aims_pax.models.mace.ensemble import Ensemble
    from aims_pax.models.mace.member import Member
    from aims_pax.settings import Settings
    from aims_pax.settings.foundation import FoundationSettings
    from aims_pax.systems import System

FORMS = {  # format of exported files: ending of their names
    "ase": ".model",
    "torchscript": ".torchscript.pt",
    "lammps": "-lammps.pt",
    "mliap": "-mliap_lammps.pt",
}
SAME_ENERGY = 1e-3  # eV: atomic energies in mace.yaml and in a given model that differ by less are the same
ROUNDED = 1e-7  # relative: files in single precision hold no more digits


class MaceKind(ModelKind):
    """Equivariant message-passing models with the settings of mace.yaml."""

    name = "mace"
    title = "MACE"
    suffix = ".model"
    packages = ("mace-torch", "torch", "e3nn")
    has_stress = True
    begins_from_files = True
    mixes_weights = True
    trains_in_processes = True
    learns_from_copies = True
    moves_in_processes = True
    slow_imports = ("aims_pax.models.mace.training_workers", "aims_pax.models.mace.native", "torch._dynamo")
    forms = tuple(FORMS)

    def build(self, settings: Settings, seeds: Sequence[int], elements: Sequence[int]) -> Ensemble:
        if settings.mace.foundation is not None:
            from aims_pax.models.mace.foundation_ensemble import ensemble_from_foundation

            electrons = [(s.frame.charge, s.frame.spin) for s in found_geometries(settings)[0]]
            return ensemble_from_foundation(
                settings.mace, seeds, elements, settings.folder, _elements_of_data(settings), electrons
            )
        from aims_pax.models.mace.ensemble import Ensemble

        return Ensemble.build(settings.mace, seeds, elements, settings.folder)

    def beginning(self, settings: Settings) -> str | None:
        foundation = settings.mace.foundation
        if foundation is None:
            return None
        head = "" if foundation.head is None else f", head {foundation.head}"
        known = _with_architecture(settings)
        a = None if known is None else known.mace.architecture
        what = "" if a is None else f", {a.num_channels} channels, max_L {a.max_L}, r_max {a.r_max:g} Å"
        return f"{foundation.name}{head} (FOUNDATION, recipe {foundation.recipe}{what})"

    def begun_with(self, settings: Settings) -> dict[str, str]:
        foundation = settings.mace.foundation
        if foundation is None:
            return {}
        own = None if foundation.published else foundation.model
        return contents({"model": own, "replay_data": foundation.replay_data}, settings.folder)

    def trial_members(
        self, settings: Settings, seeds: Sequence[int], elements: Sequence[int]
    ) -> Ensemble | None:
        foundation = settings.mace.foundation
        if foundation is None:
            return None
        if not _needs_download(foundation):
            return self.build(settings, seeds, elements)
        known = ELEMENTS_OF_PUBLISHED.get(foundation.name, frozenset())
        if known and (unknown := sorted({*elements, *_elements_of_data(settings)} - known)):
            symbols = ", ".join(chemical_symbols[z] for z in unknown)
            raise SettingsError(f"FOUNDATION.model: {foundation.name} does not know {symbols}")
        return None

    def remarks(self, settings: Settings) -> list[str]:
        foundation = settings.mace.foundation
        if foundation is None or not _needs_download(foundation):
            return []
        return [
            f"FOUNDATION.model: {foundation.name} is not in MACE's cache: it will be downloaded when the run begins, "
            "which needs a network; its heads and architecture can be checked only then"
        ]

    def from_files(self, paths: Sequence[Path], settings: Settings, seeds: Sequence[int] | None) -> Ensemble:
        from aims_pax.models.mace.ensemble import Ensemble

        return Ensemble.from_models(paths, settings.mace, seeds)

    def contradictions(self, model: ForceFieldModel, settings: Settings) -> list[str]:
        from aims_pax.models.mace.architecture import contradictions

        paths = settings.active_learning.initial_models or ()  # type: ignore[union-attr]
        given = _given_energies(settings, model.elements)
        return [
            f"ARCHITECTURE.{key}: {written} in mace.yaml, {found} in {path}"
            for path, member in zip(paths, cast("Ensemble", model).members, strict=True)
            for key, written, found in (
                *contradictions(member.model, settings.mace.architecture),
                *_other_energies(given, member),
            )
        ]

    # ------------------------------------------------------------ files

    def load(self, paths: Sequence[Path], device: str, dtype: str) -> ModelPotential:
        from aims_pax.models.mace import foundation
        from aims_pax.models.mace.export import committee_of_files

        if len(paths) == 1:
            return foundation.load_foundation_model(str(paths[0].absolute()), device, dtype)
        return committee_of_files(paths, device, dtype)

    def load_fast(
        self, paths: Sequence[Path], device: str, dtype: str | None, inference: str
    ) -> ModelPotential:
        from aims_pax.models.mace.load_committee import load_committee

        return load_committee(paths, device, dtype, inference)

    def load_named(
        self,
        name: str,
        folder: Path,
        device: str,
        dtype: str,
        inference: str = "torch",
        key: str = FOUNDATIONAL_SIZE,
    ) -> ModelPotential:
        from aims_pax.models.mace import foundation

        return foundation.load_foundation_model(name, device, dtype, folder, inference, key)

    def elements_of(self, path: Path) -> tuple[int, ...]:
        from aims_pax.models.mace.build import elements_of, read_model

        return elements_of(read_model(path, "cpu", None))

    def precision_note(self, paths: Sequence[Path], dtype: str, energy: float) -> str:
        from aims_pax.models.mace.build import load_model
        from aims_pax.models.mace.precision import dtype_of, is_too_coarse, resolution

        single = dtype == "float32" or any(dtype_of(load_model(path)[0]) == "float32" for path in paths)
        if not is_too_coarse([energy]) or not single:
            return ""
        return (
            f"energies reach {energy:,.0f} eV, which single precision resolves only to {resolution(energy):.2g} eV: "
            'this table sums them in double precision; MACECalculator does so with default_dtype="float64"'
        )

    def atom_features(self, source: Any, folder: Path, device: str) -> Features | None:
        if not isinstance(source, str) and not hasattr(source, "get_descriptors"):
            return None
        from aims_pax.models.mace.features import calculator_features, calculator_of

        calculator = calculator_of(source, device, folder) if isinstance(source, str) else source
        return lambda frames: calculator_features(calculator, frames)

    def export(self, source: Path, form: str, target: Path, frames: Sequence[Frame]) -> ExportedModel:
        from aims_pax.models.mace.export import exported

        return exported(source, form, target, frames)

    def form_suffix(self, form: str) -> str:
        return FORMS[form]

    # ------------------------------------------------------------ estimates for `plan`

    def cutoff(self, settings: Settings) -> float | None:
        known = _with_architecture(settings)
        return None if known is None else float(known.mace.architecture.r_max)

    def estimate_memory(
        self, settings: Settings, systems: Sequence[System], trajectories: Mapping[str, int]
    ) -> dict[str, float] | None:
        known = _with_architecture(settings)
        return None if known is None else resource_estimates.estimate_memory(known, systems, trajectories)

    def estimate_snapshot(self, settings: Settings, n_elements: int) -> float:
        known = _with_architecture(settings)
        return 0.0 if known is None else resource_estimates.snapshot_bytes(known, n_elements)

    # ------------------------------------------------------------ optional features

    def training_pool(self, workers: int, threads: int, devices: Sequence[str], memory: float) -> ProcessPool:
        from aims_pax.models.mace.training_workers import TrainingPool

        return TrainingPool(workers, threads, devices, memory)

    def serialise(self, model: ForceFieldModel) -> Any:
        return cast("Ensemble", model).packed()

    def unserialise(self, data: Any) -> Ensemble:
        from aims_pax.models.mace.ensemble import Ensemble

        return Ensemble.unpacked(data)

    def compiling(
        self, model: ForceFieldModel, settings: Settings, atoms: float, watch: Pauses | None = None
    ) -> AbstractContextManager[None]:
        from aims_pax.models.mace.compile_policy import compiling

        return compiling(settings, cast("Ensemble", model), atoms, watch)


def _needs_download(foundation: FoundationSettings) -> bool:
    from aims_pax.models.mace.foundation import stored_file

    return foundation.published and stored_file(foundation.name) is None


def _with_architecture(settings: Settings) -> Settings | None:
    """The settings with the ARCHITECTURE of the foundation model; None if its file is not on this machine yet."""
    foundation = settings.mace.foundation
    if foundation is None:
        return settings
    from aims_pax.models.mace.foundation import stored_file

    if foundation.factory is not None:
        return None
    path = stored_file(foundation.name) if foundation.published else settings.path(foundation.name)
    if path is None or not path.is_file():
        return None
    found = _architecture_of_file(path, path.stat().st_mtime_ns)
    mace = settings.mace.model_copy(update={"architecture": found})
    return replace(settings, mace=mace)


@lru_cache(maxsize=4)
def _architecture_of_file(path: Path, changed: int) -> ArchitectureSettings:
    """ARCHITECTURE of the model in a file. changed: time of its last change, so that a new file is read again."""
    from aims_pax.models.mace.architecture import architecture
    from aims_pax.models.mace.build import read_model

    found = architecture(read_model(path, "cpu", None))
    known = {key: value for key, value in found.items() if key in ArchitectureSettings.model_fields}
    return ArchitectureSettings().model_copy(update={"max_L": 0, **known})


def _given_energies(settings: Settings, known: Sequence[int]) -> Mapping[int, float]:
    """{Z: eV} of ARCHITECTURE.atomic_energies for geometries and known elements; {} if they are no numbers."""
    written = settings.mace.architecture.atomic_energies
    if written is None or written == FROM_REFERENCE:
        return {}
    needed = elements(s.frame for s in found_geometries(settings)[0])
    return atomic_energies_by_element(written, needed, settings.folder, known)


def _other_energies(given: Mapping[int, float], member: Member) -> list[tuple[str, str, str]]:
    """(key, value in mace.yaml, value of the model) for every atomic energy that is not that of the given model."""
    assert member.statistics is not None
    theirs = dict(zip(member.elements, member.statistics.E0.tolist(), strict=True))
    return [
        (f"atomic_energies of {chemical_symbols[z]}", f"{energy:g} eV", f"{theirs[z]:g} eV")
        for z, energy in given.items()
        if z in theirs and not math.isclose(energy, theirs[z], rel_tol=ROUNDED, abs_tol=SAME_ENERGY)
    ]


def _elements_of_data(settings: Settings) -> tuple[int, ...]:
    """Atomic numbers in the labelled files that the settings name; missing files are reported elsewhere."""
    al = settings.active_learning
    named = [] if al is None else [al.initial_train_dataset, al.initial_valid_dataset]
    files = [f for n in named if n for f in (n.values() if isinstance(n, dict) else [n])]
    paths = dict.fromkeys(settings.path(f) for f in [*files, settings.misc.test_set] if f)
    found = {int(z) for p in paths if p.is_file() for _, atoms in read_structures(p) for z in atoms.numbers}
    return tuple(sorted(found))


KIND = MaceKind()
