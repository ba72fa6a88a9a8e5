"""Diffusion models behind the interface of all learners (`models.base.GenerativeModel`); labels are ignored."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from aims_pax.errors import RestartError
from aims_pax.frames import LabelledFrame
from aims_pax.models.base import (
    Arrays,
    GenerativeModel,
    MemberData,
    MemberResult,
    Words,
    after_training,
    never_stop_training,
)
from aims_pax.models.diffusion.atoms_graph import AtomsGraph
from aims_pax.models.diffusion.denoiser import Architecture, Denoiser
from aims_pax.models.diffusion.diffusion_sampler import DiffusionSampler
from aims_pax.models.diffusion.generation import Generating
from aims_pax.models.diffusion.model_files import FORMAT
from aims_pax.models.diffusion.training import DiffusionTrainer
from aims_pax.models.diffusion.training_data import (
    DataSummary,
    architecture_for,
    graphs_for,
    one_charge_and_spin,
    summarise,
)
from aims_pax.record.files import write_bytes
from aims_pax.settings.diffusion import DiffusionSettings
from aims_pax.systems import System


@dataclass(frozen=True)
class DiffusionMember:
    """name and seed of a member."""

    name: str
    seed: int


class DiffusionModel(GenerativeModel):
    """Members that differ in their seed. frames: structures that architecture and guard are made for."""

    def __init__(
        self, names: Sequence[str], frames: Sequence[LabelledFrame], settings: DiffusionSettings
    ) -> None:
        graphs = _graphs(frames, settings)
        self.architecture: Architecture = architecture_for(graphs, settings)
        self.data: DataSummary = summarise(graphs, one_charge_and_spin([f.frame for f in frames]))
        self.elements = self.architecture.vocabulary
        self.members = [DiffusionMember(name, settings.seed + k) for k, name in enumerate(names)]
        self.settings = settings
        self.trainers = [self._fresh(k) for k in range(len(names))]

    @property
    def trained(self) -> bool:
        return all(t.step > 0 for t in self.trainers)

    def train(
        self,
        data: Mapping[int, MemberData],
        epochs: int,
        *,
        words: Words | None = None,
        stop: Callable[[], bool] = never_stop_training,
        valid_skip: int = 1,
        schedule: bool = True,
        margin: float = 0.0,
        patience: int | None = None,
    ) -> list[MemberResult]:
        """One visit; its randomness is named by the seed of the member and its numbers of epochs and steps."""
        done: dict[int, DiffusionTrainer] = {}
        losses: dict[int, float] = {}
        for m, own in data.items():
            trainer = self._fresh(m)
            trainer.load_state(self.trainers[m].state())
            trainer.settings = trainer.settings.model_copy(
                update={"epochs": trainer.epoch + epochs, "lr_schedule": "cosine" if schedule else "plateau"}
            )
            graphs = _graphs(own.train, self.settings)
            for _ in range(epochs):
                trainer.run_epoch(graphs, (), stop)
            done[m], losses[m] = trainer, trainer.history[-1][1] if trainer.history else math.nan
        for m, trainer in done.items():
            self.trainers[m] = trainer
        self.version, self.visits = self.version + 1, self.visits + 1
        looks = zip(data, self.validate(data), strict=True)
        return [after_training(look, epochs, self.trainers[m].epoch, losses[m]) for m, look in looks]

    def validate(self, data: Mapping[int, MemberData]) -> list[MemberResult]:
        """The loss of the averaged weights; there are no energies and forces."""
        results = []
        for m, own in data.items():
            loss = (
                self.trainers[m].held_out_loss(_graphs(own.valid, self.settings)) if own.valid else math.nan
            )
            results.append(MemberResult(self.members[m].name, 0, math.nan, loss, math.nan, math.nan, None))
        return results

    def member_arrays(self, member: int) -> Arrays:
        state = self.trainers[member].state()
        arrays: Arrays = {f"weights/{k}": v.numpy().copy() for k, v in state["weights"].items()}
        arrays |= {f"average/{k}": v.numpy().copy() for k, v in state["average"].items()}
        for k, slots in state["optimiser"]["state"].items():
            arrays |= {
                f"optimiser/{k}/{name}": torch.as_tensor(v).numpy().copy() for name, v in slots.items()
            }
        arrays["counts"] = np.array(state["counts"])
        arrays["numbers"] = np.array(state["numbers"], float)
        arrays["history"] = np.array(state["history"], float).reshape(-1, 3)
        return arrays

    def load_member(self, member: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        trainer = self._fresh(member)
        state = trainer.state()
        for part in ("weights", "average"):
            found = {k.removeprefix(f"{part}/"): v for k, v in arrays.items() if k.startswith(f"{part}/")}
            own = {k: tuple(v.shape) for k, v in state[part].items()}
            if {k: v.shape for k, v in found.items()} != own:
                raise RestartError(
                    "the saved diffusion model has another architecture; undo the change of settings"
                )
            state[part] = {k: torch.from_numpy(np.array(v)) for k, v in found.items()}
        slots: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in arrays.items():
            if name.startswith("optimiser/"):
                _, k, slot = name.split("/")
                slots.setdefault(int(k), {})[slot] = torch.from_numpy(np.array(value))
        state["optimiser"]["state"] = slots
        state["counts"] = [int(n) for n in arrays["counts"]]
        state["numbers"] = [float(x) for x in arrays["numbers"]]
        state["history"] = [(int(e), float(a), float(b)) for e, a, b in arrays["history"]]
        trainer.load_state(state)
        self.trainers[member] = trainer

    def save(self, member: int, path: Path) -> None:
        """A checkpoint of plain values."""
        buffer = io.BytesIO()
        torch.save({"format": FORMAT, **self.trainers[member].state()}, buffer)
        write_bytes(path, buffer.getvalue())

    def describe(self, member: int) -> dict[str, Any]:
        return self.architecture.plain()

    def sampler(self, how: Generating | None = None) -> DiffusionSampler:
        """A sampler of the first member with its current averaged weights."""
        model: Denoiser = self.trainers[0].model()

        def of_all(system: System) -> tuple[Denoiser, DataSummary]:
            return model, self.data

        return DiffusionSampler(of_all, how or Generating())

    def _fresh(self, member: int) -> DiffusionTrainer:
        settings = self.settings.model_copy(update={"seed": self.members[member].seed})
        return DiffusionTrainer(self.architecture, settings)


def _graphs(frames: Sequence[LabelledFrame], settings: DiffusionSettings) -> list[AtomsGraph]:
    name = settings.conditioning
    rows = [(f.frame, {} if name is None else {name: _value(f, name)}) for f in frames]
    return graphs_for(rows, settings)


def _value(frame: LabelledFrame, name: str) -> float:
    return frame.label.energy if name == "energy" else float(frame.origin[name])
