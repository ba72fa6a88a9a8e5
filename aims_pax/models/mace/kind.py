"""MACE as a kind of model. Modules that need torch are imported only when they are used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from aims_pax.frames import Frame
from aims_pax.models.base import ForceFieldModel, ModelPotential, ProcessPool
from aims_pax.models.kinds import FOUNDATIONAL_SIZE, ExportedModel, Features, ModelKind, Pauses
from aims_pax.models.mace import resource_estimates

if TYPE_CHECKING:
    from aims_pax.models.mace.ensemble import Ensemble
    from aims_pax.settings import Settings
    from aims_pax.systems import System

FORMS = {  # format of exported files: ending of their names
    "ase": ".model",
    "torchscript": ".torchscript.pt",
    "lammps": "-lammps.pt",
    "mliap": "-mliap_lammps.pt",
}


class MaceKind(ModelKind):
    """Equivariant message-passing models with the settings of mace.yaml."""

    name = "mace"
    title = "MACE"
    suffix = ".model"
    packages = ("mace-torch", "torch", "e3nn")
    has_stress = True
    begins_from_files = True
    trains_in_processes = True
    moves_in_processes = True
    forms = tuple(FORMS)

    def build(self, settings: Settings, seeds: Sequence[int], elements: Sequence[int]) -> Ensemble:
        from aims_pax.models.mace.ensemble import Ensemble

        return Ensemble.build(settings.mace, seeds, elements, settings.folder)

    def from_files(self, paths: Sequence[Path], settings: Settings, seeds: Sequence[int] | None) -> Ensemble:
        from aims_pax.models.mace.ensemble import Ensemble

        return Ensemble.from_models(paths, settings.mace, seeds)

    def contradictions(self, model: ForceFieldModel, settings: Settings) -> list[str]:
        from aims_pax.models.mace.architecture import contradictions

        paths = settings.active_learning.initial_models or ()  # type: ignore[union-attr]
        return [
            f"ARCHITECTURE.{key}: {written} in mace.yaml, {found} in {path}"
            for path, member in zip(paths, cast("Ensemble", model).members, strict=True)
            for key, written, found in contradictions(member.model, settings.mace.architecture)
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
        return float(settings.mace.architecture.r_max)

    def estimate_memory(
        self, settings: Settings, systems: Sequence[System], trajectories: Mapping[str, int]
    ) -> dict[str, float] | None:
        return resource_estimates.estimate_memory(settings, systems, trajectories)

    def estimate_snapshot(self, settings: Settings, n_elements: int) -> float:
        return resource_estimates.snapshot_bytes(settings, n_elements)

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


KIND = MaceKind()
