"""Whether the models and files that the settings name exist.

These checks need one key each: they also run where other keys are wrong, so that all mistakes come at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from aims_pax.commands.check.readiness import BASELINE_PLACE
from aims_pax.errors import SettingsError
from aims_pax.potentials.named import canonical_spec
from aims_pax.settings.callables import FOUNDATION_ONLY, unknown_models
from aims_pax.settings.control_in import read_control
from aims_pax.settings.foundation import NAME as FOUNDATION
from aims_pax.settings.model import NAME as MODEL
from aims_pax.settings.pretraining import NAME as PRETRAINING
from aims_pax.settings.sampler_list import models
from aims_pax.settings.samplers import NAME as SAMPLERS
from aims_pax.settings.settings import Settings
from aims_pax.settings.unused_keys import ACTIVE, INITIAL, BrokenSectionError, Parts
from aims_pax.settings.yaml_reader import Place
from aims_pax.suggestions import no_such
from aims_pax.systems import geometry_paths, read_systems

Finding = tuple[Place, str]  # (place in aimsPAX.yaml, text); places in mace.yaml start with "mace"
Look = Callable[[Parts, Path], Iterator[Finding]]
DATASETS = ("initial_train_dataset", "initial_valid_dataset")


def missing_files(settings: Settings) -> Iterator[Finding]:
    """What is not there of the models, datasets and species folders that these settings name."""
    sections = {
        INITIAL: settings.initial_dataset,
        ACTIVE: settings.active_learning,
        "MISC": settings.misc,
        "REFERENCE": settings.reference,
        MODEL: settings.model_kind,
        FOUNDATION: settings.model.foundation,
        SAMPLERS: settings.samplers,
        PRETRAINING: settings.pretraining,
    }
    yield from _found(FILES, Parts(sections, set()), settings.folder)


def missing_files_of_readable(parts: Parts, folder: Path) -> Iterator[Finding]:
    """The same for settings of which only a part can be read, and the input files that are read otherwise."""
    yield from _found((*FILES, _geometries, _controls), parts, folder)


def named_datasets(active: Any) -> Iterator[tuple[str, str]]:
    """(key, file) of all files of labels in ACTIVE_LEARNING."""
    for key in DATASETS:
        named = getattr(active, key)
        for file in named.values() if isinstance(named, dict) else [named] if named else []:
            yield key, file


def _found(looks: tuple[Look, ...], parts: Parts, folder: Path) -> Iterator[Finding]:
    for look in looks:
        try:
            yield from look(parts, folder)
        except BrokenSectionError:
            continue


def _potentials(parts: Parts, folder: Path) -> Iterator[Finding]:
    """Models of samplers and of the initial dataset."""
    sizes, initial = models(parts[SAMPLERS] or ()), parts.initial
    if initial is not None and initial.initial_sampling == "mace-mp0" and not parts[SAMPLERS]:
        sizes.append(((INITIAL, "initial_foundational_size"), initial.initial_foundational_size))
    yield from unknown_models(sizes, folder)


def _baseline(parts: Parts, folder: Path) -> Iterator[Finding]:
    written = parts["REFERENCE"] and parts["REFERENCE"].baseline
    if written is not None and isinstance(spec := canonical_spec(written), str):
        yield from unknown_models([(BASELINE_PLACE, spec)], folder)


def _pretraining(parts: Parts, folder: Path) -> Iterator[Finding]:
    if (free := parts[PRETRAINING]) is not None:
        named = dict.fromkeys((free.place_of(place), size) for place, size in models(free.sources))
        yield from unknown_models(named, folder)


def _foundation(parts: Parts, folder: Path) -> Iterator[Finding]:
    foundation = parts.foundation
    if foundation is None or not parts.mace:
        return
    if foundation.model is not None and foundation.factory is None:
        named = [(("mace", FOUNDATION, "model"), foundation.name)]
        yield from unknown_models(named, folder, FOUNDATION_ONLY, short=())
    if foundation.replay_data is not None:
        yield from _no_file(("mace", FOUNDATION, "replay_data"), foundation.replay_data, folder)


def _given(parts: Parts, folder: Path) -> Iterator[Finding]:
    """Given models and datasets."""
    active = parts.active
    if active is not None:
        for model in active.initial_models or ():
            yield from _no_file((ACTIVE, "initial_models"), model, folder)
        for key, file in named_datasets(active):
            yield from _no_file((ACTIVE, key), file, folder)


def _test_set(parts: Parts, folder: Path) -> Iterator[Finding]:
    if parts.misc is not None and parts.misc.test_set is not None:
        yield from _no_file(("MISC", "test_set"), parts.misc.test_set, folder)


def _species(parts: Parts, folder: Path) -> Iterator[Finding]:
    for name in (INITIAL, ACTIVE) if parts.aims else ():
        section = parts.sections.get(name)
        if section is not None and section.species_dir is not None:
            path = folder / Path(section.species_dir).expanduser()
            if not path.is_dir():
                yield (name, "species_dir"), f"{section.species_dir}: {no_such(path, 'folder')}"


def _no_file(place: Place, file: str, folder: Path) -> Iterator[Finding]:
    path = folder / Path(file).expanduser()
    if not path.is_file():
        yield place, f"{file}: {no_such(path)}"


FILES: tuple[Look, ...] = (_potentials, _baseline, _pretraining, _foundation, _given, _test_set, _species)


# ---------------------------------------------------------------- read by other checks where all settings can be read


def _geometries(parts: Parts, folder: Path) -> Iterator[Finding]:
    try:
        read_systems(geometry_paths(parts.misc.path_to_geometry, folder))
    except SettingsError as error:
        yield ("MISC", "path_to_geometry"), str(error)


def _controls(parts: Parts, folder: Path) -> Iterator[Finding]:
    if not parts.aims:
        return
    written = parts.misc.path_to_control
    for file in dict.fromkeys(written.values() if isinstance(written, dict) else [written]):
        try:
            read_control(folder / Path(file).expanduser())
        except SettingsError as error:
            yield ("MISC", "path_to_control"), str(error)
