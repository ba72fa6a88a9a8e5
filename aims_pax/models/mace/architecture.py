"""The architecture of a model, read from the model itself, for its card and for comparison with ARCHITECTURE."""

from __future__ import annotations

from typing import Any

from aims_pax.models.mace.build import first_interaction
from aims_pax.models.mace.mace_import import MaceModel, modules
from aims_pax.settings.mace import ArchitectureSettings

RADIAL = {"BesselBasis": "bessel", "GaussianBasis": "gaussian", "ChebychevBasis": "chebyshev"}


def architecture(model: MaceModel) -> dict[str, Any]:
    """{key of ARCHITECTURE: value} for all keys that can be read from a model; also `hidden_irreps`, `parameters`."""
    hidden = model.products[0].linear.irreps_out
    found: dict[str, Any] = {
        "model": type(model).__name__,
        "r_max": round(float(model.r_max), 6),
        "num_interactions": int(model.num_interactions),
        "num_channels": int(hidden[0].mul),
        "max_L": int(hidden.lmax)
        if len(model.products) > 1
        else None,  # the last layer may have scalars only
        "max_ell": int(model.spherical_harmonics.irreps_out.lmax),
        "correlation": _correlation(model),
        "num_radial_basis": int(model.radial_embedding.out_dim),
        "num_cutoff_basis": int(model.radial_embedding.cutoff_fn.p),
        "MLP_irreps": str(getattr(model.readouts[-1], "hidden_irreps", "")),
        "radial_type": RADIAL.get(type(model.radial_embedding.bessel_fn).__name__),
        "radial_MLP": _radial_MLP(model),
        "gate": _gate_name(model),
        "interaction": type(model.interactions[-1]).__name__ if len(model.interactions) > 1 else None,
        "interaction_first": type(model.interactions[0]).__name__,
        "pair_repulsion": hasattr(model, "pair_repulsion_fn"),
        "hidden_irreps": str(hidden),
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    transform = getattr(model.radial_embedding, "distance_transform", None)
    if transform is not None:  # not a key of ARCHITECTURE
        found["distance_transform"] = type(transform).__name__
    return {key: value for key, value in found.items() if value not in ("", None)}


def contradictions(model: MaceModel, written: ArchitectureSettings) -> list[tuple[str, Any, Any]]:
    """(key, value in mace.yaml, value of the model) for every key that the user set to another value."""
    found, expected = architecture(model), written.model_dump()
    if written.model == "MACE" and _is_unshifted(model):
        expected |= {"model": found["model"], "interaction_first": first_interaction(written)}
    return [
        (key, getattr(written, key), found[key])
        for key in type(written).model_fields
        if key in written.model_fields_set and key in found and expected[key] != found[key]
    ]


def _is_unshifted(model: MaceModel) -> bool:
    """Whether the model can be the plain MACE of ARCHITECTURE, which is also built as ScaleShiftMACE."""
    return not hasattr(model, "scale_shift") or not bool(model.scale_shift.shift.any())


def _radial_MLP(model: MaceModel) -> tuple[int, ...] | None:
    """Hidden layers of the radial network of the first interaction."""
    sizes = getattr(model.interactions[0].conv_tp_weights, "hs", None)
    return tuple(int(n) for n in sizes[1:-1]) if sizes else None


def _gate_name(model: MaceModel) -> str | None:
    """The activation of the last readout as ARCHITECTURE names it; None if it is another one."""
    acts = getattr(getattr(model.readouts[-1], "non_linearity", None), "acts", None)
    if not acts:
        return None
    function = None if acts[0] is None else getattr(acts[0], "f", acts[0])
    return next((name for name, gate in modules.gate_dict.items() if gate is function), None)


def _correlation(model: MaceModel) -> int | None:
    contraction = model.products[0].symmetric_contractions
    try:
        return len(contraction.contractions[0].weights) + 1
    except AttributeError:  # module of cuequivariance
        return getattr(contraction, "contraction_degree", None)
