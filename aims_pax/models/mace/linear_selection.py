"""Smaller copies of e3nn layers: chosen inputs and outputs of a Linear, chosen elements of a product with them.

e3nn multiplies each path by a constant that depends on its number of inputs. The copies therefore have rescaled
weights,

    w_new = w_old[chosen] · c_old / c_new

so that their outputs are the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from aims_pax.models.mace.mace_import import o3


class UnknownLayer(Exception):
    """A layer is not of the class that these functions know how to reduce."""


def selected_linear(
    linear: o3.Linear, inputs: Sequence[int] | None = None, outputs: Sequence[int] | None = None
) -> o3.Linear:
    """A Linear of the chosen scalars. inputs, outputs: their indices; None: all, of any irreps.

    Raises UnknownLayer unless the layer is e3nn's and has only scalars where some are chosen.
    """
    _expect(linear, o3.Linear)
    into = linear.irreps_in if inputs is None else _scalars(linear.irreps_in, inputs)
    out = linear.irreps_out if outputs is None else _scalars(linear.irreps_out, outputs)
    biased = [any(i.i_in == -1 and i.i_out == k for i in linear.instructions) for k in range(len(out))]
    new = o3.Linear(into, out, biases=biased).to(linear.weight.device, linear.weight.dtype)
    with torch.no_grad():
        weights: list[torch.Tensor] = []
        biases: list[torch.Tensor] = []
        old_parts = _parts(torch.cat([linear.weight, linear.bias]), linear.instructions)
        for part, old, made in zip(old_parts, linear.instructions, new.instructions, strict=True):
            chosen = part
            if outputs is not None:
                chosen = chosen[..., list(outputs)]
            if inputs is not None and old.i_in >= 0:
                chosen = chosen[list(inputs)]
            (biases if old.i_in < 0 else weights).append(
                chosen.reshape(-1) * (old.path_weight / made.path_weight)
            )
        _fill(new.weight, weights)
        _fill(new.bias, biases)
    return _as_before(new, linear)


def selected_product(
    product: o3.FullyConnectedTensorProduct, elements: Sequence[int]
) -> o3.FullyConnectedTensorProduct:
    """A product whose second input has only the chosen scalars (elements). Raises UnknownLayer."""
    _expect(product, o3.FullyConnectedTensorProduct)
    second = _scalars(product.irreps_in2, elements)
    new = o3.FullyConnectedTensorProduct(product.irreps_in1, second, product.irreps_out)
    new = new.to(product.weight.device, product.weight.dtype)
    with torch.no_grad():
        parts = []
        for part, old, made in zip(
            _parts(product.weight, product.instructions), product.instructions, new.instructions, strict=True
        ):
            parts.append(part[:, list(elements)].reshape(-1) * (old.path_weight / made.path_weight))
        _fill(new.weight, parts)
    return _as_before(new, product)


def _parts(weight: torch.Tensor, instructions: Sequence[object]) -> list[torch.Tensor]:
    """The weights of each path in its own shape."""
    shapes = [tuple(i.path_shape) for i in instructions]  # type: ignore[attr-defined]
    found = weight.detach().double().split([math.prod(shape) for shape in shapes])
    return [part.view(shape) for part, shape in zip(found, shapes, strict=True)]


def _fill(target: torch.Tensor, parts: Sequence[torch.Tensor]) -> None:
    if parts:
        target.copy_(torch.cat(list(parts)))


def _scalars(irreps: o3.Irreps, chosen: Sequence[int]) -> o3.Irreps:
    if len(irreps) != 1 or irreps[0].ir != o3.Irrep("0e"):
        raise UnknownLayer(f"scalars were expected, found {irreps}")
    return o3.Irreps(f"{len(chosen)}x0e")


def _expect(layer: torch.nn.Module, kind: type) -> None:
    if type(layer) is not kind:
        raise UnknownLayer(f"{type(layer).__module__}.{type(layer).__name__}")


def _as_before(new: torch.nn.Module, old: torch.nn.Module) -> torch.nn.Module:
    """Copy the flags that training depends on."""
    for mine, theirs in zip(new.parameters(), old.parameters(), strict=True):
        mine.requires_grad_(theirs.requires_grad)
    return new.train(old.training)
