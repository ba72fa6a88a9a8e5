"""Any kind of model with a baseline (REFERENCE.baseline): builds, loads and sends members that learn the difference.

`models.kinds` finds this class by its name: `kind_of_run` for a run with a baseline, `kind_of_file` for a file that
holds only the difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ase.data import chemical_symbols

from aims_pax.errors import SettingsError
from aims_pax.models.base import ForceFieldModel, ModelPotential, ProcessPool
from aims_pax.models.delta import MARK, DeltaModel, DeltaPotential, baseline_file, baseline_record
from aims_pax.models.kinds import DEFAULT, ModelKind, Pauses, model_kind
from aims_pax.potentials.baseline import Baseline
from aims_pax.settings.geometries import found_geometries
from aims_pax.settings.mace import FROM_REFERENCE, atomic_energies_by_element
from aims_pax.systems import elements

if TYPE_CHECKING:
    from aims_pax.settings import Settings
    from aims_pax.systems import System

TARGET = f"{__name__}:IN_PROCESSES"  # how a process that moves atoms finds it


@dataclass(frozen=True, eq=False)
class SerialisedDelta:
    """Members for another process, with the name and folder of their kind, and the baseline."""

    kind: str
    folder: Path | None
    members: Any
    baseline: Baseline


class DeltaKind(ModelKind):
    """A kind of model whose members learn the difference to a baseline. name, folder: of the kind, see `model_kind`."""

    forms = ()
    target = TARGET

    def __init__(self, name: str = DEFAULT, folder: Path | None = None) -> None:
        self.inner, self.folder, self.name = model_kind(name, folder), folder, name
        inner = self.inner
        self.title, self.suffix = f"Δ-learning {inner.title}", f"{MARK}{inner.suffix}"
        self.packages, self.keys = inner.packages, inner.keys
        self.has_spread, self.has_stress = inner.has_spread, inner.has_stress
        self.fits_at_once = inner.fits_at_once
        self.trains_in_processes, self.moves_in_processes = (
            inner.trains_in_processes,
            inner.moves_in_processes,
        )
        self.slow_imports = inner.slow_imports
        self.learns_from_copies = inner.learns_from_copies
        self.begins_from_files, self.mixes_weights = inner.begins_from_files, inner.mixes_weights

    # ------------------------------------------------------------ models

    def build(self, settings: Settings, seeds: Sequence[int], elements: Sequence[int]) -> DeltaModel:
        baseline = Baseline.of_run(settings)
        settings = without_atoms_of(baseline, settings, elements)
        return self._wrapped(self.inner.build(settings, seeds, elements), baseline)

    def from_files(
        self, paths: Sequence[Path], settings: Settings, seeds: Sequence[int] | None
    ) -> DeltaModel:
        baseline = Baseline.of_run(settings)
        for path in paths:
            known = baseline_record(path)
            if known is None:
                raise SettingsError(
                    f"ACTIVE_LEARNING.initial_models: {path} is not a model of the difference to a baseline; with "
                    f"REFERENCE.baseline give {MARK}{self.inner.suffix} files of the same baseline, or "
                    "initial_train_dataset instead"
                )
            if known["identity"] != baseline.identity:
                raise SettingsError(
                    f"ACTIVE_LEARNING.initial_models: {path} is the difference to {known['baseline_in_words']}, "
                    f"REFERENCE.baseline is {baseline.described}; give models of the same baseline"
                )
        return self._wrapped(self.inner.from_files(paths, settings, seeds), baseline)

    def contradictions(self, model: ForceFieldModel, settings: Settings) -> list[str]:
        own = cast(DeltaModel, model)
        settings = without_atoms_of(cast(Baseline, own.baseline), settings, _of_geometries(settings))
        return self.inner.contradictions(own.inner, settings)

    def options(self, settings: Settings) -> Any:
        return self.inner.options(settings)

    def recorded(self, model: ForceFieldModel) -> dict[str, Any]:
        return cast(DeltaModel, model).baseline.record()

    def _wrapped(self, inner: ForceFieldModel, baseline: Baseline) -> DeltaModel:
        return DeltaModel(inner, baseline, (self.name, self.folder))

    # ------------------------------------------------------------ files

    def load(self, paths: Sequence[Path], device: str, dtype: str) -> ModelPotential:
        return DeltaPotential(self.inner.load(paths, device, dtype), baseline_of(paths, device))

    def load_fast(
        self, paths: Sequence[Path], device: str, dtype: str | None, inference: str
    ) -> ModelPotential:
        inner = self.inner.load_fast(paths, device, dtype, inference)
        return DeltaPotential(inner, baseline_of(paths, device))

    def load_named(
        self, name: str, folder: Path, device: str, dtype: str, inference: str = "torch", key: str = ""
    ) -> ModelPotential:
        return self.load_fast([folder / Path(name).expanduser()], device, dtype, inference)

    def elements_of(self, path: Path) -> tuple[int, ...]:
        return self.inner.elements_of(path)

    def no_export(self, path: Path, form: str) -> str:
        known = baseline_record(path)
        what = "a baseline" if known is None else f"the baseline {known['baseline_in_words']}"
        return (
            f"{path}: cannot be exported as {form}: the file holds only the difference to {what}, which other programs "
            'cannot add. Use both in ASE: aims_pax.calculator("results"); or train a model without REFERENCE.baseline '
            "on the same labels, which costs no label: in another folder, with results/training.xyz as "
            "ACTIVE_LEARNING.initial_train_dataset"
        )

    # ------------------------------------------------------------ estimates for `plan`

    def cutoff(self, settings: Settings) -> float | None:
        return self.inner.cutoff(settings)

    def estimate_memory(
        self, settings: Settings, systems: Sequence[System], trajectories: Mapping[str, int]
    ) -> dict[str, float] | None:
        return self.inner.estimate_memory(settings, systems, trajectories)

    def estimate_snapshot(self, settings: Settings, n_elements: int) -> float:
        return self.inner.estimate_snapshot(settings, n_elements)

    # ------------------------------------------------------------ optional features

    def training_pool(self, workers: int, threads: int, devices: Sequence[str], memory: float) -> ProcessPool:
        return self.inner.training_pool(workers, threads, devices, memory)

    def serialise(self, model: ForceFieldModel) -> SerialisedDelta:
        own = cast(DeltaModel, model)
        members = model_kind(*own.kind).serialise(own.inner)
        return SerialisedDelta(*own.kind, members, cast(Baseline, own.baseline))

    def unserialise(self, data: Any) -> DeltaModel:
        inner = model_kind(data.kind, data.folder).unserialise(data.members)
        return DeltaModel(inner, data.baseline, (data.kind, data.folder))

    def compiling(
        self, model: ForceFieldModel, settings: Settings, atoms: float, watch: Pauses | None = None
    ) -> AbstractContextManager[None]:
        return self.inner.compiling(cast(DeltaModel, model).inner, settings, atoms, watch)


IN_PROCESSES = DeltaKind()


def baseline_of(paths: Sequence[Path], device: str = "cpu") -> Baseline:
    """The baseline of model files, by the files beside them that say so. Raises SettingsError.

    Its own files are looked for in the folder of the model and in those above it, up to the folder of the run.
    """
    records = []
    for path in paths:
        known = baseline_record(path)
        if known is None:
            raise SettingsError(
                f"{path}: holds only the difference to a baseline, and {baseline_file(path).name}, which says what the "
                "baseline is, is missing or unreadable: copy it from the folder of the run, next to the model"
            )
        records.append(known)
    if len({known["identity"] for known in records}) > 1:
        raise SettingsError(f"the models have different baselines: {', '.join(map(str, paths))}")
    known, start = records[0], paths[0].absolute().parent
    places = [start, *start.parents][:3]
    for folder in places:
        found = Baseline(known["baseline"], folder, device, key=f"{baseline_file(paths[0]).name}: baseline")
        if found.identity == known["identity"]:
            return found
    raise SettingsError(
        f"{paths[0]}: the baseline is {known['baseline_in_words']}; {', '.join(known['contents']) or 'its entry'} is "
        f"missing or has changed (looked in {', '.join(map(str, places))})"
    )


def _of_geometries(settings: Settings) -> tuple[int, ...]:
    return elements(s.frame for s in found_geometries(settings)[0])


def without_atoms_of(baseline: Baseline, settings: Settings, elements: Sequence[int]) -> Settings:
    """The settings with the baseline's atoms subtracted from ARCHITECTURE.atomic_energies, which are the reference's.

    `reference` stays: its energies are not known yet. Raises SettingsError if the baseline cannot compute an atom.
    """
    given = settings.model.atomic_energies
    if given is None:
        return settings
    later = given == FROM_REFERENCE
    energies = (
        dict.fromkeys(elements, 0.0)
        if later
        else atomic_energies_by_element(given, elements, settings.folder)
    )
    found = {}
    for z in elements:
        try:
            found[chemical_symbols[z]] = energies[z] - baseline.atomic_energy(z)
        except SettingsError as error:
            raise SettingsError(
                "ARCHITECTURE.atomic_energies in mace.yaml: with REFERENCE.baseline the energies of its isolated atoms "
                f"are subtracted, and {baseline.described} gives none of {chemical_symbols[z]} ({error}); remove the "
                "key: then they are fitted to the differences"
            ) from error
    return settings if later else settings.with_atomic_energies(found)
