"""What the steps of `aims-PAX training-set` share: the HDF5 file, the potentials, the settings of each result."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aims_pax.engine.interrupts import InterruptMonitor
from aims_pax.potentials.named import LoadedPotential
from aims_pax.record.hdf5 import Hdf5
from aims_pax.record.provenance import flat_settings
from aims_pax.settings.training_set import (
    TrainingSet,
)

MADE_WITH = "made_with"  # attribute of a step's group: its settings, key by key


@dataclass(frozen=True)
class Basis:
    """The settings that determine a step's result: as a hash, and key by key for messages."""

    digest: str
    made_from: dict[str, str]

    @property
    def attributes(self) -> dict[str, str]:
        """What is stored in addition to the hash."""
        return {MADE_WITH: json.dumps(self.made_from)}


@dataclass
class TrainingSetContext:
    """What every step needs. Each potential is loaded once, when a step first needs it."""

    settings: TrainingSet
    folder: Path
    watch: InterruptMonitor

    def __post_init__(self) -> None:
        self._potentials: dict[str, LoadedPotential] = {}

    def potential(self, spelling: Any, where: str = "calculator") -> LoadedPotential:
        """The potential that a step names. where: its settings key, for errors."""
        if repr(spelling) not in self._potentials:
            self._potentials[repr(spelling)] = LoadedPotential.load(spelling, self.folder, where)
        return self._potentials[repr(spelling)]

    def calculator(self, name: str, section: Any) -> LoadedPotential:
        """The potential of the step `name`: its own, or the top-level one."""
        where = "calculator" if section.calculator is None else f"{name}.calculator"
        return self.potential(self.of(section, "calculator"), where)

    def of(self, section: Any, name: str) -> Any:
        return self.settings.of(section, name)

    def store(self, section: Any) -> Hdf5:
        return Hdf5(self.folder / self.of(section, "dataset"))

    def work_dir(self, section: Any) -> Path:
        return self.folder / str(self.of(section, "work_dir"))

    def check(self) -> None:
        self.watch.raise_if_stopped()

    def basis(self, name: str, section: Any, named: LoadedPotential, **more: str) -> Basis:
        """The basis of a step's result. more: content hashes, by name."""
        said = section.model_dump(
            mode="json", exclude={"calculator", "dataset", "work_dir", "crystal"}, fallback=repr
        )
        text = json.dumps([said, self.settings.seed, *more.values(), named.identity], sort_keys=True)
        known = {k: v for k, v in said.items() if k != "root_key"}
        contents = {k: f"contents {v[:16]}" for k, v in more.items()}
        made_from = flat_settings(
            {"seed": self.settings.seed, **contents, "calculator": named.described, name: known}
        )
        return Basis(hashlib.sha256(text.encode()).hexdigest(), made_from)
