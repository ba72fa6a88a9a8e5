"""The losses of training: MACE's own loss functions, evaluated on our batches.

If a label has no stress, label and prediction are both set to 0, so that it adds nothing to the loss; same for virials,
and for all labels without `compute_stress`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from aims_pax.models.mace.build import DTYPES
from aims_pax.models.mace.compile_cache import evaluate_trained
from aims_pax.models.mace.fast_forward import evaluate_fast, fast_mace, only_energies
from aims_pax.models.mace.graphs import EdgeBatch, GraphBatch, model_input
from aims_pax.models.mace.mace_import import MaceModel, default_dtype, interaction_energy, modules

if TYPE_CHECKING:
    from aims_pax.settings.mace import MaceSettings

log = logging.getLogger(__name__)

LOSSES = {
    "weighted": (modules.WeightedEnergyForcesLoss, ("energy", "forces")),
    "forces_only": (modules.WeightedForcesLoss, ("forces",)),
    "stress": (modules.WeightedEnergyForcesStressLoss, ("energy", "forces", "stress")),
    "virials": (modules.WeightedEnergyForcesVirialsLoss, ("energy", "forces", "virials")),
    "huber": (modules.WeightedHuberEnergyForcesStressLoss, ("energy", "forces", "stress")),
    "universal": (modules.UniversalLoss, ("energy", "forces", "stress")),
    "l1l2energyforces": (modules.WeightedEnergyForcesL1L2Loss, ("energy", "forces")),
}


@dataclass(frozen=True)
class Prediction:
    """Predictions for a batch. energy: (F,) eV above the atomic energies. forces: (A, 3) eV/Å.

    stress: (F, 3, 3) eV/Å³ (0 for frames whose label has none), or None when not computed.
    """

    energy: torch.Tensor
    forces: torch.Tensor
    stress: torch.Tensor | None


class Loss:
    """loss(batch, prediction) → scalar, in the units of MACE. stress: whether stress or virials are in it."""

    def __init__(self, settings: MaceSettings) -> None:
        name = loss_name(settings)
        kind, terms = LOSSES[name]
        weights = {f"{term}_weight": float(getattr(settings.training, f"{term}_weight")) for term in terms}
        with default_dtype(DTYPES[settings.general.default_dtype]):
            self.function = kind(**weights).to(settings.misc.device)
        self.name = name
        self.stress = settings.general.compute_stress and ("stress" in terms or "virials" in terms)

    def __call__(self, batch: GraphBatch, prediction: Prediction) -> torch.Tensor:
        if not self.stress:
            nothing = torch.zeros_like(batch.stress)
            batch, prediction = replace(batch, stress=nothing), replace(prediction, stress=nothing)
        return self.function(ref=_Reference(batch), pred=_predicted(batch, prediction))  # type: ignore[no-any-return]


def loss_name(settings: MaceSettings) -> str:
    """The loss in effect: `weighted` has no stress term, so with compute_stress it becomes `stress`."""
    name = str(settings.training.loss)
    return "stress" if name == "weighted" and settings.general.compute_stress else name


def predict(model: MaceModel, batch: GraphBatch, *, training: bool, stress: bool) -> Prediction:
    """Evaluate the model; with `training` the result can be differentiated with respect to the weights."""
    quick = fast_mace(model)
    if quick is not None:
        if training:
            energy, forces, strain = evaluate_trained(quick, edge_batch(batch), strain=stress)
        else:
            energy, forces, strain = evaluate_fast(quick, edge_batch(batch), training=False, strain=stress)
        tensor = None
        if strain is not None:
            tensor = strain * (batch.has_stress / batch.volume)[:, None, None]
        return Prediction(energy, forces, tensor)
    return predict_by_modules(model, batch, training=training, stress=stress)


@torch.no_grad()
def energies(model: MaceModel, batch: GraphBatch) -> torch.Tensor:
    """(F,) eV above the atomic energies, without forces: much faster than `predict`."""
    quick = fast_mace(model)
    if quick is not None:
        return only_energies(quick, edge_batch(batch))
    inputs = model_input(batch.node_attrs, batch.edges, batch.vectors, batch.frame_of, batch.ptr)
    return interaction_energy(model(inputs, training=False, compute_force=False))


def edge_batch(batch: GraphBatch) -> EdgeBatch:
    """The part of a batch that the evaluation needs."""
    species = batch.node_attrs.argmax(1)
    return EdgeBatch(species, batch.edges[0], batch.edges[1], batch.vectors, batch.frame_of, batch.frames)


def predict_by_modules(model: MaceModel, batch: GraphBatch, *, training: bool, stress: bool) -> Prediction:
    """The same as `predict`, with MACE's own forward."""
    out = model(
        model_input(batch.node_attrs, batch.edges, batch.vectors, batch.frame_of, batch.ptr),
        training=training,
        compute_force=True,
        compute_stress=stress,
    )
    tensor = None
    if stress:
        tensor = out["stress"] * (batch.has_stress / batch.volume)[:, None, None]
    return Prediction(interaction_energy(out), out["forces"], tensor)


class _Reference:
    """A batch with the attributes and items that MACE's losses read."""

    def __init__(self, batch: GraphBatch) -> None:
        one = torch.ones_like(batch.weight)
        self.weight, self.ptr = batch.weight, batch.ptr
        self.energy_weight = self.forces_weight = one
        self.stress_weight = self.virials_weight = batch.has_stress
        self.items = {
            "energy": batch.energy,
            "forces": batch.forces,
            "stress": batch.stress,
            "virials": -batch.stress * batch.volume[:, None, None],
        }

    def __getitem__(self, key: str) -> torch.Tensor:
        return self.items[key]


def _predicted(batch: GraphBatch, prediction: Prediction) -> dict[str, torch.Tensor]:
    predicted = {"energy": prediction.energy, "forces": prediction.forces}
    if prediction.stress is not None:
        predicted["stress"] = prediction.stress
        predicted["virials"] = -prediction.stress * batch.volume[:, None, None]
    return predicted
