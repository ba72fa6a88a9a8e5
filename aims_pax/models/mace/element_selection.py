"""Removes elements from a MACE model, so that a model of 89 elements costs what one of its 4 elements costs.

Everything that has an entry for each element is reduced in place; all else stays as it is:

    node embedding, source and target embeddings    Linear of the one-hot elements
    skip connections                                 product of the features and the one-hot elements
    symmetric contractions                           weights (elements, paths, channels)
    atomic energies                                  (heads, elements) or (elements,)

The function does not check the result: `model_surgery` compares it with the original.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from aims_pax.models.mace.build import elements_of
from aims_pax.models.mace.linear_selection import selected_linear, selected_product
from aims_pax.models.mace.mace_import import MaceModel, default_dtype, o3

EMBEDDINGS = ("source_embedding", "target_embedding")  # of RealAgnosticResidualNonLinearInteractionBlock


def select_elements(model: MaceModel, elements: Sequence[int]) -> None:
    """Leave only these elements (atomic numbers that the model knows), in ascending order. In place.

    Raises UnknownLayer for a layer that is not e3nn's own.
    """
    known = elements_of(model)
    chosen = [known.index(z) for z in sorted(elements)]
    if chosen == list(range(len(known))):
        return
    index = torch.tensor(chosen, device=model.atomic_numbers.device)
    with default_dtype(next(model.parameters()).dtype):
        model.node_embedding.linear = selected_linear(model.node_embedding.linear, inputs=chosen)
        for interaction in model.interactions:
            _select_in_interaction(interaction, chosen)
    for product in model.products:
        if not getattr(product, "use_agnostic_product", False):
            for contraction in product.symmetric_contractions.contractions:
                _select_in_contraction(contraction, index)
    energies = model.atomic_energies_fn
    energies.atomic_energies = energies.atomic_energies.index_select(-1, index)
    model.atomic_numbers = model.atomic_numbers.index_select(0, index)


def _select_in_interaction(interaction: Any, chosen: Sequence[int]) -> None:
    for name in EMBEDDINGS:
        if hasattr(interaction, name):
            setattr(interaction, name, selected_linear(getattr(interaction, name), inputs=chosen))
    skip = getattr(interaction, "skip_tp", None)  # a plain Linear in blocks without elements in the skip
    if isinstance(skip, o3.TensorProduct):
        interaction.skip_tp = selected_product(skip, chosen)
    interaction.node_attrs_irreps = o3.Irreps(f"{len(chosen)}x0e")


def _select_in_contraction(contraction: Any, index: torch.Tensor) -> None:
    contraction.weights_max = _selected(contraction.weights_max, index)
    for k, weight in enumerate(contraction.weights):
        contraction.weights[k] = _selected(weight, index)


def _selected(weight: torch.nn.Parameter, index: torch.Tensor) -> torch.nn.Parameter:
    """Weights (elements, paths, channels) of the chosen elements."""
    return torch.nn.Parameter(weight.detach().index_select(0, index), requires_grad=weight.requires_grad)
