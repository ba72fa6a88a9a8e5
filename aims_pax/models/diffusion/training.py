"""Training of a diffusion model: AdamW, an average of the weights, and a state that continues bit for bit.

No generator outlives a step: the order of an epoch depends on (seed, epoch) and the noise of a step on (seed, step).
With a limit of epochs the weights at the end therefore do not depend on interruptions. With a limit of time the
learning rate follows the clock.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from aims_pax import seeds
from aims_pax.errors import Abandoned, SettingsError
from aims_pax.models.diffusion.atoms_graph import AtomsGraph
from aims_pax.models.diffusion.denoiser import Architecture, Denoiser
from aims_pax.settings.diffusion import DiffusionSettings

log = logging.getLogger(__name__)

VALID_ROUNDS = 4  # noise levels drawn for each held-out structure
AT_ONCE = 64  # held-out structures
WARM_UP = 50  # steps


class DiffusionTrainer:
    """A model in training. epoch and step count from the beginning; elapsed: seconds of training."""

    def __init__(self, architecture: Architecture, settings: DiffusionSettings) -> None:
        self.settings = settings
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeds.seed_number("diffusion", settings.seed, "weights"))
            self.denoiser = Denoiser(architecture)
        self.average = {k: v.clone() for k, v in self.denoiser.state_dict().items()}
        self.optimiser = torch.optim.AdamW(
            self.denoiser.parameters(), lr=settings.lr, weight_decay=0.01, fused=True
        )
        self.epoch = self.step = self.waited = 0
        self.elapsed, self.best, self.rate = 0.0, math.inf, settings.lr
        self.history: list[tuple[int, float, float]] = []  # (epoch, training loss, held-out loss)
        self.size = 0  # r of the last epoch
        self.left_out = 0  # steps of this epoch without a finite gradient

    def model(self) -> Denoiser:
        """A copy with the averaged weights, for sampling."""
        made = Denoiser(self.denoiser.architecture)
        made.load_state_dict(self.average)
        return made.eval()

    @property
    def progress(self) -> float:
        """How much of the limits is used up, from 0 to 1."""
        s = self.settings
        by_epoch = self.epoch / s.epochs if s.epochs > 0 else 0.0
        by_step = self.step / s.max_steps if s.max_steps > 0 else 0.0
        timed = s.seconds > 0 and s.epochs < 0 and s.max_steps == 0
        by_time = self.elapsed / s.seconds if timed else 0.0
        return min(1.0, max(by_epoch, by_step, by_time))

    @property
    def ended(self) -> bool:
        """Whether a limit is reached."""
        s = self.settings
        return self.progress >= 1 or (s.seconds > 0 and self.elapsed >= s.seconds)

    def run_epoch(
        self,
        graphs: Sequence[AtomsGraph],
        held_out: Sequence[AtomsGraph] = (),
        stop: Callable[[], bool] = bool,
    ) -> None:
        """One epoch, or the part of it that fits into the time. Raises Abandoned; the state is then of no use."""
        s = self.settings
        began, before = time.monotonic(), self.elapsed
        order = seeds.rng("diffusion", s.seed, "epoch", self.epoch).permutation(len(graphs))
        r = 1 if not s.repeat or not s.repeat_epoch else min(s.repeat, 1 + self.epoch // s.repeat_epoch)
        if s.repeat and r != self.size:
            log.info("epoch %d: structures are repeated %d × %d × 1", self.epoch, r, r)
        self.size = r
        losses, self.left_out = [], 0
        for batch in np.array_split(order, -(-len(order) // s.batch_size)):  # of nearly equal size
            if stop():
                raise Abandoned
            losses.append(self._step([graphs[k].repeated(r) for k in batch]))
            self.elapsed = before + time.monotonic() - began
            if (s.seconds and self.elapsed >= s.seconds) or self.step == s.max_steps:
                break
        if self.left_out == len(losses):
            raise SettingsError(
                f"epoch {self.epoch + 1}: no step had a finite gradient; lower lr, or look for broken structures"
            )
        self.epoch += 1
        mean = sum(losses) / len(losses)
        valid = math.nan
        if held_out and (self.epoch % s.log_interval == 0 or self.ended):
            valid = self.held_out_loss(held_out)
        self.history.append((self.epoch, mean, valid))
        self._adapt(valid if math.isfinite(valid) else mean)
        self.elapsed = before + time.monotonic() - began

    def held_out_loss(self, graphs: Sequence[AtomsGraph]) -> float:
        """The loss of the averaged weights at noise that is the same each time."""
        model, size = self.model(), max(self.settings.batch_size, AT_ONCE)
        g = _generator("diffusion", self.settings.seed, "held out")
        total = 0.0
        with torch.no_grad():
            for _ in range(VALID_ROUNDS):
                for k in range(0, len(graphs), size):  # all at once would need gigabytes for thousands
                    part = graphs[k : k + size]
                    total += len(part) * float(model.loss(part, g))
        return total / len(graphs) / VALID_ROUNDS

    def _step(self, graphs: Sequence[AtomsGraph]) -> float:
        s = self.settings
        factor = 0.5 * (1 + math.cos(math.pi * self.progress)) if s.lr_schedule == "cosine" else 1.0
        factor *= min(1.0, (self.step + 1) / WARM_UP)
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate * factor
        self.optimiser.zero_grad(set_to_none=True)
        loss = self.denoiser.loss(graphs, _generator("diffusion", s.seed, "step", self.step))
        if not bool(torch.isfinite(loss)):
            raise SettingsError(
                f"step {self.step}: the loss is {float(loss.detach())}; lower lr, or look for broken structures"
            )
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.denoiser.parameters(), s.gradient_clip_val)
        self.step += 1
        if not bool(torch.isfinite(norm)):  # clipping would make all weights NaN
            self.left_out += 1
            log.warning("step %d: the gradient is not finite; the step is left out", self.step)
            return float(loss.detach())
        self.optimiser.step()
        decay = min(s.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.denoiser.state_dict().items():
                self.average[name].lerp_(value, 1 - decay)
        return float(loss.detach())

    def _adapt(self, loss: float) -> None:
        """The learning rate of `plateau`."""
        if loss < self.best:
            self.best, self.waited = loss, 0
            return
        self.waited += 1
        if self.settings.lr_schedule == "plateau" and self.waited >= self.settings.lr_patience:
            self.rate, self.waited = self.rate * self.settings.lr_factor, 0

    def state(self) -> dict[str, Any]:
        """Everything that training depends on, as tensors and plain values; further steps do not change them."""
        return {
            "weights": {k: v.clone() for k, v in self.denoiser.state_dict().items()},
            "average": {k: v.clone() for k, v in self.average.items()},
            "optimiser": copy.deepcopy(self.optimiser.state_dict()),  # torch shares its tensors
            "counts": [self.epoch, self.step, self.waited, self.size],
            "numbers": [self.elapsed, self.best, self.rate],
            "history": [list(line) for line in self.history],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore from `state`, bit for bit."""
        self.denoiser.load_state_dict(state["weights"])
        self.average = {k: v.clone() for k, v in state["average"].items()}
        self.optimiser.load_state_dict(state["optimiser"])
        self.epoch, self.step, self.waited, self.size = state["counts"]
        self.elapsed, self.best, self.rate = state["numbers"]
        self.history = [(int(e), a, b) for e, a, b in state["history"]]


def _generator(*words: str | int) -> torch.Generator:
    return torch.Generator().manual_seed(seeds.seed_number(*words))
