"""`aims-PAX check`: validates a working folder without running anything.

Beyond the settings themselves this reads the geometries, control.in, the species defaults, the first
structures of every dataset (and the lines of all of it) and the factories of calculators.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from aims_pax.commands.check.model_kind import wrong_model_kind
from aims_pax.commands.check.named_files import missing_files, missing_files_of_readable, named_datasets
from aims_pax.commands.check.readiness import BASELINE_PLACE, baseline_spec
from aims_pax.errors import SettingsError
from aims_pax.given_data import GivenFile, read_given, remarks, undetermined_energies
from aims_pax.labelled_data import LabelKeys
from aims_pax.settings import geometry_rules
from aims_pax.settings.augment import CallSpec
from aims_pax.settings.callables import (
    Wanted,
    odd_arguments,
    wrong_callables,
)
from aims_pax.settings.control_in import MOVES_ATOMS, pair_controls, read_control
from aims_pax.settings.control_in_check import control_in_remarks, lost_hubbard
from aims_pax.settings.cross_checks import MACE, PROJECT
from aims_pax.settings.geometries import completing, found_geometries
from aims_pax.settings.mace import ELEMENTS, FROM_REFERENCE, atomic_energies_by_element
from aims_pax.settings.read import read_settings, read_usable
from aims_pax.settings.sampler_list import potentials
from aims_pax.settings.settings import Settings, dump
from aims_pax.settings.yaml_reader import Document, Place, read_document
from aims_pax.suggestions import nearest
from aims_pax.systems import System, deal, elements
from aims_pax.xyz_blocks import find_damage

STAGES_OF_LABELS = ("pre-training", "initial", "active learning", "given")  # `stage` of labelled structures
READ = 4000  # structures of a dataset whose numbers are read: about a second
INITIAL, ACTIVE = "INITIAL_DATASET_GENERATION", "ACTIVE_LEARNING"

# an error: (place in aimsPAX.yaml, text); places in mace.yaml start with "mace"
Finding = tuple[Place, str]


def check_as_yaml(
    folder: Path | str, aims_pax_file: str = "aimsPAX.yaml", mace_file: str = "mace.yaml"
) -> tuple[str, tuple[str, ...]]:
    """The complete effective settings as YAML, and all warnings.

    Raises SettingsError that lists all errors.
    """
    settings = checked_settings(folder, aims_pax_file, mace_file)
    return dump(settings), settings.warnings


def checked_settings(
    folder: Path | str, aims_pax_file: str = "aimsPAX.yaml", mace_file: str = "mace.yaml"
) -> Settings:
    """The settings with all warnings. Raises SettingsError that lists all errors."""
    try:
        settings = read_settings(folder, aims_pax_file, mace_file)
    except SettingsError as error:
        more = _missing_besides(folder, aims_pax_file, mace_file)
        raise SettingsError("\n".join([str(error), *more])) from error
    documents = {
        label: read_document(settings.folder / file, str(file))
        for label, file in ((PROJECT, aims_pax_file), (MACE, mace_file))
    }
    problems: list[str] = []
    warnings: list[str] = []

    def look(into: list[str], findings: Iterator[Finding]) -> None:
        into += [_placed(documents, place, text) for place, text in findings]

    systems: tuple[System, ...] = ()
    contradictions: list[Finding] = []
    try:
        systems, contradictions = found_geometries(settings)
    except SettingsError as error:
        problems.append(_placed(documents, ("MISC", "path_to_geometry"), str(error)))
    given: list[GivenFile] = []
    look(problems, _files(settings, systems, given))
    look(problems, wrong_callables(_factories(settings), settings.folder))
    look(problems, wrong_model_kind(settings))
    look(problems, _aims(settings, systems))
    if systems:
        look(problems, _systems(settings, systems))
        look(problems, geometry_rules.refused_geometries(settings, systems))
    look(problems, iter(contradictions))
    if problems:
        raise SettingsError("\n".join(problems))
    look(warnings, odd_arguments(_factories(settings), settings.folder))
    look(warnings, _noteworthy(settings, systems))
    look(warnings, _of_given(settings, given))
    look(warnings, geometry_rules.noteworthy(settings, systems))
    look(warnings, _ignored(settings, systems))
    look(warnings, _unused_weights(settings, systems, given))
    return replace(settings, warnings=(*settings.warnings, *warnings))


def _missing_besides(folder: Path | str, aims_pax_file: str, mace_file: str) -> list[str]:
    """Files that are not there, of settings that have mistakes elsewhere."""
    parts, documents = read_usable(folder, aims_pax_file, mace_file)
    found = missing_files_of_readable(parts, Path(folder).absolute())
    return [_placed(documents, place, text) for place, text in found]


def _placed(documents: Mapping[str, Document], place: Place, text: str) -> str:
    label, place = (MACE, place[1:]) if place[:1] == (MACE,) else (PROJECT, place)
    return str(documents[label].problem(place, text))


def _systems(settings: Settings, systems: Sequence[System]) -> Iterator[Finding]:
    names = [s.name for s in systems]
    for name in settings.md_by_system:
        if name not in names:
            near = nearest(name, names)
            hint = f"; nearest: {near}" if near else ""
            yield ("MD", name), f"no geometry has this name; there are {', '.join(names)}{hint}"
    missing = [n for n in names if settings.md_by_system and n not in settings.md_by_system]
    if missing:
        yield (
            ("MD",),
            f"no settings for {', '.join(missing)}; expected a table for each geometry, or one for all",
        )
    energies = settings.model.atomic_energies
    if energies is not None and energies != FROM_REFERENCE:
        try:
            atomic_energies_by_element(energies, elements(s.frame for s in systems), settings.folder)
        except SettingsError as error:
            text = str(error).removeprefix("ARCHITECTURE.atomic_energies: ")
            yield ("mace", "ARCHITECTURE", "atomic_energies"), text


def _noteworthy(settings: Settings, systems: Sequence[System]) -> Iterator[Finding]:
    active = settings.active_learning
    if active is not None and active.num_trajectories < len(systems):
        text = (
            f"{active.num_trajectories} is less than the {len(systems)} geometries; {len(systems)} will run"
        )
        yield (ACTIVE, "num_trajectories"), text
    for system in systems:
        if settings.md_by_system and system.name not in settings.md_by_system:
            continue
        yield from _unused_temperatures(settings, system, systems)
    if settings.model.compute_stress and not any(s.frame.periodic for s in systems):
        yield (
            ("mace", "GENERAL", "compute_stress"),
            "has no effect: no geometry is periodic in three directions",
        )


def _unused_weights(
    settings: Settings, systems: Sequence[System], given: Sequence[GivenFile]
) -> Iterator[Finding]:
    """Names in config_type_weights that no structure of the run will have; see `models.mace.graphs`."""
    foundation = settings.model.foundation
    replayed = foundation is not None and foundation.replay_data is not None
    if replayed or any(len(file.frames) >= READ for file in given):
        return  # of such files not every structure is read here
    origins = [labelled.origin for file in given for labelled in file.frames]
    known = {"Default", *STAGES_OF_LABELS, *(s.name for s in systems)}
    known |= {
        str(origin[key]) for origin in origins for key in ("config_type", "system", "stage") if key in origin
    }
    known |= {labelled.frame.formula for file in given for labelled in file.frames}
    for name in settings.model.weights_by_name:
        if name not in known:
            near = nearest(name, known)
            yield (
                ("mace", "TRAINING", "config_type_weights"),
                f"{name} has no effect: no structure has this config_type, system or stage"
                + (f"; nearest: {near}" if near else ""),
            )


def _ignored(settings: Settings, systems: Sequence[System]) -> Iterator[Finding]:
    """Keywords of control.in that have no effect."""
    if settings.reference.type != "aims":
        return
    place: Place = ("MISC", "path_to_control")
    written = settings.misc.path_to_control
    pairs: dict[str, str] = {}
    if isinstance(written, dict):
        pairs, text = pair_controls(written, [s.name for s in systems])
        if text is not None:
            yield place, text.removeprefix("MISC.path_to_control: ")
    for file in dict.fromkeys(written.values() if isinstance(written, dict) else [written]):
        control = read_control(settings.path(file))
        served = [s for s in systems if not isinstance(written, dict) or pairs.get(s.name) == file]
        yield from ((place, text) for text in control_in_remarks(file, control, served))
        if moving := [word for word in MOVES_ATOMS if word in control]:
            yield place, f"{', '.join(moving)} in {file} is ignored: a label is a single point"


def _aims(settings: Settings, systems: Sequence[System]) -> Iterator[Finding]:
    """Errors in control.in and the species defaults, if FHI-aims is the reference."""
    if settings.reference.type != "aims":
        return
    written = settings.misc.path_to_control
    if isinstance(written, dict):
        try:
            pairs = pair_controls(written, [s.name for s in systems])[0] if systems else {}
        except SettingsError as error:
            yield ("MISC", "path_to_control"), str(error).removeprefix("MISC.path_to_control: ")
            pairs = {}
        for name, file in pairs.items():
            yield from _control(settings, file, [s for s in systems if s.name == name])
    else:
        yield from _control(settings, written, systems)
    yield from _species(settings, systems)


def _control(settings: Settings, file: str, systems: Sequence[System]) -> Iterator[Finding]:
    """Keywords that one control.in lacks for its geometries."""
    place: Place = ("MISC", "path_to_control")
    try:
        control = read_control(settings.path(file))
    except SettingsError as error:
        yield place, str(error)
        return
    if "xc" not in control:
        yield place, f"{file} has no xc; FHI-aims needs a functional"
    periodic = [s.name for s in systems if s.frame.pbc.any()]
    if periodic and not any(word.startswith(("k_grid", "k_points")) for word, _ in control.keywords):
        yield place, f"{file} has no k_grid, but {periodic[0]} is periodic and needs one"
    for section in (settings.initial_dataset, settings.active_learning):
        if section is not None and section.species_dir is not None:
            lost = lost_hubbard(control, settings.path(section.species_dir))
            if lost is not None:
                yield place, f"{file}: {lost}"
                return


def _species(settings: Settings, systems: Sequence[System]) -> Iterator[Finding]:
    for name, section in ((INITIAL, settings.initial_dataset), (ACTIVE, settings.active_learning)):
        if section is None or section.species_dir is None:
            continue
        folder = settings.path(section.species_dir)
        if not folder.is_dir():
            continue
        files = [f"{z:02d}_{ELEMENTS[z - 1]}_default" for z in elements(s.frame for s in systems)]
        if missing := [f for f in files if not (folder / f).is_file()]:
            yield (name, "species_dir"), f"{section.species_dir} has no {', '.join(missing)}"


def _factories(settings: Settings) -> list[Wanted]:
    """All callables that the settings name."""
    wanted: list[Wanted] = []
    reference, initial = settings.reference, settings.initial_dataset
    if reference.type == "calculator" and reference.factory is not None:
        wanted.append((("REFERENCE",), reference.factory, reference.kwargs))
    spec = baseline_spec(settings)
    if isinstance(spec, CallSpec) and spec.called and ":" in spec.target and not spec.args:
        wanted.append((BASELINE_PLACE, spec.target, spec.kwargs))
    if (
        initial is not None
        and initial.initial_sampling == "calculator"
        and not settings.samplers
        and initial.initial_calculator is not None
    ):
        own = initial.initial_calculator
        wanted.append(((INITIAL, "initial_calculator"), own.factory, own.kwargs))
    if (free := settings.pretraining) is not None:
        own_calls = ((free.place_of(at), target, kwargs) for at, target, kwargs in potentials(free.sources))
        wanted += {one[0]: one for one in own_calls}.values()
    if (foundation := settings.model.foundation) is not None and foundation.factory is not None:
        wanted.append((("mace", "FOUNDATION", "model"), *foundation.factory))
    return [*wanted, *potentials(settings.samplers)]


def _files(settings: Settings, systems: Sequence[System], given: list[GivenFile]) -> Iterator[Finding]:
    """Errors in the models and datasets that the settings name; readable datasets are added to `given`."""
    active = settings.active_learning
    own = settings.model.foundation is None and (active is None or active.initial_models is None)
    # new models know the elements of the geometries
    known = elements(s.frame for s in systems) if own else ()
    yield from missing_files(settings)
    if active is not None:
        for key, file in named_datasets(active):
            yield from _labelled(settings, file, known, (ACTIVE, key), given)
    if settings.misc.test_set is not None:
        yield from _labelled(settings, settings.misc.test_set, known, ("MISC", "test_set"), given)


PLACES = {
    "train": (ACTIVE, "initial_train_dataset"),
    "valid": (ACTIVE, "initial_valid_dataset"),
    "test": ("MISC", "test_set"),
}
USES = {"initial_train_dataset": "train", "initial_valid_dataset": "valid", "test_set": "test"}


def _labelled(
    settings: Settings, file: str, known: Sequence[int], place: Place, given: list[GivenFile]
) -> Iterator[Finding]:
    """Read a dataset with the label keys of the settings. known: atomic numbers; empty when models are given."""
    path = settings.path(file)
    if not path.is_file():
        return
    try:
        read = read_given(
            path, file, USES[str(place[-1])], LabelKeys.of(settings.misc), known, READ, completing(settings)
        )
        if not read.frames:
            yield place, f"{file}: no structures in it"
        elif (fault := find_damage(path)) is not None:
            yield place, f"{file}, {fault}"
        given.append(read)
    except SettingsError as error:
        yield place, str(error).replace(str(path), file, 1)


def _of_given(settings: Settings, given: Sequence[GivenFile]) -> Iterator[Finding]:
    """Duplicates, overlaps and missing stress in the given files, and atomic energies that they do not determine."""
    stress = settings.model.compute_stress
    for text in remarks(given, LabelKeys.of(settings.misc), stress):
        place = next((PLACES[file.use] for file in given if text.startswith(file.name)), ())
        yield place, text
    active = settings.active_learning
    train = [f for file in given if file.use == "train" for f in file.frames]
    own = active is not None and active.initial_models is None
    if (
        own
        and settings.model.atomic_energies is None
        and (said := undetermined_energies(train, settings.model.foundation is not None))
    ):
        yield (ACTIVE, "initial_train_dataset"), said


def _unused_temperatures(settings: Settings, system: System, systems: Sequence[System]) -> Iterator[Finding]:
    """Temperatures that no trajectory of this geometry gets."""
    active, ladder = settings.active_learning, settings.md_of(system.name).temperatures
    if active is None or ladder is None:
        return
    dealt = deal(tuple(systems), max(active.num_trajectories, len(systems)))
    n = sum(s.name == system.name for s in dealt)
    if n < len(ladder):
        place: Place = (
            ("MD", system.name, "temperatures") if settings.md_by_system else ("MD", "temperatures")
        )
        left = ", ".join(f"{t:g}" for t in ladder[n:])
        text = (
            f"{system.name} has {n} of the trajectories: no trajectory is at {left} K; raise num_trajectories"
        )
        yield place, text
