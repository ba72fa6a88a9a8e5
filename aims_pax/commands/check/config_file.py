"""`aims-PAX check FILE`: validates the file of `aims-PAX sample`, `augment` or `training-set` without running it.

The keys of the file show which command it is for. Paths are relative to the current folder, as in these commands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aims_pax.commands import augment, sample
from aims_pax.commands.check.readiness import importable, missing_extras, unknown_elements
from aims_pax.errors import SettingsError
from aims_pax.frames import Frame
from aims_pax.settings.augment import SECTIONS, CallSpec, read_augment
from aims_pax.settings.bundled_models import missing_packages, unsuitable_structures
from aims_pax.settings.callables import odd_arguments, unknown_models, wrong_callables
from aims_pax.settings.fields import Section
from aims_pax.settings.geometry_rules import notes_of_crystal, refused_by_samplers
from aims_pax.settings.sample import SampleSettings, read_sample
from aims_pax.settings.sampler_list import calls, models, potentials, samplers_as_written
from aims_pax.settings.samplers import NAME, SamplerSettings
from aims_pax.settings.settings import MACE, PROJECT, as_yaml
from aims_pax.settings.training_set import STEPS, TrainingSet, read_training_set
from aims_pax.settings.yaml_reader import Document, Place, read_document
from aims_pax.systems import System, geometry_paths, read_crystal, read_systems

KEYS: dict[str, set[str]] = {
    "sample": {*SampleSettings.model_fields, "MD", NAME},
    "augment": set(SECTIONS),
    "training-set": set(TrainingSet.model_fields),
    "a run": {*PROJECT, *MACE, NAME},
}
NEEDS = {  # packages of the extra `crystals` by the step that needs them
    "md_sampling": ("h5py",),
    "quasi_harmonic": ("h5py", "phonopy"),
    "phonon_sampling": ("h5py", "phonopy"),
    "delta_learning": ("h5py",),
}
Finding = tuple[Place, str]


@dataclass
class FoundFile:
    """Content of a file. complete: its effective settings. callables: all potentials that are calls, by place."""

    kind: str
    complete: Mapping[str, Any]
    warnings: list[str]
    systems: tuple[System, ...] = ()
    callables: list[tuple[Place, CallSpec]] = field(default_factory=list)
    others: list[tuple[Place, str, Mapping[str, Any]]] = field(default_factory=list)  # not potentials
    models: list[tuple[Place, str]] = field(default_factory=list)
    problems: list[Finding] = field(default_factory=list)
    samplers: tuple[SamplerSettings, ...] = ()

    @property
    def text(self) -> str:
        """The effective settings as YAML that can be read again."""
        return as_yaml(self.complete)


def checked_config_file(path: Path) -> FoundFile:
    """The content of the file. Raises SettingsError that lists all errors."""
    document, folder = read_document(path, str(path)), Path.cwd()
    kind = kind_of(document)
    found = _READERS[kind](path, document)
    wanted = [
        *found.others,
        *((p, c.target, c.kwargs) for p, c in found.callables if ":" in c.target and not c.args),
    ]
    findings = [
        *found.problems,
        *wrong_callables(wanted, folder),
        *unknown_models(found.models, folder),
        *missing_extras(found.samplers, found.callables),
        *missing_packages(found.models),
        *unsuitable_structures(found.models, found.systems),
        *unknown_elements(found.models, found.systems, folder),
    ]
    if findings:
        raise SettingsError("\n".join(str(document.problem(*finding)) for finding in findings))
    found.warnings += [str(document.problem(*finding)) for finding in odd_arguments(wanted, folder)]
    return found


def kind_of(document: Document) -> str:
    """`sample`, `augment` or `training-set`, by the keys it shares with each. Raises SettingsError for others."""
    shared = {kind: len(keys & set(document.data)) for kind, keys in KEYS.items()}
    kind = max(shared, key=lambda k: shared[k])
    if not shared[kind]:
        raise SettingsError(
            f"{document.file}: none of its keys is known; expected the folder of a run, or the file of aims-PAX "
            "sample, augment or training-set"
        )
    if kind == "a run":
        raise SettingsError(
            f"{document.file}: belongs to a run; name its folder (aims-PAX check FOLDER), and files with other names "
            "with --aimsPAX-settings and --mace-settings"
        )
    return kind


# ---------------------------------------------------------------- the three kinds of files


def _sample(path: Path, document: Document) -> FoundFile:
    settings = read_sample(path)
    keys = settings.keys
    # `seed` is used for all random numbers
    md = {k: v for k, v in _table(settings.md).items() if k != "MD_seed"}
    complete = {**_table(keys), "MD": md, NAME: samplers_as_written(settings.samplers)}
    found = FoundFile("sample", complete, list(settings.warnings), samplers=settings.samplers)
    with _noting(found, "output"):
        sample.check_sample_output(Path.cwd() / Path(keys.output).expanduser())
    with _noting(found, "path_to_geometry"):
        found.systems = read_systems(geometry_paths(keys.path_to_geometry, Path()))
        found.warnings += sample.geometry_warnings(settings, found.systems)
        found.problems += refused_by_samplers(settings.samplers, found.systems)
    for k, one in enumerate(settings.samplers):
        if text := one.without_reference():
            found.problems.append(((NAME, k, "kind"), text))
    found.callables, found.models = calls(settings.samplers), models(settings.samplers)
    known = {place for place, _ in found.callables}
    found.others = [one for one in potentials(settings.samplers) if one[0] not in known]
    return found


def _augment(path: Path, document: Document) -> FoundFile:
    settings = read_augment(path)
    raw = document.data
    complete = {name: _table(getattr(settings, name), raw[name]) for name in SECTIONS}
    found = FoundFile("augment", complete, list(settings.warnings))
    source, target = Path(settings.data.input), Path(settings.data.output)
    with _noting(found, "data", "output"):
        augment.check_augmented_output(source, target)
    with _noting(found, "data", "input"):
        systems = augment.read_starting_structures(source, settings.config.cell_sigma is not None)
        found.systems = tuple(System(f"structure {k}", one.frame) for k, one in enumerate(systems))
        found.warnings += augment.notes_of(systems)
    _put(found, ("model", "calculator"), settings.model.calculator)
    return found


def _training_set(path: Path, document: Document) -> FoundFile:
    settings, warnings = read_training_set(path)
    complete = {
        name: value
        for name, value in _table(settings, document.data).items()
        if name not in STEPS or value is not None  # a step that is written without keys has its defaults
    }
    found = FoundFile("training-set", complete, list(warnings))
    for name, needed in NEEDS.items():
        if getattr(settings, name) is not None:
            found.problems += [
                ((name,), f"needs {m}: pip install 'aims-pax[crystals]'") for m in needed if not importable(m)
            ]
    crystals: dict[str, tuple[Place, Frame]] = {}
    for name in STEPS:
        section = getattr(settings, name)
        if section is None:
            continue
        own = (name,) if section.calculator is not None else ()
        used = section.baseline is None if name == "delta_learning" else True
        if used:
            _put(found, (*own, "calculator"), settings.of(section, "calculator"))
        if name in ("md_sampling", "quasi_harmonic"):
            place = (*((name,) if section.crystal is not None else ()), "crystal")
            written = str(settings.of(section, "crystal"))
            with _noting(found, *place):
                crystal = read_crystal(Path(written), section.cell_change)
                if written not in crystals:
                    crystals[written] = place, crystal.frame
                    found.warnings += notes_of_crystal(crystal)
    delta = settings.delta_learning
    if delta is not None:
        for key in ("target", "baseline"):
            _put(found, ("delta_learning", key), getattr(delta, key))
    found.systems = tuple(System(name, frame) for name, (_, frame) in crystals.items())
    return found


_READERS: dict[str, Callable[[Path, Document], FoundFile]] = {
    "sample": _sample,
    "augment": _augment,
    "training-set": _training_set,
}


def _put(found: FoundFile, place: Place, potential: CallSpec | str | None) -> None:
    """Add a potential to the callables or models, once for each place."""
    if isinstance(potential, str) and (place, potential) not in found.models:
        found.models.append((place, potential))
    elif (
        isinstance(potential, CallSpec) and potential.called and place not in [p for p, _ in found.callables]
    ):
        found.callables.append((place, potential))


@contextmanager
def _noting(found: FoundFile, *place: str) -> Iterator[None]:
    """Record a SettingsError as a finding at its key."""
    try:
        yield
    except SettingsError as error:
        found.problems.append((place, str(error).removeprefix(f"{'.'.join(place)}: ")))


def _table(section: Section, raw: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """All keys of a section, potentials as they were written."""
    table: dict[str, Any] = {}
    for name in type(section).model_fields:
        value, written = getattr(section, name), (raw or {}).get(name)
        if isinstance(value, Section):
            table[name] = _table(value, written)
        elif isinstance(value, CallSpec):
            table[name] = written
        else:
            table[name] = list(value) if isinstance(value, tuple) else value
    return table
