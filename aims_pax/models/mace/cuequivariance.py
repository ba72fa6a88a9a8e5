"""Inference with cuEquivariance (extra `cueq`, GPUs): models converted by MACE's own converter.

Conversion is slow (it recomputes the couplings), so each model is converted once; later only new weights are
transferred. After each change, forces are compared with those of plain torch on the current structures.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Any

import torch

from aims_pax.errors import SettingsError
from aims_pax.models.mace.build import share_energies
from aims_pax.models.mace.graphs import EdgeGraph
from aims_pax.models.mace.inference import Evaluator, EvaluatorMaker, TorchEvaluator, cut, torch_evaluator
from aims_pax.models.mace.mace_import import MaceModel, default_dtype, quiet
from aims_pax.settings.inference_support import CUEQ_PACKAGES

log = logging.getLogger(__name__)

ABSOLUTE, RELATIVE = 1e-5, 1e-6  # tolerance of a force: eV/Å, and share of the largest force
LOOK = 256  # atoms of the first structures, used to compare forces of new weights
Said = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]


class Cueq:
    """Makes evaluators with cuEquivariance for the models of a run; uses those of `plain` after the first failure.

    Raises SettingsError when the device is not CUDA or packages are missing.
    """

    def __init__(self, device: str, plain: EvaluatorMaker = torch_evaluator) -> None:
        missing = [name for name in CUEQ_PACKAGES if find_spec(name) is None]
        if not device.startswith("cuda"):
            raise SettingsError(f"MISC.enable_cueq in mace.yaml needs device: cuda, not {device}")
        if missing:
            raise SettingsError(
                f"MISC.enable_cueq in mace.yaml: {', '.join(missing)} not installed; "
                "pip install 'aims-pax[cueq]', or leave it out"
            )
        self._plain = plain
        self.refusal: str | None = None
        self._said = False
        self._members: dict[int, Converted] = {}

    def evaluator(self, models: Sequence[MaceModel], head: int = 0) -> Evaluator:
        """An evaluator for models of one architecture; each model is converted only once."""
        plain = self._plain(models, head)
        if self.refusal or head:
            return plain
        for model in models:
            if id(model) not in self._members:
                self._members[id(model)] = Converted(model)
        return CueqEvaluator(self, [self._members[id(m)] for m in models], plain)

    def ready(self, members: Sequence[Converted], graph: EdgeGraph, plain: Evaluator) -> bool:
        """Update members, and compare with torch if one has changed; False: torch must be used."""
        if self.refusal is not None:
            return False
        if not any(member.stale() for member in members):
            return True
        try:
            for member in members:
                member.update()
            difference, allowed = _compared([m.target for m in members], plain, graph)
        except Exception as error:  # converter and kernels raise many kinds of exception
            said = str(error).strip().partition("\n")[0]
            self._refuse(f"{type(error).__name__}: {said}".rstrip(": "))
            return False
        if not difference <= allowed:
            self._refuse(f"its forces differ from torch's by {difference:.1e} eV/Å (allowed {allowed:.1e})")
            return False
        if not self._said:
            log.info("inference: cuEquivariance, within %.0e eV/Å of torch", difference)
        self._said = True
        return True

    def _refuse(self, reason: str) -> None:
        self.refusal = reason
        self._members.clear()
        log.warning("inference: torch instead of cuEquivariance from now on, because %s", reason)


class Converted:
    """One model and its converted copy. stamp: identifies the weights that were last transferred."""

    def __init__(self, model: MaceModel) -> None:
        self.model, self.target = model, None
        self.stamp: tuple[Any, ...] | None = None
        self._weights = [*model.parameters(), *model.buffers()]

    def stale(self) -> bool:
        """Whether the weights have changed since they were transferred."""
        return self.stamp != self._now()

    def update(self) -> None:
        """Convert the model, or transfer its current weights."""
        now = self._now()
        device = self._weights[0].device
        with on_card(device):
            if self.target is None:  # the converter accepts only `cuda` (current card) and `cpu`
                made = convert(self.model, "cuda" if device.type == "cuda" else "cpu")
                self.target = made.to(device).eval().requires_grad_(False)
            elif self.stamp != now:
                transfer(self.model, self.target)
        share_energies(self.model, self.target)
        self.stamp = now

    def _now(self) -> tuple[Any, ...]:
        neighbours = [float(i.avg_num_neighbors) for i in self.model.interactions]
        return sum(w._version for w in self._weights), *neighbours


def on_card(device: torch.device) -> AbstractContextManager[Any]:
    """A context in which `cuda` without a number is this device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


class CueqEvaluator:
    """`Evaluator` of converted members, or of plain torch if conversion or comparison failed."""

    def __init__(self, chooser: Cueq, converted: Sequence[Converted], plain: Evaluator) -> None:
        self.chooser, self.converted, self.plain = chooser, list(converted), plain
        self.members = len(self.converted)

    def __call__(self, graph: EdgeGraph, *, strain: bool) -> Said:
        if not self.chooser.ready(self.converted, graph, self.plain):
            return self.plain(graph, strain=strain)
        return TorchEvaluator([c.target for c in self.converted])(graph, strain=strain)


def convert(model: MaceModel, device: str) -> MaceModel:
    """The model with cuEquivariance's operations, by `mace.cli.convert_e3nn_cueq`."""
    # the converter changes it and does not restore it
    with (
        quiet(),
        default_dtype(torch.get_default_dtype()),
    ):
        from mace.cli.convert_e3nn_cueq import run

        return run(model, device=device)


def is_converted(model: MaceModel) -> bool:
    """Whether a model has layers of cuEquivariance: saved by a training that used it, without conversion back."""
    return any(type(module).__module__.startswith("cuequivariance") for module in model.modules())


def converted_back(model: MaceModel, device: str) -> MaceModel:
    """The model with e3nn's layers, by MACE's own converter. Raises what the converter raises."""
    from mace.cli.convert_cueq_e3nn import run

    with quiet(), default_dtype(next(model.parameters()).dtype):
        return run(model, device=device, return_model=True)


def transfer(model: MaceModel, target: MaceModel) -> None:
    """Transfer the weights of `model` into its converted copy."""
    dtype = next(model.parameters()).dtype
    with quiet(), default_dtype(dtype):  # couplings are computed in the default precision
        from mace.cli.convert_e3nn_cueq import transfer_weights
        from mace.tools.scripts_utils import extract_config_mace_model

        config = extract_config_mace_model(model)
        transfer_weights(
            model,
            target,
            len(config["hidden_irreps"].slices()) - 1,
            config["correlation"],
            config["num_interactions"],
            config.get("use_reduced_cg", True),
            config.get("keep_last_layer_irreps", False),
        )


def _compared(targets: Sequence[MaceModel], plain: Evaluator, graph: EdgeGraph) -> tuple[float, float]:
    """(largest difference of forces on the first atoms of the graph, tolerance), eV/Å."""
    part = cut(graph, torch.arange(len(graph.species), device=graph.species.device) < LOOK)
    own, theirs = TorchEvaluator(targets)(part, strain=False)[1], plain(part, strain=False)[1]
    return float((own - theirs).abs().max()), ABSOLUTE + RELATIVE * float(theirs.abs().max())
