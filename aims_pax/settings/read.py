"""Reads the two settings files of a folder and reports all mistakes at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError, create_model
from pydantic_core import ErrorDetails

from aims_pax.errors import SettingsError
from aims_pax.schedulers.registry import known_schedulers
from aims_pax.settings import cross_checks, pretraining, sampler_list, samplers
from aims_pax.settings.augmentation import NAME as AUGMENTATION
from aims_pax.settings.cluster import ClusterSettings, default_type
from aims_pax.settings.cross_warnings import WARNINGS
from aims_pax.settings.fields import Section
from aims_pax.settings.foundation import NAME as FOUNDATION
from aims_pax.settings.foundation import recipe_training
from aims_pax.settings.mace import STRESS_LOSS, ArchitectureSettings, MaceSettings, TrainingSettings
from aims_pax.settings.model import NAME as MODEL
from aims_pax.settings.pretraining import PretrainingSettings
from aims_pax.settings.settings import MACE, PROJECT, LabellingSettings, Settings
from aims_pax.settings.unused_keys import Parts, without_effect
from aims_pax.settings.yaml_reader import Document, Place, Problem, read_document
from aims_pax.suggestions import nearest

OPTIONAL = {"MISC", "REFERENCE", MODEL, "ARCHITECTURE", "TRAINING"}  # if absent: all keys have their defaults
# if absent: the run does not have that stage, or its models begin from random weights
MAY_BE_ABSENT = {
    "INITIAL_DATASET_GENERATION",
    "ACTIVE_LEARNING",
    pretraining.NAME,
    AUGMENTATION,
    FOUNDATION,
}
WORKER = "worker_str"  # commands, one a line
INEFFECTIVE = frozenset({"aims_lib_path", "parallel", "mol_idxs", "keep_checkpoints", "restart_latest"})


def read_settings(
    folder: Path | str,
    aims_pax_file: str = "aimsPAX.yaml",
    mace_file: str = "mace.yaml",
    *,
    for_run: bool = False,
) -> Settings:
    """The settings of a working folder. `for_run`: settings that this release cannot run are errors too.

    Raises SettingsError that lists all mistakes in both files, one per line:
    `aimsPAX.yaml:12: MD.timestep: …`.
    """
    folder = Path(folder).absolute()
    documents, broken = _documents(folder, aims_pax_file, mace_file)
    if not documents and not any((folder / file).exists() for file in (aims_pax_file, mace_file)):
        broken.append("    there is no run in this folder; aims-PAX init writes files to start from")
    reader = _Reader(documents, folder)
    settings = reader.settings(folder)
    problems = [*broken, *(str(p) for p in sorted(set(reader.problems)))]
    if settings is not None and not problems and for_run:
        problems = unsupported(settings)
    if problems or settings is None:
        raise SettingsError("\n".join(problems))
    return settings


def read_usable(folder: Path | str, aims_pax_file: str, mace_file: str) -> tuple[Parts, dict[str, Document]]:
    """What can be read of settings with mistakes, sections without their wrong keys; and the files that are YAML.

    As broken counts REFERENCE with any mistake, because it decides what other keys are needed for.
    """
    folder = Path(folder).absolute()
    documents, _ = _documents(folder, aims_pax_file, mace_file)
    reader = _Reader(documents, folder)
    reader.settings(folder)
    sections = {**reader.mace, **reader.project, "mace.MISC": reader.mace.get("MISC")}
    broken = reader.broken - (reader.usable.keys() - {"REFERENCE"})
    return Parts(sections | reader.usable, broken), documents


def _documents(folder: Path, aims_pax_file: str, mace_file: str) -> tuple[dict[str, Document], list[str]]:
    """The two files, and what is wrong with those that cannot be read."""
    documents: dict[str, Document] = {}
    broken: list[str] = []
    for label, file in ((cross_checks.PROJECT, aims_pax_file), (cross_checks.MACE, mace_file)):
        try:
            documents[label] = read_document(folder / file, str(file))
        except SettingsError as error:
            broken.append(str(error))
    return documents, broken


def read_sections(
    documents: dict[str, Document], used: Mapping[str, Sequence[str]], folder: Path
) -> LabellingSettings:
    """The settings of the reference, from these sections of two files that were read already; others are ignored.

    used: {file: names of sections}. Raises SettingsError that lists all mistakes in them.
    """
    reader = _Reader(documents, folder)
    settings = reader.labelling_settings(used, folder)
    if settings is None:
        raise SettingsError("\n".join(str(p) for p in sorted(set(reader.problems))))
    return settings


def unsupported(settings: LabellingSettings) -> list[str]:
    """Settings that this release cannot run yet, one message each."""
    found = []
    scheduler = settings.cluster.scheduler
    if settings.cluster.executor == "mpi" and (scheduler is None or scheduler.mpi_launcher is None):
        able = [name for name, s in known_schedulers().items() if s.mpi_launcher is not None]
        found.append(f"CLUSTER.executor: mpi needs CLUSTER.type: {' or '.join(able)}; use auto")
    return found


class _Reader:
    """Reads the sections one by one and collects problems and warnings."""

    def __init__(self, documents: dict[str, Document], folder: Path) -> None:
        self.documents = documents
        self.folder = folder
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.project: dict[str, Any] = {}
        self.mace: dict[str, Any] = {}
        self.broken: set[str] = set()  # sections with errors; mace.yaml's MISC as mace.MISC
        self.usable: dict[str, Section] = {}  # of these, the sections without their wrong keys

    def settings(self, folder: Path) -> Settings | None:
        """The settings, or None when there are problems."""
        self._read(cross_checks.PROJECT, PROJECT, self.project)
        self._samplers(folder)
        self._read(cross_checks.MACE, MACE, self.mace)
        own = {"mace.MISC": self.mace.get("MISC")}
        parts = Parts({**self.mace, **self.project, **own}, self.broken)
        self._check(parts)
        if self.problems or len(self.documents) < 2:
            return None
        self._recipe()
        md = self.project["MD"]
        initial, active = self.project["INITIAL_DATASET_GENERATION"], self.project["ACTIVE_LEARNING"]
        species = [s.species_dir for s in (initial, active) if s is not None and s.species_dir is not None]
        return Settings(
            initial_dataset=initial,
            active_learning=active,
            species_dir=species[0] if species else None,
            cluster=self.project["CLUSTER"],
            md=next(iter(md.values())),
            misc=self.project["MISC"],
            reference=self.project["REFERENCE"],
            mace=MaceSettings(
                general=self.mace["GENERAL"],
                architecture=self.mace["ARCHITECTURE"],
                training=recipe_training(self.mace[FOUNDATION], self.mace["TRAINING"]),
                misc=self.mace["MISC"],
                foundation=self.mace[FOUNDATION],
            ),
            md_by_system={} if "" in md else md,
            samplers=self.project[samplers.NAME],
            pretraining=self.project[pretraining.NAME],
            augmentation=self.project[AUGMENTATION],
            model_kind=self.project[MODEL],
            folder=folder,
            warnings=tuple(str(w) for w in sorted(set(self.warnings))),
        )

    def labelling_settings(self, used: Mapping[str, Sequence[str]], folder: Path) -> LabellingSettings | None:
        """What the reference needs, or None when there are problems. used: the sections to read of each file."""
        for label, sections, into in (
            (cross_checks.PROJECT, PROJECT, self.project),
            (cross_checks.MACE, MACE, self.mace),
        ):
            self._read(label, {name: sections[name] for name in used[label]}, into)
        absent = {name for name in (*PROJECT, *MACE) if name not in {*self.project, *self.mace}}
        parts = Parts({**self.mace, **self.project, "mace.MISC": self.mace.get("MISC")}, self.broken | absent)
        self._check(parts)
        if self.problems:
            return None
        return LabellingSettings(
            cluster=self.project["CLUSTER"],
            misc=self.project["MISC"],
            reference=self.project["REFERENCE"],
            mace=MaceSettings(
                general=self.mace["GENERAL"],
                architecture=ArchitectureSettings(),
                training=TrainingSettings(),
                misc=self.mace["MISC"],
            ),
            folder=folder,
            warnings=tuple(str(w) for w in sorted(set(self.warnings))),
        )

    def _read(self, label: str, sections: dict[str, type[Section]], into: dict[str, Any]) -> None:
        document = self.documents.get(label)
        if document is None:
            self.broken |= {_name(label, s) for s in sections}
            return
        for name in document.data:
            if name not in sections and (sections is not PROJECT or name != samplers.NAME):
                self.problems.append(document.problem((name,), _unknown_section(name, sections)))
        # REFERENCE first: what CLUSTER defaults to depends on it
        for name in sorted(sections, key=lambda s: s != "REFERENCE"):
            into[name] = None
            raw = document.data.get(name)
            if name == MODEL and isinstance(raw, str):
                raw = {"kind": raw}
            if name not in document.data and name in MAY_BE_ABSENT:
                continue
            if name not in document.data and name == "CLUSTER":
                into[name] = self._no_cluster(document)
                continue
            if name not in document.data and name not in OPTIONAL:
                self._broken(document, label, (name,), f"this section is mandatory. {_first(sections[name])}")
            elif raw is not None and not isinstance(raw, dict):
                self._broken(document, label, (name,), f"expected a table, got {raw!r}")
            else:
                into[name] = self._section(document, label, name, sections[name], dict(raw or {}))

    def _samplers(self, folder: Path) -> None:
        """Read the list SAMPLERS, each table with the settings class of its kind."""
        self.project[samplers.NAME] = ()
        document = self.documents.get(cross_checks.PROJECT)
        if document is None:
            self.broken.add(samplers.NAME)
        elif samplers.NAME in document.data:
            found, problems, oddities = sampler_list.read_samplers(document, folder)
            self.project[samplers.NAME] = found
            self.problems += problems
            self.warnings += oddities
            self.broken |= {samplers.NAME} if problems else set()

    def _section(
        self, document: Document, label: str, name: str, model: type[Section], raw: dict[Any, Any]
    ) -> Any:
        if name == "CLUSTER" and "type" not in raw and default_type(raw, not self._without_aims()) == "local":
            raw["type"] = "local"
        if name == pretraining.NAME:
            return self._pretraining(document, raw)
        if name != "MD":
            return self._validated(document, label, (name,), model, raw)
        if raw and all(isinstance(v, dict) for v in raw.values()):
            return {
                str(s): self._validated(document, label, (name, s), model, dict(t)) for s, t in raw.items()
            }
        return {"": self._validated(document, label, (name,), model, raw)}

    def _pretraining(self, document: Document, raw: dict[Any, Any]) -> Section | None:
        """The section with its list of samplers, each read with the settings class of its kind."""
        place = (pretraining.NAME, "samplers")
        written = raw.pop("samplers", None)
        section = self._validated(document, cross_checks.PROJECT, place[:1], PretrainingSettings, raw)
        if not written:
            return section
        found, problems, oddities = sampler_list.read_samplers(document, self.folder, place)
        self.warnings += oddities
        for k, one in enumerate(found):
            if one.needs_reference:
                text = f"{one.kind} makes structures with the reference, whose labels are not free; use another kind"
                problems = [*problems, document.problem((*place, k), text)]
            elif learns := one.without_reference():
                problems = [*problems, document.problem((*place, k), learns)]
        if problems:
            self.broken.add(pretraining.NAME)
        self.problems += problems
        return None if section is None else section.model_copy(update={"samplers": found})

    def _recipe(self) -> None:
        """Training after pre-training has smaller steps, unless the user has set the learning rate."""
        training = self.mace["TRAINING"]
        if self.project[pretraining.NAME] is not None and "lr" not in training.model_fields_set:
            self.mace["TRAINING"] = training.model_copy(update={"lr": pretraining.LR_AFTER})

    def _validated(
        self, document: Document, label: str, place: Place, model: type[Section], raw: dict[Any, Any]
    ) -> Section | None:
        table = self._renamed(document, label, place, model, raw)
        try:
            section = model.model_validate(table)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                inside = tuple(detail["loc"])
                self._broken(document, label, place + inside, _explained(detail, model, inside, label))
            if len(place) == 1 and (rest := _without_wrong_keys(model, table, error)) is not None:
                self.usable[_name(label, str(place[0]))] = rest
            return None
        for key, text in section.oddities():
            self.warnings.append(document.problem((*place, key), text))
        if (*place, WORKER) in document.joined and not re.search(";|&&", str(raw[WORKER])):
            text = "its lines are joined to one command; begin the text with | to keep them apart"
            self.warnings.append(document.problem((*place, WORKER), text))
        return section

    def _renamed(
        self, document: Document, label: str, place: Place, model: type[Section], raw: dict[Any, Any]
    ) -> dict[str, Any]:
        """The table with aliases resolved; obsolete keys of old files are removed with a warning."""
        table: dict[str, Any] = {}
        for written, value in raw.items():
            key = model.aliases.get(str(written), str(written))
            if key not in model.model_fields and (key in INEFFECTIVE or key.startswith("intermol_")):
                self.warnings.append(document.problem((*place, written), "has no effect; remove it"))
            elif key in table or (key != written and key in raw):
                self._broken(
                    document,
                    label,
                    (*place, written),
                    f"is another spelling of {key}, which is also set; keep one",
                )
            else:
                table[key] = value
                if key != written:  # messages about `key` point at the line of `written`
                    document.lines[(*place, key)] = document.line((*place, written))
        return table

    def _without_aims(self) -> bool:
        reference = self.project.get("REFERENCE")
        return reference is not None and reference.type != "aims"

    def _no_cluster(self, document: Document) -> ClusterSettings | None:
        if self._without_aims():
            return ClusterSettings(type="local")
        if "REFERENCE" not in self.broken:
            text = f"this section is mandatory when the reference is FHI-aims. {_first(ClusterSettings)}"
            active = self.project.get("ACTIVE_LEARNING")
            if active is not None and active.max_labels == 0:
                text = "mandatory for FHI-aims; as nothing is labelled (max_labels: 0), write REFERENCE: {type: given}"
            self._broken(document, cross_checks.PROJECT, ("CLUSTER",), text)
        self.broken.add("CLUSTER")
        return None

    def _check(self, parts: Parts) -> None:
        for label, place, text in cross_checks.findings(cross_checks.ERRORS, parts):
            if label in self.documents:
                self.problems.append(self.documents[label].problem(place, text))
        if self.problems:
            return
        for label, place, text in cross_checks.findings(WARNINGS, parts):
            if label in self.documents:
                self.warnings.append(self.documents[label].problem(place, text))
        training = self.mace.get("TRAINING") if parts.mace else None
        if training is not None and training.loss == "weighted" and parts.general.compute_stress:
            written = "loss" in training.model_fields_set
            self.mace["TRAINING"] = parts.sections["TRAINING"] = training.model_copy(
                update={"loss": STRESS_LOSS}
            )
            text = f"weighted has no stress term; the loss {STRESS_LOSS} is used, as compute_stress is True"
            if written:
                self.warnings.append(self.documents[cross_checks.MACE].problem(("TRAINING", "loss"), text))
        for name, system, key, why in without_effect(parts):
            of_mace = (name in MACE and name != "MISC") or name == "mace.MISC"
            document = self.documents[cross_checks.MACE if of_mace else cross_checks.PROJECT]
            section = name.removeprefix("mace.")
            place = (section, system, key) if system else (section, key)
            self.warnings.append(document.problem(place, f"has no effect: {why}"))

    def _broken(self, document: Document, label: str, place: Place, text: str) -> None:
        self.broken.add(_name(label, str(place[0])))
        self.problems.append(document.problem(place, text))


def _name(label: str, section: str) -> str:
    return f"{label}.{section}" if label == cross_checks.MACE and section == "MISC" else section


def _without_wrong_keys(
    model: type[Section], table: Mapping[str, Any], error: ValidationError
) -> Section | None:
    """The section from its other keys; None if these do not go together. Mandatory keys that are left out are None."""
    wrong = {str(detail["loc"][0]) for detail in error.errors() if detail["loc"]}
    rest = {key: value for key, value in table.items() if key not in wrong}
    absent: dict[str, Any] = {
        key: (Any, None)
        for key, field in model.model_fields.items()
        if field.is_required() and key not in rest
    }
    try:
        return create_model(model.__name__, __base__=model, **absent).model_validate(rest)
    except ValidationError:
        return None


def _explained(detail: ErrorDetails, model: type[Section], inside: Place, label: str) -> str:
    """One validation error as text."""
    if detail["type"] == "extra_forbidden":
        return _unknown_key(str(inside[-1]), _inner(model, inside[:-1]), model, label)
    if detail["type"] == "missing":
        field = _inner(model, inside[:-1]).model_fields[str(inside[-1])]
        return f"mandatory. {field.description}"
    if detail["type"] == "model_type":
        return f"expected a table, got {detail['input']!r}"
    error = detail.get("ctx", {}).get("error")
    return str(error) if error is not None else detail["msg"]


def _inner(model: type[Section], inside: Place) -> type[Section]:
    """The class of a table within a section, found through the annotation."""
    for name in inside:
        annotation = model.model_fields[str(name)].annotation
        arguments = getattr(annotation, "__args__", (annotation,))
        model = next(a for a in arguments if isinstance(a, type) and issubclass(a, Section))
    return model


def _unknown_key(key: str, table: type[Section], section: type[Section], label: str) -> str:
    own = [*table.model_fields, *table.aliases]
    near = nearest(key, own)
    elsewhere: dict[str, str] = {}
    for file, sections in ((cross_checks.PROJECT, PROJECT), (cross_checks.MACE, MACE)):
        for name, model in sections.items():
            if model is not section:
                where = name if file == label else f"{name} of {file}.yaml"
                elsewhere |= {k: where for k in (*model.model_fields, *model.aliases) if k not in elsewhere}
    if key in elsewhere:
        return f"unknown key here; it belongs to {elsewhere[key]}"
    if near is not None:
        return f"unknown key; nearest key: {table.aliases.get(near, near)}"
    far = nearest(key, elsewhere)
    return "unknown key" + (
        f"; nearest key: {far} in {elsewhere[far]}" if far else f"; known: {', '.join(own)}"
    )


def _unknown_section(name: str, sections: dict[str, type[Section]]) -> str:
    homes = [s for s, model in sections.items() if name in model.model_fields or name in model.aliases]
    if homes:
        return f"is not a section; it belongs under {' or '.join(homes)}"
    others = PROJECT if sections is MACE else MACE
    if name in others:
        return f"unknown section here; it belongs to {'aimsPAX.yaml' if others is PROJECT else 'mace.yaml'}"
    near = nearest(name, [*sections, samplers.NAME] if sections is PROJECT else sections)
    return "unknown section; " + (f"nearest: {near}" if near else f"expected {', '.join(sections)}")


def _first(model: type[Section]) -> str:
    return (model.__doc__ or "").partition(":")[0] and f"It needs: {', '.join(_needed(model))}"


def _needed(model: type[Section]) -> list[str]:
    return [k for k in model.model_fields if model.meaning(k).mandatory]
