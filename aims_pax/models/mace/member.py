"""One model of the committee, with the complete state of its training."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from aims_pax.errors import RestartError
from aims_pax.frames import Array
from aims_pax.models.mace.build import elements_of, set_statistics
from aims_pax.models.mace.ema_swa import EqualWeightMean, ExponentialMovingAverage
from aims_pax.models.mace.graphs import LabelledGraph
from aims_pax.models.mace.mace_import import MaceModel, quiet
from aims_pax.models.mace.optimiser import Arrays, Schedule, load_optimiser, make_optimiser, optimiser_arrays
from aims_pax.models.mace.statistics import Statistics, as_stored

if TYPE_CHECKING:
    from aims_pax.settings.mace import MaceSettings


@dataclass(frozen=True)
class Validation:
    """Errors of the averaged weights on a validation set: loss as defined in MACE, mean absolute errors of energy
    (eV/atom), forces (eV/Å) and stress (eV/Å³, None without stress).
    """

    loss: float
    energy_mae: float
    force_mae: float
    stress_mae: float | None


UNSEEN = Validation(math.nan, math.nan, math.nan, None)


@dataclass(frozen=True, eq=False)
class Beginning:
    """What a fine-tuned member begins from: the foundation model, not perturbed, and its statistics."""

    model: MaceModel
    statistics: Statistics


class ValidationProgress:
    """Progress of validation in this phase: the best loss, and the number of validations since.

    A validation counts as improvement when best − loss > margin. After the validation set has changed, its loss cannot
    be compared with the old one: it becomes the new best loss and does not count as improvement or failure.
    """

    def __init__(self) -> None:
        self.best, self.stale, self.frames = math.inf, 0, 0

    def comparable(self, frames: int) -> bool:
        """Whether a loss on this many frames can be compared with the best one."""
        return self.frames in (0, frames)

    def look(self, loss: float, frames: int, margin: float) -> bool:
        """Record a validation loss on this many frames; True if it is an improvement."""
        if not self.comparable(frames):
            self.best, self.frames = math.inf if math.isnan(loss) else loss, frames
            return False
        self.frames = frames
        if self.best - loss > margin:
            self.best, self.stale = loss, 0
            return True
        self.stale += 1
        return False

    def array(self) -> Array:
        return np.array([self.best, self.stale, self.frames])

    def load(self, array: Array) -> None:
        self.best, self.stale, self.frames = float(array[0]), int(array[1]), int(array[2])


class Member:
    """A model with its optimiser, learning rate, moving average and statistics.

    begun_from: the foundation model that the weights come from; None: they began from random numbers.
    replay: structures with labels of the foundation model, of which each epoch has a part (`recipe: replay`).
    `swa` averages the raw weights at the ends of the epochs since the best validation of this phase (stochastic weight
    averaging). `seen` is the result of the last validation.
    """

    def __init__(self, name: str, seed: int, model: MaceModel, settings: MaceSettings) -> None:
        self.name, self.seed, self.model, self.settings = name, seed, model, settings
        self.elements = elements_of(model)
        named = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.parameters = named
        self.names: dict[torch.Tensor, str] = {p: n for n, p in named.items()}
        self.weights: list[torch.nn.Parameter] = list(named.values())
        self.dtype = self.weights[0].dtype
        self.device = self.weights[0].device
        self.statistics: Statistics | None = None
        self.begun_from: Beginning | None = None
        self.replay: Sequence[LabelledGraph] = ()
        training = settings.training
        self.average = ExponentialMovingAverage(
            self.weights, float(training.ema_decay) if training.ema else None
        )
        self.epochs = 0
        self.seen = UNSEEN
        self.reset_optimiser_and_ema()

    def reset_optimiser_and_ema(self) -> None:
        """Continue from the averaged weights, with a new optimiser, average, learning rate and progress."""
        self.average.adopt()
        self.average.restart()
        self.progress = ValidationProgress()
        self.swa = EqualWeightMean()
        self.fresh_optimiser()

    def fresh_optimiser(self) -> None:
        """Reset moments and learning rate; the weights do not change."""
        self.optimiser = make_optimiser(self.model, self.settings.training)
        self.schedule = Schedule(self.settings.training)

    def freeze(self, statistics: Statistics) -> None:
        """Set the statistics, also in the model."""
        self.statistics = statistics
        set_statistics(self.model, statistics)

    def shift_offsets(self, E0: Array | None = None, shift: float | None = None) -> None:
        """Replace the atomic energies (Z,) eV or the common shift, eV/atom."""
        assert self.statistics is not None
        if E0 is not None:
            self.freeze(replace(self.statistics, E0=as_stored(E0, self.dtype)))
        if shift is not None:
            self.freeze(replace(self.statistics, shift=float(as_stored(np.array(shift), self.dtype))))

    @torch.no_grad()
    def set_weights(self, values: Sequence[torch.Tensor]) -> None:
        """Set both the weights and their average to these values."""
        for weight, shadow, value in zip(self.weights, self.average.shadow, values, strict=True):
            weight.copy_(value)
            shadow.copy_(value)

    def finite(self) -> bool:
        """Whether weights and average have no NaN and no infinity."""
        tensors = [*self.weights, *self.average.shadow]
        return bool(torch.stack([torch.isfinite(t.detach()).all() for t in tensors]).all())

    def frozen_copy(self) -> MaceModel:
        """A copy of the model with the averaged weights, for inference or a file."""
        file = io.BytesIO()  # through a file in memory: copy.deepcopy fails on MACE's empty parameters
        with quiet(), self.average.in_place():
            torch.save(self.model, file)
            file.seek(0)
            model = torch.load(file, map_location=self.device, weights_only=False)
        return model.eval().requires_grad_(False)

    @torch.no_grad()
    def refresh(self, model: MaceModel) -> None:
        """Update an earlier `frozen_copy` in place."""
        own = dict(model.named_parameters())
        for name, shadow in zip(self.parameters, self.average.shadow, strict=True):
            own[name].copy_(shadow)
        if self.statistics is not None:
            set_statistics(model, self.statistics)

    def arrays(self) -> Arrays:
        """The complete state as arrays: bit-exact copies, without constants."""
        out: Arrays = {f"param/{n}": _numpy(p) for n, p in self.parameters.items()}
        out |= self._named("ema", self.average.shadow)
        out |= {f"optim/{k}": v for k, v in optimiser_arrays(self.optimiser, self.names).items()}
        out["schedule"] = self.schedule.array()
        out["progress"] = self.progress.array()
        out["loss"] = np.array(_loss_in_words(self.settings))
        out["counts"] = np.array([self.average.updates, self.epochs, self.swa.epochs])
        out["seen"] = np.array([math.nan if x is None else x for x in astuple(self.seen)])
        if self.swa.sum is not None:
            out |= self._named("tail", self.swa.sum)  # its name in snapshots
        s = self.statistics
        if s is not None:
            out["statistics/E0"] = np.array(s.E0)
            out["statistics/numbers"] = np.array([s.avg_num_neighbors, s.scale, s.shift, s.rank])
            out["statistics/source"] = np.array(s.source)
        return out

    def load(self, arrays: Arrays) -> None:
        """Restore from `arrays`. Raises RestartError when they are of another architecture."""
        groups: dict[str, Arrays] = {}
        for word, value in arrays.items():
            head, _, rest = word.partition("/")
            groups.setdefault(head, {})[rest] = value
        self._check(groups.get("param", {}))
        with torch.no_grad():
            for n, p in self.parameters.items():
                p.copy_(torch.from_numpy(groups["param"][n]))
        self.average.shadow = self._tensors(groups["ema"])
        self.fresh_optimiser()
        load_optimiser(self.optimiser, groups.get("optim", {}), self.parameters)
        self.schedule.load(arrays["schedule"])
        self.schedule.apply(self.optimiser)
        self.progress.load(arrays["progress"])
        own = _loss_in_words(self.settings)
        # its values cannot be compared with those of the earlier loss
        if str(arrays.get("loss", own)) != own:
            self.progress = ValidationProgress()
            self.schedule.forget_best()
        self.average.updates, self.epochs, self.swa.epochs = (int(n) for n in arrays["counts"])
        loss, energy, force, stress = (float(x) for x in arrays["seen"])
        self.seen = Validation(loss, energy, force, None if math.isnan(stress) else stress)
        self.swa.sum = self._tensors(groups["tail"]) if "tail" in groups else None
        self.statistics = None
        if "statistics" in groups:
            s = groups["statistics"]
            neighbours, scale, shift, rank = (float(x) for x in s["numbers"])
            self.freeze(Statistics(np.array(s["E0"]), neighbours, scale, shift, str(s["source"]), int(rank)))

    def weights_arrays(self) -> Arrays:
        """The arrays that predictions depend on: averaged weights and offsets."""
        out = self._named("ema", self.average.shadow)
        if self.statistics is not None:
            out["E0"] = np.array(self.statistics.E0)
            out["shift"] = np.array(self.statistics.shift)
        return out

    def set_weights_arrays(self, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Restore from `weights_arrays`; the raw weights are set to the averaged ones."""
        own = {w.removeprefix("ema/"): np.asarray(a) for w, a in arrays.items() if w.startswith("ema/")}
        self._check(own)
        self.set_weights(self._tensors(own))
        if "E0" in arrays:
            self.shift_offsets(np.array(arrays["E0"]), float(arrays["shift"]))

    def _check(self, parameters: Arrays) -> None:
        here = {n: tuple(p.shape) for n, p in self.parameters.items()}
        there = {n: tuple(a.shape) for n, a in parameters.items()}
        kinds = {a.dtype for a in parameters.values()}
        if here != there or kinds != {_numpy(self.weights[0]).dtype}:
            raise RestartError(
                f"the saved weights of {self.name} belong to another architecture, other elements or another "
                "default_dtype: undo the change in mace.yaml or of the geometries, or begin in another folder"
            )

    def _named(self, word: str, tensors: Sequence[torch.Tensor]) -> Arrays:
        return {f"{word}/{n}": _numpy(t) for n, t in zip(self.parameters, tensors, strict=True)}

    def _tensors(self, arrays: Arrays) -> list[torch.Tensor]:
        return [torch.from_numpy(np.array(arrays[n])).to(self.device) for n in self.parameters]


def _loss_in_words(settings: MaceSettings) -> str:
    """The settings that the value of the loss depends on."""
    keys = (
        "loss",
        "energy_weight",
        "forces_weight",
        "stress_weight",
        "virials_weight",
        "config_type_weights",
    )
    return " ".join(f"{key}={getattr(settings.training, key)}" for key in keys)


def _numpy(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    return tensor.detach().cpu().numpy().copy()
