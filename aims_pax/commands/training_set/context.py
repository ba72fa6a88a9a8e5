"""What the steps of `aims-PAX training-set` share: the file they write, the potential, what a result was made with."""

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

MADE_WITH = "made_with"  # attribute of a step's group: what it was made with, key by key


@dataclass(frozen=True)
class Basis:
    """What a step's result depends on: as a hash, and key by key for a person."""

    digest: str
    made_from: dict[str, str]

    @property
    def attributes(self) -> dict[str, str]:
        """What is kept of it beside the hash."""
        return {MADE_WITH: json.dumps(self.made_from)}


@dataclass
class TrainingSetContext:
    """What every step needs. Potentials are loaded once, when the first step asks."""

    settings: TrainingSet
    folder: Path
    watch: InterruptMonitor

    def __post_init__(self) -> None:
        self._potentials: dict[str, LoadedPotential] = {}

    def potential(self, spelling: Any, where: str = "calculator") -> LoadedPotential:
        """The potential a step names. where: the key it stands at."""
        if repr(spelling) not in self._potentials:
            self._potentials[repr(spelling)] = LoadedPotential.load(spelling, self.folder, where)
        return self._potentials[repr(spelling)]

    def calculator(self, name: str, section: Any) -> LoadedPotential:
        """The potential of the step `name`: its own, or the one at the top."""
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
        """What a step's result depends on. more: hashes of contents, by what they are of."""
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
