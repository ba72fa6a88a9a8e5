"""All settings of one run, and the complete effective settings as one YAML document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from aims_pax.settings.active_learning import ActiveLearningSettings
from aims_pax.settings.augmentation import NAME as AUGMENTATION
from aims_pax.settings.augmentation import AugmentationSettings
from aims_pax.settings.cluster import ClusterSettings
from aims_pax.settings.fields import Section
from aims_pax.settings.foundation import FoundationSettings
from aims_pax.settings.initial_dataset import InitialDatasetSettings
from aims_pax.settings.mace import (
    ArchitectureSettings,
    GeneralSettings,
    MaceMiscSettings,
    MaceSettings,
    TrainingSettings,
)
from aims_pax.settings.md import MDSettings
from aims_pax.settings.misc import MiscSettings
from aims_pax.settings.model import NAME as MODEL
from aims_pax.settings.model import ModelKindSettings, ModelOfRun
from aims_pax.settings.pretraining import NAME as PRETRAINING
from aims_pax.settings.pretraining import PretrainingSettings
from aims_pax.settings.reference import ReferenceSettings
from aims_pax.settings.sampler_list import samplers_as_written as plain_samplers
from aims_pax.settings.samplers import NAME as SAMPLERS
from aims_pax.settings.samplers import REPLACED, SamplerSettings
from aims_pax.settings.yaml_reader import plain_word

PROJECT: dict[str, type[Section]] = {  # sections of aimsPAX.yaml, in the order they are shown
    "INITIAL_DATASET_GENERATION": InitialDatasetSettings,
    "ACTIVE_LEARNING": ActiveLearningSettings,
    "CLUSTER": ClusterSettings,
    "MD": MDSettings,
    "MISC": MiscSettings,
    "REFERENCE": ReferenceSettings,
    MODEL: ModelKindSettings,
    PRETRAINING: PretrainingSettings,
    AUGMENTATION: AugmentationSettings,
}
MACE: dict[str, type[Section]] = {  # sections of mace.yaml
    "GENERAL": GeneralSettings,
    "FOUNDATION": FoundationSettings,
    "ARCHITECTURE": ArchitectureSettings,
    "TRAINING": TrainingSettings,
    "MISC": MaceMiscSettings,
}


@dataclass(frozen=True, kw_only=True)
class LabellingSettings:
    """What is needed to label structures with the reference. Relative paths stay as written; `path` resolves them.

    species_dir: as the sections of aimsPAX.yaml have it, None where none does. mace: GENERAL and MISC count.
    """

    cluster: ClusterSettings
    misc: MiscSettings
    reference: ReferenceSettings
    mace: MaceSettings
    model_kind: ModelKindSettings = field(default_factory=ModelKindSettings)
    species_dir: str | None = None
    folder: Path = field(default=Path(), compare=False)  # absolute working folder
    warnings: tuple[str, ...] = field(default=(), compare=False)

    def path(self, value: str | Path) -> Path:
        """A path of the settings, resolved against the working folder."""
        return self.folder / Path(value).expanduser()

    @property
    def model(self) -> ModelOfRun:
        """Settings for models of every family."""
        return ModelOfRun(self.model_kind, self.mace)


@dataclass(frozen=True, kw_only=True)
class Settings(LabellingSettings):
    """All settings of a run."""

    initial_dataset: InitialDatasetSettings | None  # None: the section is absent
    active_learning: ActiveLearningSettings | None  # None: the section is absent
    md: MDSettings  # if there is a table for each system: the first table
    md_by_system: Mapping[str, MDSettings] = field(default_factory=dict)  # empty: `md` serves all
    # empty: initial_sampling of INITIAL_DATASET_GENERATION is used
    samplers: tuple[SamplerSettings, ...] = ()
    pretraining: PretrainingSettings | None = None  # None: the section is absent
    augmentation: AugmentationSettings | None = None  # None: the section is absent

    def md_of(self, system: str) -> MDSettings:
        """The MD settings of one system. Raises KeyError for a system that is not in the map."""
        return self.md_by_system[system] if self.md_by_system else self.md

    def on_device(self, device: str) -> Settings:
        """The same settings with the models on another device."""
        misc = self.mace.misc.model_copy(update={"device": device})
        return replace(self, mace=self.mace.model_copy(update={"misc": misc}))

    def with_training(self, **values: Any) -> Settings:
        """The same settings with other values in TRAINING of mace.yaml."""
        training = self.mace.training.model_copy(update=values)
        return replace(self, mace=self.mace.model_copy(update={"training": training}))

    def with_atomic_energies(self, energies: Mapping[str, float] | None) -> Settings:
        """The same settings with these energies of isolated atoms, {symbol: eV}; None: least squares."""
        known = None if energies is None else dict(energies)
        architecture = self.mace.architecture.model_copy(update={"atomic_energies": known})
        return replace(self, mace=self.mace.model_copy(update={"architecture": architecture}))

    @property
    def ensemble_size(self) -> int:
        """Number of members, from the section that is present."""
        section = self.active_learning or self.initial_dataset
        assert section is not None  # cross_checks requires one of the two sections
        return section.ensemble_size


def effective(settings: LabellingSettings) -> dict[str, Any]:
    """The complete settings with all defaults, as sections and keys of the two files.

    Settings of the reference alone have fewer sections.
    """
    mace = {"GENERAL": _table(settings.mace.general), "MISC": _table(settings.mace.misc)}
    if not isinstance(settings, Settings):
        named = (
            {} if settings.species_dir is None else {"ACTIVE_LEARNING": {"species_dir": settings.species_dir}}
        )
        sections = {"CLUSTER": settings.cluster, "MISC": settings.misc, "REFERENCE": settings.reference}
        return {"aimsPAX": named | {k: _table(v) for k, v in sections.items()}, "mace": mace}
    md = {k: _table(v) for k, v in settings.md_by_system.items()} or _table(settings.md)
    project: dict[str, Any] = {
        "INITIAL_DATASET_GENERATION": _table(settings.initial_dataset),
        "ACTIVE_LEARNING": _table(settings.active_learning),
        "CLUSTER": _table(settings.cluster),
        "MD": md,
        "MISC": _table(settings.misc),
        "REFERENCE": _table(settings.reference),
        MODEL: _table(settings.model_kind),
    }
    if settings.pretraining is not None:
        free = _table(settings.pretraining)
        project[PRETRAINING] = {**(free or {}), "samplers": plain_samplers(settings.pretraining.samplers)}
    if settings.augmentation is not None:
        project[AUGMENTATION] = _table(settings.augmentation)
    if settings.samplers:
        project[SAMPLERS] = plain_samplers(settings.samplers)
        first = project["INITIAL_DATASET_GENERATION"]
        project["INITIAL_DATASET_GENERATION"] = first and {
            k: v for k, v in first.items() if k not in REPLACED
        }
    foundation, architecture = _table(settings.mace.foundation), settings.mace.architecture
    mace = {
        "GENERAL": mace["GENERAL"],
        **({} if foundation is None else {"FOUNDATION": foundation}),
        "ARCHITECTURE": _written(architecture) if foundation else _table(architecture),
        "TRAINING": _table(settings.mace.training),
        "MISC": mace["MISC"],
    }
    return {"aimsPAX": {k: v for k, v in project.items() if v is not None}, "mace": mace}


def _written(section: Section) -> dict[str, Any]:
    """The keys that the user wrote: all others are those of the foundation model."""
    return {k: v for k, v in (_table(section) or {}).items() if k in section.model_fields_set}


def dump(settings: Settings) -> str:
    """`effective` as one YAML document that reads back to the same settings."""
    return as_yaml(effective(settings))


def as_yaml(data: Mapping[str, Any]) -> str:
    """Plain data as YAML without Python tags or anchors; several lines of text as a block."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100_000)


def _table(section: Section | None) -> dict[str, Any] | None:
    if section is None:
        return None
    return {name: _plain(getattr(section, name)) for name in type(section).model_fields}


def _plain(value: Any) -> Any:
    if isinstance(value, Section):
        return _table(value)
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value


class _Dumper(yaml.SafeDumper):
    """PyYAML's dumper, with quotes around every text that `plain_word` would not read as text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def text(self, data: str) -> yaml.ScalarNode:
        style = "|" if "\n" in data else None if isinstance(plain_word(data), str) else "'"
        if set(data) & set("\r\x85\u2028\u2029"):  # other line breaks survive only as escapes
            style = '"'
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _Dumper.text)
