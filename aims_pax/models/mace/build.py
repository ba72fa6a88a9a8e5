"""A MACE model as the ARCHITECTURE settings describe it, with statistics still to be filled in."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from aims_pax.errors import SettingsError
from aims_pax.models.mace.mace_import import MaceModel, default_dtype, modules, o3, quiet
from aims_pax.models.mace.statistics import Statistics

if TYPE_CHECKING:
    from aims_pax.settings.mace import MaceSettings

log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "float64": torch.float64}


def build_model(settings: MaceSettings, elements: Sequence[int], seed: int) -> MaceModel:
    """A model with initial weights from `seed` alone; torch's own random state stays untouched.

    Raises SettingsError when MACE cannot build what ARCHITECTURE asks for.
    """
    a = settings.architecture
    first = a.interaction_first
    if a.model == "MACE" and "Residual" in first:
        # a residual first layer would spoil that a lone atom is E0 (mace_run_train does so too)
        first = "RealAgnosticInteractionBlock"
        log.info("model MACE: interaction_first is %s instead of %s", first, a.interaction_first)
    hidden = (a.num_channels * o3.Irreps.spherical_harmonics(a.max_L)).sort().irreps.simplify()
    with quiet(), default_dtype(DTYPES[settings.general.default_dtype]), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = modules.ScaleShiftMACE(
                r_max=a.r_max,
                num_bessel=a.num_radial_basis,
                num_polynomial_cutoff=a.num_cutoff_basis,
                max_ell=a.max_ell,
                interaction_cls=modules.interaction_classes[a.interaction],
                interaction_cls_first=modules.interaction_classes[first],
                num_interactions=a.num_interactions,
                num_elements=len(elements),
                hidden_irreps=hidden,
                MLP_irreps=o3.Irreps(a.MLP_irreps),
                atomic_energies=np.zeros((1, len(elements))),
                avg_num_neighbors=1.0,
                atomic_numbers=[int(z) for z in elements],
                correlation=a.correlation,
                gate=modules.gate_dict[str(a.gate)],
                pair_repulsion=a.pair_repulsion,
                radial_MLP=list(a.radial_MLP),
                radial_type=a.radial_type,
                heads=["Default"],
                atomic_inter_scale=[1.0],
                atomic_inter_shift=[0.0],
            )
        except (
            Exception
        ) as error:  # MACE asserts, indexes and looks up: whatever fails, the settings asked for it
            raise SettingsError(
                f"ARCHITECTURE in mace.yaml: MACE cannot build this model ({type(error).__name__}: {error})"
            ) from error
    return model.to(settings.misc.device)


def is_shifted(settings: MaceSettings) -> bool:
    """Whether the model has a common energy shift: plain MACE has none, its lone atoms are exactly E0."""
    return str(settings.architecture.model) != "MACE"


def set_statistics(model: MaceModel, statistics: Statistics) -> None:
    """Write offsets, scale and neighbour mean into a model, in place."""
    with torch.no_grad():
        E0 = model.atomic_energies_fn.atomic_energies
        E0.copy_(torch.from_numpy(statistics.E0).reshape(E0.shape))
        model.atomic_energies_fn.exact = [float(e) for e in statistics.E0]  # float32 knows gold's to 0.03 eV
        if hasattr(model, "scale_shift"):
            model.scale_shift.scale.fill_(statistics.scale)
            model.scale_shift.shift.fill_(statistics.shift)
    for interaction in model.interactions:
        interaction.avg_num_neighbors = statistics.avg_num_neighbors


def model_atomic_energies(model: MaceModel, head: int = 0) -> torch.Tensor:
    """(Z,) eV float64 on the model's device: as they were found, where the model remembers, else as it stores them."""
    whole: torch.Tensor = model.atomic_energies_fn.atomic_energies
    stored = whole.reshape(-1, len(model.atomic_numbers))[head]
    exact = getattr(model.atomic_energies_fn, "exact", None)
    if exact is None:
        return stored.double()
    return torch.tensor(exact, dtype=torch.float64, device=stored.device)


def share_energies(model: MaceModel, other: MaceModel) -> None:
    """Another model of the same weights knows the atomic energies as well as this one does."""
    other.atomic_energies_fn.exact = getattr(model.atomic_energies_fn, "exact", None)


def doubled(model: MaceModel) -> MaceModel:
    """The same model in double precision, its atomic energies as they were found; the model itself is changed."""
    E0 = model_atomic_energies(model)
    model = model.double()
    if getattr(model.atomic_energies_fn, "exact", None) is not None:
        stored = model.atomic_energies_fn.atomic_energies
        stored.copy_(E0.reshape(stored.shape))
    return model


def read_statistics(model: MaceModel, head: int = 0) -> Statistics:
    """What a finished model was built with."""
    E0 = model_atomic_energies(model, head)
    scale, shift = 1.0, 0.0
    if hasattr(model, "scale_shift"):
        scale = float(model.scale_shift.scale.reshape(-1)[head])
        shift = float(model.scale_shift.shift.reshape(-1)[head])
    neighbours = float(model.interactions[0].avg_num_neighbors)
    return Statistics(E0.cpu().numpy(), neighbours, scale, shift, "model file", 0)


def read_model(path: Path, device: str, dtype: torch.dtype | None) -> MaceModel:
    """A MACE model a user named. Loading it runs the code pickled inside: only ever for files a user names.

    dtype: None for the precision it was stored in.
    Raises SettingsError when there is no such file, or it holds something else.
    """
    if not path.is_file():
        raise SettingsError(f"{path}: no such file; expected a MACE .model file")
    try:
        with quiet():
            model = torch.load(path, map_location=device, weights_only=False)
    except Exception as error:  # unpickling raises whatever it trips over
        raise SettingsError(
            f"{path}: not a readable MACE .model file ({type(error).__name__}: {error})"
        ) from error
    if type(model).__name__ not in ("MACE", "ScaleShiftMACE") or hasattr(model, "joint_embedding"):
        raise SettingsError(
            f"{path}: holds {_what(model)}, expected a MACE model of energies and forces (MACE or "
            "ScaleShiftMACE without charge, spin or field embeddings), the .model file mace_run_train writes"
        )
    return model.to(device=device, dtype=dtype)


def elements_of(model: MaceModel) -> tuple[int, ...]:
    """Atomic numbers the model knows, in its own order."""
    return tuple(int(z) for z in model.atomic_numbers)


def _what(model: Any) -> str:
    if isinstance(model, dict):
        return "a dictionary (a checkpoint of training, perhaps)"
    name = type(model).__name__
    return f"{name} with embeddings" if hasattr(model, "joint_embedding") else name


def load_model(path: Path) -> tuple[MaceModel, tuple[int, ...]]:
    """A model file a user names, in its own precision, and the elements it knows. Raises SettingsError."""
    model = read_model(path, "cpu", None)
    if len(getattr(model, "heads", None) or ["Default"]) > 1:
        raise SettingsError(f"{path}: has the heads {', '.join(model.heads)}; use a model with one")
    return model, elements_of(model)
