"""Which models symmetrix can evaluate: those with only parts that `native_export` can write.

`settings.inference_support.unfit` checks the same for the keys of mace.yaml.
"""

from __future__ import annotations

from typing import Any

import torch

from aims_pax.models.mace.mace_import import MaceModel, o3
from aims_pax.settings.inference_support import FIRST, MAX_ELL, MAX_L, SECOND


def unsupported_reason(model: MaceModel) -> str | None:
    """Why symmetrix cannot evaluate a model, or None when it can."""
    blocks = [original_class_name(i) for i in model.interactions]
    radial = model.radial_embedding
    checks = [
        (
            original_class_name(model) in ("MACE", "ScaleShiftMACE"),
            f"the model is a {original_class_name(model)}",
        ),
        (not hasattr(model, "joint_embedding"), "the model has embeddings of charge, spin or fields"),
        (len(getattr(model, "heads", None) or ["one"]) == 1, "the model has several heads"),
        (len(blocks) == 2, f"num_interactions is {len(blocks)}, not 2"),
        (blocks[0] in FIRST, f"interaction_first is {blocks[0]}"),
        (len(blocks) != 2 or blocks[-1] in SECOND, f"interaction is {blocks[-1]}"),
        (
            model.spherical_harmonics._lmax == MAX_ELL,
            f"max_ell is {model.spherical_harmonics._lmax}, not {MAX_ELL}",
        ),
        (
            original_class_name(radial.bessel_fn) == "BesselBasis",
            f"radial_type is {original_class_name(radial.bessel_fn)}, not bessel",
        ),
        (
            original_class_name(radial.cutoff_fn) == "PolynomialCutoff",
            f"the cutoff is {original_class_name(radial.cutoff_fn)}",
        ),
        (getattr(radial, "apply_cutoff", True), "the cutoff is not applied to the radial basis"),
        (getattr(radial, "distance_transform", None) is None, "the radial basis transforms distances"),
    ]
    for fits, reason in checks:
        if not fits:
            return reason
    return _unfit_inside(model)


def _unfit_inside(model: MaceModel) -> str | None:
    """The remaining checks, which require supported kinds of blocks."""
    K = channels(model)
    L = int(model.products[0].linear.irreps_out.lmax)
    hidden = o3.Irreps([(K, (ell, (-1) ** ell)) for ell in range(L + 1)])
    gates = [getattr(a, "f", None) for a in getattr(model.readouts[-1].non_linearity, "acts", [None])]
    numbers = [int(z) for z in model.atomic_numbers]
    contraction = model.products[0].symmetric_contractions
    networks = [
        n for i in model.interactions for n in (i.conv_tp_weights, getattr(i, "density_fn", None)) if n
    ]
    checks = [
        (not getattr(model, "use_agnostic_product", False), "its products do not depend on the elements"),
        (hasattr(contraction, "contractions"), "its contractions were converted for GPUs"),
        (L <= MAX_L, f"max_L is {L}, above {MAX_L}"),
        (o3.Irreps(model.products[0].linear.irreps_out) == hidden, "its hidden features have another layout"),
        (model.products[1].linear.irreps_out == o3.Irreps(f"{K}x0e"), "its last layer is not scalar"),
        (numbers == sorted(numbers), "its elements are not in ascending order"),
        (all(g is torch.nn.functional.silu for g in gates), "gate is not silu"),
        (all(_plain(n) for n in networks), "its radial network has another form"),
    ]
    return next((reason for fits, reason in checks if not fits), None)


def _plain(network: Any) -> bool:
    """Whether a network has the form the export writes: SiLU inside, nothing at the end, no bias."""
    if original_class_name(network) != "FullyConnectedNet":
        return False
    *inner, last = network._modules.values()
    return (
        last.act is None
        and all(getattr(layer.act, "f", None) is torch.nn.functional.silu for layer in inner)
        and all(
            layer.var_in == layer.var_out == 1 and getattr(layer, "bias", None) is None
            for layer in [*inner, last]
        )
    )


def channels(model: MaceModel) -> int:
    """Number of channels: features of an atom per degree and component."""
    return int(model.node_embedding.linear.irreps_out.count("0e"))


def original_class_name(module: Any) -> str:
    """Class name of a module, also if it was converted by TorchScript."""
    return str(getattr(module, "original_name", type(module).__name__))
