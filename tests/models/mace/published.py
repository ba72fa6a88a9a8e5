"""Small MACE models of every architecture that MACE publishes, built with MACE's own constructors."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch

from aims_pax.frames import Frame
from aims_pax.models.mace.mace_import import MaceModel, default_dtype, modules, o3, quiet
from aims_pax.models.mace.model_surgery import double_copy

ELEMENTS = (1, 6, 7, 8, 29)
PLAIN, RESIDUAL = "RealAgnosticInteractionBlock", "RealAgnosticResidualInteractionBlock"
DENSITY, DENSITY_RESIDUAL = (
    "RealAgnosticDensityInteractionBlock",
    "RealAgnosticDensityResidualInteractionBlock",
)
ATTENTION, NON_LINEAR = (
    "RealAgnosticAttResidualInteractionBlock",
    "RealAgnosticResidualNonLinearInteractionBlock",
)
THREE = ("omat_pbe", "Default", "matpes_r2scan")
CATION = {"total_charge": 1.0, "total_spin": 2.0}  # as `maces_own` evaluates models that read them

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "MP-0, OFF: residual": {"blocks": (PLAIN, RESIDUAL)},
    "MP-0: residual first, max_L 0": {"blocks": (RESIDUAL, RESIDUAL), "hidden": "4x0e"},
    "max_L 2, correlation 3": {"hidden": "4x0e+4x1o+4x2e", "correlation": 3},
    "OMAT, MPA: density, Agnesi": {
        "blocks": (DENSITY, DENSITY_RESIDUAL),
        "distance_transform": "Agnesi",
        "pair_repulsion": True,
    },
    "density residual first, Soft": {
        "blocks": (DENSITY_RESIDUAL, DENSITY_RESIDUAL),
        "distance_transform": "Soft",
    },
    "MH: non-linear, three heads": {
        "blocks": (NON_LINEAR, NON_LINEAR),
        "heads": THREE,
        "readout_cls": "NonLinearBiasReadoutBlock",
        "distance_transform": "Agnesi",
        "apply_cutoff": False,
        "use_agnostic_product": True,
        "use_last_readout_only": True,
        "edge_irreps": "2x0e+2x1o",
    },
    "attention second": {"blocks": (RESIDUAL, ATTENTION)},
    "three heads": {"heads": THREE, "scale": (1.0, 1.5, 2.0), "shift": (0.1, 0.2, 0.3)},
    "one layer": {"num_interactions": 1, "num_elements": 5},
    "three layers": {"num_interactions": 3},
    "gaussian, gate tanh": {"radial_type": "gaussian", "gate": torch.tanh},
    "chebyshev": {"radial_type": "chebyshev"},
    "no gate, agnostic product": {"gate": None, "use_agnostic_product": True},
    "last layer with vectors": {"keep_last_layer_irreps": True},
    "MACE without scale": {"kind": "MACE"},
    "OMOL: charge and spin": {
        "embedding_specs": {
            "total_charge": {
                "type": "categorical",
                "per": "graph",
                "offset": 5,
                "num_classes": 11,
                "emb_dim": 4,
            },
            "total_spin": {"type": "continuous", "per": "graph", "in_dim": 1, "emb_dim": 3},
        },
        "use_embedding_readout": True,
        "heads": ("omol", "Default"),
        "blocks": (RESIDUAL, NON_LINEAR),
    },
}


def published(
    architecture: str = "MP-0, OFF: residual",
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    **changes: Any,
) -> MaceModel:
    """A model with random weights; changes: arguments of MACE's constructor, or blocks, hidden, scale, shift, kind."""
    own = ARCHITECTURES[architecture] | changes
    first, second = own.pop("blocks", (RESIDUAL, RESIDUAL))
    heads = list(own.pop("heads", ("Default",)))
    rng = np.random.default_rng(seed)
    arguments: dict[str, Any] = {
        "r_max": 4.5, "num_bessel": 6, "num_polynomial_cutoff": 5, "max_ell": 2, "num_interactions": 2,
        "num_elements": len(ELEMENTS), "atomic_numbers": list(ELEMENTS), "MLP_irreps": o3.Irreps("4x0e"),
        "atomic_energies": rng.normal(-50, 30, (len(heads), len(ELEMENTS))), "avg_num_neighbors": 7.3,
        "correlation": 2, "gate": torch.nn.functional.silu, "heads": heads, "radial_MLP": [12, 12],
        "hidden_irreps": o3.Irreps(own.pop("hidden", "4x0e+4x1o")),
        "interaction_cls": modules.interaction_classes[second],
        "interaction_cls_first": modules.interaction_classes[first],
    }  # fmt: skip
    scale, shift = own.pop("scale", (1.3,) * len(heads)), own.pop("shift", (0.2,) * len(heads))
    kind = own.pop("kind", "ScaleShiftMACE")
    if kind != "MACE":
        arguments |= {"atomic_inter_scale": list(scale), "atomic_inter_shift": list(shift)}
    if "readout_cls" in own:
        own["readout_cls"] = getattr(modules.blocks, own["readout_cls"])
    if "edge_irreps" in own:
        own["edge_irreps"] = o3.Irreps(own["edge_irreps"])
    with quiet(), default_dtype(dtype), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(modules, kind)(**arguments | own)
        with torch.no_grad():
            for p in model.parameters():  # also biases and what begins at zero or at a constant
                if p.requires_grad:
                    p.add_(0.1 * torch.randn_like(p))
    return model


def maces_own(model: MaceModel, frame: Frame, head: str) -> tuple[float, Any, Any]:
    """Energy, forces and stress by MACE's own calculator, from the positions as a user gives them."""
    from mace.calculators import MACECalculator

    with quiet():
        calculator = MACECalculator(models=[model], device="cpu", default_dtype="float64", head=head)
        atoms = frame.to_atoms()
        atoms.info |= {"charge": 1, "spin": 2}  # read by models with embeddings alone
        atoms.calc = calculator
        return atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()


@lru_cache(maxsize=4)
def _once(architecture: str) -> MaceModel:
    return published(architecture)


def a_copy(architecture: str = "MP-0, OFF: residual") -> MaceModel:
    """A copy of a model that is built once, which takes most of the time."""
    return double_copy(_once(architecture))
