"""Builds MACE models from the ARCHITECTURE settings, sets their statistics, and reads model files."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from aims_pax.errors import SettingsError
from aims_pax.models.mace.clebsch_gordan_cache import remembered_coefficients
from aims_pax.models.mace.initial_weights import Draw, InitialWeights, recorded_draws
from aims_pax.models.mace.mace_import import (
    MaceModel,
    default_dtype,
    modules,
    o3,
    quiet,
    without_code_generation,
)
from aims_pax.models.mace.statistics import Statistics

if TYPE_CHECKING:
    from aims_pax.settings.mace import ArchitectureSettings, MaceSettings

log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "float64": torch.float64}


def build_model(settings: MaceSettings, elements: Sequence[int], seed: int) -> MaceModel:
    """A model with initial weights that depend only on `seed`; torch's global random state is not changed.

    Further models of an architecture are copies of the first with weights of their own: most of the time goes into
    compiling functions, which are the same in all. Raises SettingsError when MACE cannot build this ARCHITECTURE.
    """
    a, dtype = settings.architecture, DTYPES[settings.general.default_dtype]
    if first_interaction(a) != a.interaction_first:
        log.info(
            "model MACE: interaction_first is %s instead of %s", first_interaction(a), a.interaction_first
        )
    words = f"{a.model_dump_json()} {[int(z) for z in elements]} {dtype}"
    with quiet(), remembered_coefficients(), default_dtype(dtype), torch.random.fork_rng(devices=[]):
        if words in _blueprints:
            model = _blueprints[words].copied(lambda: _constructed(a, elements), seed)
        else:
            torch.manual_seed(seed)
            with recorded_draws() as draws:
                model = _constructed(a, elements)
            _blueprints[words] = _Blueprint.of(model, draws, seed)
            while len(_blueprints) > BLUEPRINTS:
                del _blueprints[next(iter(_blueprints))]
    return model.to(settings.misc.device)


@dataclass(frozen=True)
class _Blueprint:
    """A model that was built, as a file, and how its weights follow from a seed where that is known."""

    file: bytes
    weights: InitialWeights | None

    @classmethod
    def of(cls, model: MaceModel, draws: list[tuple[Draw, torch.Tensor]], seed: int) -> Self:
        after = torch.get_rng_state()
        file = io.BytesIO()
        torch.save(model, file)
        return cls(file.getvalue(), InitialWeights.found(model, draws, seed, after))

    def copied(self, construct: Callable[[], MaceModel], seed: int) -> MaceModel:
        """A copy with the weights that `construct` would give a new model after this seed."""
        if self.weights is not None:
            drawn = self.weights.drawn(seed)
        else:
            torch.manual_seed(seed)
            with without_code_generation():
                drawn = construct().state_dict()
        model: MaceModel = torch.load(  # written by this process
            io.BytesIO(self.file), "cpu", weights_only=False
        )
        model.load_state_dict({**model.state_dict(), **drawn})
        return model


BLUEPRINTS = 4  # architectures whose last model is remembered
_blueprints: dict[str, _Blueprint] = {}


def first_interaction(a: ArchitectureSettings) -> str:
    """The first interaction. In a model without shift the energy of an isolated atom is E0 only if it is not residual
    (mace_run_train changes it, too).
    """
    unshifted = a.model == "MACE" and "Residual" in a.interaction_first
    return "RealAgnosticInteractionBlock" if unshifted else str(a.interaction_first)


def _constructed(a: ArchitectureSettings, elements: Sequence[int]) -> MaceModel:
    hidden = (a.num_channels * o3.Irreps.spherical_harmonics(a.max_L)).sort().irreps.simplify()
    try:
        return modules.ScaleShiftMACE(
            r_max=a.r_max,
            num_bessel=a.num_radial_basis,
            num_polynomial_cutoff=a.num_cutoff_basis,
            max_ell=a.max_ell,
            interaction_cls=modules.interaction_classes[a.interaction],
            interaction_cls_first=modules.interaction_classes[first_interaction(a)],
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
    except Exception as error:  # MACE raises many kinds of exception; all are caused by the settings
        raise SettingsError(
            f"ARCHITECTURE in mace.yaml: MACE cannot build this model ({type(error).__name__}: {error})"
        ) from error


def is_shifted(settings: MaceSettings) -> bool:
    """Whether the model has a common energy shift; plain MACE has none, its isolated atoms have exactly E0."""
    return str(settings.architecture.model) != "MACE"


def set_statistics(model: MaceModel, statistics: Statistics) -> None:
    """Write offsets, scale and neighbour mean into a model, in place."""
    with torch.no_grad():
        E0 = model.atomic_energies_fn.atomic_energies
        E0.copy_(torch.from_numpy(statistics.E0).reshape(E0.shape))
        model.atomic_energies_fn.exact = [float(e) for e in statistics.E0]  # float32: gold to 0.03 eV only
        if hasattr(model, "scale_shift"):
            model.scale_shift.scale.fill_(statistics.scale)
            model.scale_shift.shift.fill_(statistics.shift)
    for interaction in model.interactions:
        interaction.avg_num_neighbors = statistics.avg_num_neighbors


def model_atomic_energies(model: MaceModel, head: int = 0) -> torch.Tensor:
    """(Z,) eV float64 on the model's device: the exact values if the model has them, else its stored (rounded) ones."""
    whole: torch.Tensor = model.atomic_energies_fn.atomic_energies
    stored = whole.reshape(-1, len(model.atomic_numbers))[head]
    exact = getattr(model.atomic_energies_fn, "exact", None)
    if exact is None:
        return stored.double()
    return torch.tensor(exact, dtype=torch.float64, device=stored.device)


def share_energies(model: MaceModel, other: MaceModel) -> None:
    """Copy the exact atomic energies of a model to another one with the same weights."""
    other.atomic_energies_fn.exact = getattr(model.atomic_energies_fn, "exact", None)


def doubled(model: MaceModel) -> MaceModel:
    """Convert a model to double precision in place, with its exact atomic energies."""
    E0 = model_atomic_energies(model)
    model = model.double()
    if getattr(model.atomic_energies_fn, "exact", None) is not None:
        stored = model.atomic_energies_fn.atomic_energies
        stored.copy_(E0.reshape(stored.shape))
    return model


def read_statistics(model: MaceModel, head: int = 0) -> Statistics:
    """The statistics of a trained model."""
    E0 = model_atomic_energies(model, head)
    scale, shift = 1.0, 0.0
    if hasattr(model, "scale_shift"):
        scale = float(model.scale_shift.scale.reshape(-1)[head])
        shift = float(model.scale_shift.shift.reshape(-1)[head])
    neighbours = float(model.interactions[0].avg_num_neighbors)
    return Statistics(E0.cpu().numpy(), neighbours, scale, shift, "model file", 0)


def read_model(path: Path, device: str, dtype: torch.dtype | None, embeddings: bool = False) -> MaceModel:
    """Load a MACE model file. This executes code pickled in the file, so only for files that the user named.

    dtype: None for the precision it was stored in. embeddings: whether it may read charge and spin of structures.
    Raises SettingsError when there is no such file, or it does not hold a MACE model.
    """
    if not path.is_file():
        raise SettingsError(f"{path}: no such file; expected a MACE .model file")
    try:
        with quiet():
            model = torch.load(path, map_location=device, weights_only=False)
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"{path}: needs the package {error.name}, which is not installed here; install it (cuEquivariance: "
            "pip install 'aims-pax[cueq]'), or convert the file where it was made (mace_cueq_to_e3nn)"
        ) from error
    except Exception as error:  # unpickling raises many kinds of exception
        raise SettingsError(
            f"{path}: not a readable MACE .model file ({type(error).__name__}: {error})"
        ) from error
    check_model_class(model, f"{path}: holds", embeddings)
    return model.to(device=device, dtype=dtype)


def check_model_class(model: Any, said: str, embeddings: bool = False) -> None:
    """Raise SettingsError unless this is a MACE model of energies and forces. said: how the error begins."""
    embedded = hasattr(model, "joint_embedding") and not embeddings
    if type(model).__name__ not in ("MACE", "ScaleShiftMACE") or embedded:
        raise SettingsError(
            f"{said} {_what(model)}, expected a MACE model of energies and forces (MACE or "
            "ScaleShiftMACE without charge, spin or field embeddings), such as a .model file written by mace_run_train"
        )
    if type(model.radial_embedding.bessel_fn).__name__ == "ChebychevBasis":
        raise SettingsError(
            f"{said} a model with Chebyshev polynomials as radial basis, which have no derivative in MACE: its forces "
            "are not those of its energy; use a model with radial_type bessel or gaussian"
        )


def elements_of(model: MaceModel) -> tuple[int, ...]:
    """Atomic numbers of the model, in its own order."""
    return tuple(int(z) for z in model.atomic_numbers)


def _what(model: Any) -> str:
    if isinstance(model, dict):
        return "a dictionary (perhaps a checkpoint of training)"
    name = type(model).__name__
    return f"{name} with embeddings" if hasattr(model, "joint_embedding") else name


def load_model(path: Path) -> tuple[MaceModel, tuple[int, ...]]:
    """Load a model file that the user named, in its own precision; (model, atomic numbers). Raises SettingsError."""
    model = read_model(path, "cpu", None)
    if len(getattr(model, "heads", None) or ["Default"]) > 1:
        raise SettingsError(f"{path}: has the heads {', '.join(model.heads)}; use a model with one head")
    return model, elements_of(model)
