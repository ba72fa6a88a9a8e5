"""Checks before the first label. The run and `aims-PAX check` both use them and so report the same errors.

Each check raises the error that the run would raise later. Checks that need a model are last: they load torch.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from ase.data import chemical_symbols

from aims_pax import seeds
from aims_pax.commands.check.model_kind import wrong_model_kind
from aims_pax.commands.check.shell_syntax import check_shell_syntax
from aims_pax.dataset import only_known, read_extxyz, require_stored
from aims_pax.errors import AimsPaxError, LabelError, SettingsError, SetupError
from aims_pax.given_data import GivenFile
from aims_pax.isolated_atoms import isolated
from aims_pax.labelling.factory import executor_of, reference_of
from aims_pax.labelling.store import method_hash
from aims_pax.labelling.validation import check_geometry
from aims_pax.models.kinds import kind_of_file, kind_of_run
from aims_pax.potentials.baseline import KEY, Baseline
from aims_pax.potentials.delta_kind import without_atoms_of
from aims_pax.potentials.named import canonical_spec, contents_of_potential
from aims_pax.record.checkpoint import Checkpoint, exists
from aims_pax.record.folder import RunFolder
from aims_pax.record.log import only_errors
from aims_pax.record.restart_compatibility import ELEMENTS, WITHOUT, as_begun, refuse_changes
from aims_pax.settings import effective
from aims_pax.settings.augment import CallSpec
from aims_pax.settings.augmentation import NAME as AUGMENTATION
from aims_pax.settings.bundled_models import (
    BUNDLED,
    missing_packages,
    named_by_calculator,
    unsuitable_structures,
)
from aims_pax.settings.callables import ELEMENTS_OF_PUBLISHED, PUBLISHED_MODELS
from aims_pax.settings.geometry_rules import refused_geometries
from aims_pax.settings.mace import FROM_REFERENCE
from aims_pax.settings.sampler_list import calls, models
from aims_pax.settings.samplers import NAME as SAMPLERS
from aims_pax.settings.samplers import SamplerSettings
from aims_pax.settings.yaml_reader import Place
from aims_pax.stages.given_data_check import check_learnable, choose_structures
from aims_pax.stages.given_models import given_ensemble
from aims_pax.systems import System, elements

if TYPE_CHECKING:
    from aims_pax.engine.run_context import RunContext
    from aims_pax.settings import Settings

log = logging.getLogger(__name__)

NOTHING = (
    "nothing to start from: write a section INITIAL_DATASET_GENERATION, or set "
    "ACTIVE_LEARNING.initial_train_dataset or initial_models"
)
LARGEST_READ = 50_000_000  # bytes of given data that `check` reads completely: ten seconds
BASELINE_PLACE: Place = ("REFERENCE", "baseline")
MOST_TRIED = 20  # geometries on which a baseline is tried
BUILT_IN_NEEDS = {"graph_pes_calculator": ("graph_pes", "graph-pes")}  # potential → (module, extra)
Look = Callable[["Settings", Sequence[System]], None]


def stop_at_first(settings: Settings, systems: Sequence[System]) -> None:
    """For a run that begins: raise the first error. Models and data are checked where they are loaded."""
    for look in BEFORE:
        look(settings, systems)


def refusals(settings: Settings, systems: Sequence[System]) -> Iterator[str]:
    """For `check`: the errors of all checks; the expensive ones run only if the others found none."""
    found = False
    for look in (*BEFORE, check_start, check_stored_data, check_extras, foundation_elements):
        for text in _said(look, settings, systems):
            found = True
            yield text
    if not found:
        yield from _said(given_models_and_data, settings, systems)


def _said(look: Look, settings: Settings, systems: Sequence[System]) -> Iterator[str]:
    try:
        look(settings, systems)
    except AimsPaxError as error:
        yield str(error)


# ---------------------------------------------------------------- before anything is opened


def check_start(settings: Settings, systems: Sequence[System]) -> None:
    """Raise SettingsError when there is nothing to start from: no section, data, models or restart."""
    begun = exists(RunFolder(settings).restart / "initial")
    if settings.initial_dataset is None and not has_given_data(settings) and not begun:
        raise SettingsError(NOTHING)


def check_stored_data(settings: Settings, systems: Sequence[System]) -> None:
    """Raise RestartError when the data folder lacks structures that the snapshots of this run count on."""
    folder = RunFolder(settings)
    for stage in ("explore", "initial"):  # what a restart continues from
        if (snapshot := Checkpoint(folder, stage).read()) is not None:
            require_stored(folder.data, int(snapshot.remarks["entries"]))
            return


def has_given_data(settings: Settings) -> bool:
    """Whether the user gives data or models."""
    al = settings.active_learning
    return al is not None and bool(al.initial_train_dataset or al.initial_models)


def check_overlaps(settings: Settings, systems: Sequence[System]) -> None:
    """Raise SettingsError for a starting structure that cannot be labelled, such as one with overlapping atoms."""
    for system in systems:
        try:
            check_geometry(system.frame)
        except LabelError as error:
            raise SettingsError(
                f"geometry {system.name}: {error.reason}; correct the starting structure"
            ) from error


def check_geometries(settings: Settings, systems: Sequence[System]) -> None:
    """Raise SettingsError for entries of a geometry that are not supported."""
    problems = [
        f"{'.'.join(map(str, place))}: {text}" for place, text in refused_geometries(settings, systems)
    ]
    if problems:
        raise SettingsError("\n".join(problems))


def check_dynamics(settings: Settings, systems: Sequence[System]) -> None:
    """Raise SettingsError for a geometry whose MD is impossible: no settings, no atom that can move, or fixed atoms at
    constant pressure."""
    missing = [s.name for s in systems if settings.md_by_system and s.name not in settings.md_by_system]
    if missing:
        raise SettingsError(
            f"MD: no settings for {', '.join(missing)}; expected a table for each geometry, or one for all"
        )
    for system in systems:
        if (reason := system.refuses_dynamics()) is not None:
            raise SettingsError(f"MISC.path_to_geometry: {reason}")
        if system.frame.fixed is None or settings.md_of(system.name).stat_ensemble != "NPT":
            continue
        from aims_pax.md.integrators import integrator_kind

        try:  # it reads only pbc and fixed atoms of a state
            integrator_kind(settings.md_of(system.name), cast(Any, system.frame))
        except SettingsError as error:
            raise SettingsError(f"geometry {system.name}: {error}") from error


def check_reference(settings: Settings, systems: Sequence[System]) -> None:
    """Raise the errors of opening the reference, without contacting the scheduler."""
    made = _reference(settings)
    made.check()
    check = getattr(made, "check_elements", None)
    if check is not None:
        check(elements(s.frame for s in systems))
    if settings.cluster.scheduler is not None:
        executor_of(settings, made)


def _reference(settings: Settings) -> Any:
    """The reference, without its warnings, which appear when the run opens it."""
    with only_errors("aims_pax"):
        return reference_of(settings)


def begun_folder(settings: Settings, systems: Sequence[System]) -> None:
    """Raise RestartError when the folder was begun with incompatible settings or geometries. Writes nothing."""
    folder = RunFolder(settings)
    if settings.active_learning is not None and exists(folder.restart / "explore"):
        from aims_pax.stages.trajectory_geometries import refuse_fewer

        refuse_fewer(folder, settings.active_learning.num_trajectories, systems)
    if (folder.restart / "settings.json").exists():
        made: Any = _reference(settings)
        controls = getattr(made, "controls", None)
        method = method_hash((made.for_system(next(iter(controls))) if controls else made).describe())
        begun = as_begun(folder, systems)
        geometries = {s.name: s.frame.id for s in begun}
        refuse_changes(
            folder, begun_settings(settings, systems), method, geometries, baseline_in_words(settings)
        )


def begun_settings(settings: Settings, systems: Sequence[System]) -> dict[str, Any]:
    """The settings that a folder is begun with, hashes of the files that its models begin from or that label for
    pre-training, and the elements of models that are made for the geometries."""
    found = effective(settings)
    contents, al = kind_of_run(settings).begun_with(settings), settings.active_learning
    if settings.pretraining is not None:
        potential = canonical_spec(settings.pretraining.potential)
        contents |= contents_of_potential(potential, settings.folder)
    if contents:
        found |= {"contents": contents}
    if settings.model.foundation is None and not (al and al.initial_models):
        found |= {ELEMENTS: " ".join(chemical_symbols[z] for z in elements(s.frame for s in systems))}
    return found


def baseline_in_words(settings: Settings) -> str:
    """REFERENCE.baseline with the hash of its contents; `none` if there is none."""
    if settings.reference.baseline is None:
        return WITHOUT
    found = Baseline.of_run(settings)
    return f"{found.described} ({found.identity})"


def baseline_spec(settings: Settings) -> CallSpec | str | None:
    """REFERENCE.baseline in the form of `make_potential`."""
    written = settings.reference.baseline
    return None if written is None else canonical_spec(written)


def check_baseline(settings: Settings, systems: Sequence[System]) -> None:
    """Raise the errors of REFERENCE.baseline: it is evaluated on a geometry of each kind, and for atoms where needed.

    Checked are its import and arguments, elements, charge and spin, and the stress if the models learn it.
    """
    spec = baseline_spec(settings)
    if spec is None or spec in PUBLISHED_MODELS:  # a published model is downloaded when it is first used
        return
    baseline = Baseline.of_run(settings, stored=False)
    kinds = {
        (*sorted(set(s.frame.numbers.tolist())), s.frame.charge, s.frame.spin, s.frame.periodic): s
        for s in systems
    }
    for system in [*kinds.values()][:MOST_TRIED]:
        try:
            label = baseline.label(system.frame)
        except LabelError as error:
            raise SettingsError(
                f"{error.reason} (geometry {system.name}); choose another baseline"
            ) from error
        if system.frame.periodic and settings.model.compute_stress and label.stress is None:
            raise SettingsError(
                f"{KEY}: {baseline.described} gives no stress, which GENERAL.compute_stress in mace.yaml needs; choose "
                "another baseline, or learn without stress (NVT)"
            )
    without_atoms_of(baseline, settings, elements(s.frame for s in systems))


def check_model_kind(settings: Settings, systems: Sequence[System]) -> None:
    """Raise SettingsError for a kind of model that is missing or does not support what the settings need."""
    if said := [f"{'.'.join(map(str, place))}: {text}" for place, text in wrong_model_kind(settings)]:
        raise SettingsError("\n".join(said))


def check_augmentation(settings: Settings, systems: Sequence[System]) -> None:
    """Raise SetupError for the section AUGMENTATION without the extra `gpr`."""
    if settings.augmentation is None:
        return
    from aims_pax.models.gp.soap import require_featomic

    try:
        require_featomic()
    except SetupError as error:
        raise SetupError(f"{AUGMENTATION}: {error}") from error


def bundled_models(settings: Settings, systems: Sequence[System]) -> None:
    """Raise the errors of foundation models that settings name by a short name: a missing package, an element that the
    model does not know, a molecule for a model of crystals."""
    named = bundled_names(settings)
    if missing := list(missing_packages(named)):
        raise SetupError("\n".join(f"{'.'.join(map(str, place))}: {text}" for place, text in missing))
    if said := list(unsuitable_structures(named, systems)):
        raise SettingsError("\n".join(f"{'.'.join(map(str, place))}: {text}" for place, text in said))


def bundled_names(settings: Settings) -> list[tuple[Place, str]]:
    """(place, short name) of each foundation model that settings name by its short name or by its factory."""
    initial, reference = settings.initial_dataset, settings.reference
    named = models(settings.samplers)
    if initial is not None and not settings.samplers:
        place: Place = ("INITIAL_DATASET_GENERATION", "initial_sampling")
        named.append((place, initial.initial_sampling))
        own = initial.initial_calculator
        if initial.initial_sampling == "calculator" and own is not None:
            place = ("INITIAL_DATASET_GENERATION", "initial_calculator", "factory")
            named.append((place, named_by_calculator(own.factory) or ""))
    if reference.type == "calculator" and reference.factory is not None:
        named.append((("REFERENCE", "factory"), named_by_calculator(reference.factory) or ""))
    if isinstance(spec := baseline_spec(settings), str):
        named.append((BASELINE_PLACE, spec))
    if (free := settings.pretraining) is not None:
        named += dict.fromkeys((free.place_of(at), name) for at, name in models(free.sources))
    return [(place, name) for place, name in named if name in BUNDLED]


def isolated_atoms(settings: Settings, systems: Sequence[System]) -> None:
    """Raise SettingsError for an isolated atom with unknown ground state, if the reference computes atoms."""
    al = settings.active_learning
    if settings.model.atomic_energies == FROM_REFERENCE and not (al and al.initial_models):
        for z in elements(s.frame for s in systems):
            isolated(z)


BEFORE: tuple[Look, ...] = (
    check_model_kind,
    check_augmentation,
    check_geometries,
    check_overlaps,
    check_dynamics,
    check_shell_syntax,
    check_reference,
    begun_folder,
    bundled_models,
    isolated_atoms,
    check_baseline,
)


# ---------------------------------------------------------------- errors that a run finds when it samples or loads


def check_extras(settings: Settings, systems: Sequence[System]) -> None:
    """Raise SetupError with the missing extras of samplers and potentials."""
    spec = baseline_spec(settings)
    baseline = [(BASELINE_PLACE, spec)] if isinstance(spec, CallSpec) and spec.called else []
    missing = missing_extras(settings.samplers, [*calls(settings.samplers), *baseline])
    if (free := settings.pretraining) is not None:
        own = missing_extras(free.sources, calls(free.sources))
        missing += dict.fromkeys((free.place_of(place), text) for place, text in own)
    if missing:
        raise SetupError("\n".join(f"{'.'.join(map(str, place))}: {text}" for place, text in missing))


def missing_extras(
    samplers: Sequence[SamplerSettings], potentials: Iterable[tuple[Place, CallSpec]]
) -> list[tuple[Place, str]]:
    """(place, text) for each missing package that samplers and built-in potentials need."""
    missing: list[tuple[Place, str]] = []
    for k, sampler in enumerate(samplers):
        missing += [
            ((SAMPLERS, k), text) for name, text in sampler.needed_packages.items() if not importable(name)
        ]
    for place, call in potentials:
        module, extra = BUILT_IN_NEEDS.get(call.target, ("", ""))
        if module and not importable(module):
            missing.append((place, f"+{call.target} needs {module}: pip install 'aims-pax[{extra}]'"))
    return missing


def importable(module: str) -> bool:
    """Whether a package can be imported."""
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True


def foundation_elements(settings: Settings, systems: Sequence[System]) -> None:
    """Raise SettingsError for a geometry with an element that a foundation model does not know."""
    initial = settings.initial_dataset
    named = models(settings.samplers)
    if isinstance(spec := baseline_spec(settings), str):
        named.append((BASELINE_PLACE, spec))
    if initial is not None and initial.initial_sampling == "mace-mp0" and not settings.samplers:
        place: Place = ("INITIAL_DATASET_GENERATION", "initial_foundational_size")
        named.append((place, initial.initial_foundational_size))
    if (free := settings.pretraining) is not None:
        named += dict.fromkeys((free.place_of(place), size) for place, size in models(free.sources))
    said = unknown_elements(named, systems, settings.folder)
    if said:
        raise SettingsError("\n".join(f"{'.'.join(map(str, place))}: {text}" for place, text in said))


def unknown_elements(
    named: Iterable[tuple[Place, str]], systems: Sequence[System], folder: Path
) -> list[tuple[Place, str]]:
    """(place, text) for each foundation size or model file that does not know an element of a system."""
    said: list[tuple[Place, str]] = []
    for place, size in named:
        if size in BUNDLED:
            continue  # see `unsuitable_structures`
        path, published = folder / Path(size).expanduser(), ELEMENTS_OF_PUBLISHED.get(size)
        if published is None and not path.is_file():
            continue  # reported by the check of model files
        try:
            known = published or set(elements_of_model(path))
        except SettingsError as error:
            said.append((place, str(error)))
            continue
        for system in systems:
            if unknown := sorted(set(system.frame.numbers.tolist()) - known):
                symbols = ", ".join(chemical_symbols[z] for z in unknown)
                text = f"{size} does not know {symbols} (in geometry {system.name}); choose a model that does"
                said.append((place, text))
    return said


def elements_of_model(path: Path) -> tuple[int, ...]:
    """Atomic numbers that a model file knows. Raises SettingsError for a file that is not a model."""
    return kind_of_file(path).elements_of(path)


def untrained_member_seeds(settings: Settings) -> tuple[int, ...]:
    """The seeds of the members of a new ensemble."""
    al, section = settings.active_learning, settings.active_learning or settings.initial_dataset
    if al is not None and al.seeds_tags_dict:
        return tuple(al.seeds_tags_dict.values())
    assert section is not None
    return tuple(seeds.member_seeds(settings.model.seed, section.ensemble_size))


def given_models_and_data(settings: Settings, systems: Sequence[System]) -> None:
    """Raise the errors of reading initial_models, initial_train_dataset and test_set. Writes nothing."""
    al, misc = settings.active_learning, settings.misc
    known: Any
    if al is not None and al.initial_models:
        zs = elements(s.frame for s in systems)
        known = given_ensemble(settings.on_device("cpu"), zs, RunFolder(settings))
    else:
        numbers, zs = untrained_member_seeds(settings), elements(s.frame for s in systems)
        known = kind_of_run(settings).trial_members(settings.on_device("cpu"), numbers, zs)
        if known is None:
            members = [SimpleNamespace(name=f"{settings.model.name}_{s}", seed=s) for s in numbers]
            known = SimpleNamespace(members=members, elements=zs)
    begun = exists(RunFolder(settings).restart / "explore")
    if al is not None and not begun and 0 < _size(settings) < LARGEST_READ:
        from aims_pax.stages.given_sets import given_sets

        # as in the run, into a dataset in memory
        run = SimpleNamespace(settings=settings, systems=systems, ensemble=known)
        _, files = given_sets(cast("RunContext", run))
        _try_baseline(settings, files)
    if misc.test_set:
        path = settings.path(misc.test_set)
        frames = read_extxyz(path, misc.energy_key, misc.forces_key, misc.stress_key)
        for _ in only_known(frames, known.elements, path):
            pass


def _try_baseline(settings: Settings, files: Sequence[GivenFile]) -> None:
    """Raise SettingsError for given structures on which the baseline fails; a few of each file are tried."""
    if settings.reference.baseline is None:
        return
    baseline = Baseline.of_run(settings, stored=False)
    for file in files:
        few = replace(file, frames=tuple(choose_structures(file, MOST_TRIED)))
        check_learnable(baseline.label, few, f"the file {file.name}")


def _size(settings: Settings) -> int:
    """Bytes of the user's datasets."""
    al = settings.active_learning
    named = (al.initial_train_dataset, al.initial_valid_dataset) if al is not None else ()
    files = [f for n in named if n for f in (n.values() if isinstance(n, dict) else [n])]
    paths = [settings.path(f) for f in dict.fromkeys(files)]
    return sum(p.stat().st_size for p in paths if p.is_file())
