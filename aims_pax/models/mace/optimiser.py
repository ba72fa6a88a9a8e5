"""The optimiser: parameter groups, learning rate schedule, and their state as arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from aims_pax.frames import Array
from aims_pax.models.mace.mace_import import MaceModel

if TYPE_CHECKING:
    from aims_pax.settings.mace import TrainingSettings

Arrays = dict[str, np.ndarray[Any, Any]]

FUSED = ("cpu", "cuda")  # devices on which torch updates all parameters in one kernel, several times faster


def make_optimiser(model: MaceModel, training: TrainingSettings) -> torch.optim.Optimizer:
    """Adam or AdamW with MACE's groups: weight decay on products and on the linear layers of interactions."""
    decayed: list[torch.nn.Parameter] = []
    free: list[torch.nn.Parameter] = []
    for name, parameter in model.interactions.named_parameters():
        (decayed if "linear.weight" in name or "skip_tp_full.weight" in name else free).append(parameter)
    decay = training.weight_decay
    groups: list[dict[str, Any]] = [
        {"params": list(model.node_embedding.parameters()), "weight_decay": 0.0},
        {"params": decayed, "weight_decay": decay},
        {"params": free, "weight_decay": 0.0},
        {"params": list(model.products.parameters()), "weight_decay": decay},
        {"params": list(model.readouts.parameters()), "weight_decay": 0.0},
    ]
    kind = torch.optim.AdamW if str(training.optimizer).lower() == "adamw" else torch.optim.Adam
    fused = next(model.parameters()).device.type in FUSED
    optimiser = kind(groups, lr=training.lr, amsgrad=bool(training.amsgrad), fused=fused)
    optimiser.register_step_pre_hook(_lay_out)
    optimiser.register_step_post_hook(_tell)
    return optimiser


def _lay_out(optimiser: torch.optim.Optimizer, *_: Any) -> None:
    """Copy gradients to the memory layout of their parameters: the fused kernel ignores the strides of gradients."""
    for group in optimiser.param_groups:
        for p in group["params"]:
            if p.grad is not None and p.grad.stride() != p.stride():
                p.grad = torch.empty_like(p).copy_(p.grad)


def _tell(optimiser: torch.optim.Optimizer, *_: Any) -> None:
    """Increment the version of parameters: the fused kernel does not, and caches of weights depend on it."""
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            torch.autograd.graph.increment_version(parameter)


def optimiser_arrays(optimiser: torch.optim.Optimizer, names: Mapping[torch.Tensor, str]) -> Arrays:
    """Moments and step counts by parameter name, except for parameters that were never updated."""
    arrays: Arrays = {}
    for parameter, state in optimiser.state.items():
        for key, value in state.items():
            arrays[f"{key}/{names[parameter]}"] = torch.as_tensor(value).detach().cpu().numpy().copy()
    return arrays


def load_optimiser(
    optimiser: torch.optim.Optimizer, arrays: Arrays, parameters: Mapping[str, torch.nn.Parameter]
) -> None:
    """Restore from `optimiser_arrays`, bit for bit.

    If AMSGrad was switched on since, its largest second moments begin with the present ones.
    """
    optimiser.state.clear()
    for word, value in arrays.items():
        key, _, name = word.partition("/")
        parameter = parameters[name]
        known = torch.from_numpy(np.array(value)).to(parameter.device)
        if known.shape == parameter.shape:  # moments, in the memory layout of the parameter (see `_lay_out`)
            known = torch.empty_like(parameter, dtype=known.dtype, requires_grad=False).copy_(known)
        optimiser.state[parameter][key] = known
    if optimiser.defaults["amsgrad"]:
        for state in optimiser.state.values():
            state.setdefault("max_exp_avg_sq", state["exp_avg_sq"].clone())


class Schedule:
    """The learning rate. ReduceLROnPlateau: times lr_factor after more than scheduler_patience validations
    without a relative improvement of 1e-4; ExponentialLR: times lr_scheduler_gamma each epoch.
    """

    def __init__(self, training: TrainingSettings) -> None:
        self.plateau = str(training.scheduler) == "ReduceLROnPlateau"
        self.factor, self.patience = training.lr_factor, training.scheduler_patience
        self.gamma = training.lr_scheduler_gamma
        self.lr = self.initial = float(training.lr)
        self.best, self.bad = math.inf, 0

    def after_validation(self, loss: float, comparable: bool = True) -> None:
        """Update the learning rate after a validation with this loss (any unit).

        comparable: False if the validation set is not that of the best loss, so that this loss is the best of its set
        and neither an improvement nor a failure.
        """
        if not self.plateau:
            return
        if not comparable:
            self.best = math.inf if math.isnan(loss) else loss
        elif loss < self.best * (1 - 1e-4):
            self.best, self.bad = loss, 0
        else:
            self.bad += 1
        if self.bad > self.patience:
            self.lr, self.bad = self.lr * self.factor, 0

    def after_epoch(self) -> None:
        """Update the learning rate after an epoch."""
        if not self.plateau:
            self.lr *= self.gamma

    def apply(self, optimiser: torch.optim.Optimizer) -> None:
        """Set the learning rate of every group."""
        for group in optimiser.param_groups:
            group["lr"] = self.lr

    def forget_best(self) -> None:
        """Forget the best loss, with which those of another loss function cannot be compared."""
        self.best, self.bad = math.inf, 0

    def array(self) -> Array:
        """(4,): lr, best, bad, initial lr."""
        return np.array([self.lr, self.best, self.bad, self.initial])

    def load(self, array: Array) -> None:
        """Restore from `array`; begin with TRAINING.lr if it has changed. Older versions wrote no initial lr."""
        initial = float(array[3]) if len(array) > 3 else self.initial
        if initial == self.initial:
            self.lr, self.best, self.bad = float(array[0]), float(array[1]), int(array[2])
