"""Charge and spin of a model that reads them (such as MACE-OMOL), fixed to one value for all structures.

MACE adds an embedding of the total charge and spin to the features of every atom before the first layer, and a readout
of the sum to the energy. For one charge and one spin both are constants of the element:

    h_z = W_z + c                      c: the embedding     → the new node embedding
    e0_z = E0_z + readout(W_z + c)                          → the new atomic energies

so the folded model is an ordinary one with the same energies and forces.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from aims_pax.errors import SettingsError
from aims_pax.models.mace.build import elements_of
from aims_pax.models.mace.mace_import import MaceModel

Electrons = tuple[float | None, int | None]  # charge (e) and multiplicity of a system, None: not given
FEATURES = ("total_charge", "total_spin")  # what can be folded; spin is the multiplicity 2S+1


def is_embedded(model: MaceModel) -> bool:
    """Whether the model reads properties of the structures besides elements and positions."""
    return hasattr(model, "joint_embedding")


def check_features(model: MaceModel, name: str) -> None:
    """Raise SettingsError for a model that reads something else than the total charge and spin of structures."""
    others = [
        f"{feature} (of each {spec['per']})"
        for feature, spec in model.embedding_specs.items()
        if feature not in FEATURES or spec["per"] != "graph"
    ]
    if others:
        raise SettingsError(
            f"FOUNDATION.model: {name} reads {', '.join(others)} of structures, which models in aims-PAX cannot; "
            "choose another one"
        )


def check_electrons_of(systems: Iterable[Electrons], values: Mapping[str, float], name: str) -> None:
    """Raise SettingsError for a system with another charge or spin than the model is fixed to."""
    for charge, spin in systems:
        for key, known in (("charge", charge), ("spin", spin)):
            fixed = values[f"total_{key}"]
            if known is not None and known != fixed:
                raise SettingsError(
                    f"FOUNDATION.{key}: {name} is fixed to {fixed:g}, but a geometry has {known:g}; set it to "
                    f"{known:g} (all structures of a run must have the same), or choose a model that does not read it"
                )


@torch.no_grad()
def fold_embeddings(model: MaceModel, values: Mapping[str, float]) -> None:
    """Replace the embeddings by their constants at these values of `FEATURES`. In place."""
    linear = model.node_embedding.linear
    (instruction,) = linear.instructions
    Z = len(elements_of(model))
    batch = torch.zeros(1, dtype=torch.int64, device=linear.weight.device)
    c = model.joint_embedding(batch, features_of_graphs(model, values, 1, linear.weight))  # (1, channels)
    rows = linear.weight.view(Z, -1)
    rows.add_(c / instruction.path_weight)
    if hasattr(model, "embedding_readout"):
        readout = model.embedding_readout(rows * instruction.path_weight, batch.expand(Z))  # (Z, heads)
        E0 = model.atomic_energies_fn.atomic_energies
        E0.add_(readout.reshape(Z, -1).T.reshape(E0.shape))
        del model.embedding_readout
    del model.joint_embedding
    del model.embedding_specs


def features_of_graphs(
    model: MaceModel, values: Mapping[str, float], graphs: int, like: torch.Tensor
) -> dict[str, torch.Tensor]:
    """{feature: (graphs,)} that the model reads, in the type and on the device of a tensor."""
    return {
        name: torch.full((graphs,), float(values[name]), dtype=like.dtype, device=like.device)
        for name in model.embedding_specs
    }


class WithFeatures(torch.nn.Module):
    """A model with embeddings that is called like one without; its interaction energy includes theirs."""

    def __init__(self, model: MaceModel, values: Mapping[str, float]) -> None:
        super().__init__()
        self.model, self.values = model, dict(values)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("model"), name)

    def forward(self, data: dict[str, torch.Tensor], **options: Any) -> dict[str, Any]:
        graphs = len(data["ptr"]) - 1
        known = data | features_of_graphs(self.model, self.values, graphs, data["positions"])
        out = self.model(known, **options)
        atoms = torch.arange(len(data["batch"]))
        lone = self.model.atomic_energies_fn(data["node_attrs"])[atoms, data["head"][data["batch"]]]
        E0 = lone.new_zeros(graphs).index_add(0, data["batch"], lone)
        return {**out, "interaction_energy": out["energy"] - E0}
