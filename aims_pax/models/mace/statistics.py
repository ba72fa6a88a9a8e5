"""Statistics of a member's first training set: fixed afterwards, except for the energy offsets.

    E ≈ Σ_z n_z·E0_z + Σ_a ( scale·ε_a + shift )

The mean number of neighbours and the scale are not changed later, because this would rescale all forces of trained
weights. Only the offsets (E0, or the shift when E0 are given) are refitted.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase.data import chemical_symbols
from numpy.typing import NDArray

from aims_pax.errors import SettingsError
from aims_pax.frames import Array
from aims_pax.models.mace.graphs import LabelledGraph

log = logging.getLogger(__name__)

DISTINCT = 1e-6  # compositions that differ less (relative singular value) are not distinguished
LEAST_SQUARES = "least squares"
ISOLATED = "isolated atoms"
CORRECTED = "the foundation model, corrected by least squares on its residuals"  # source of fine-tuned models
SCALINGS = ("rms_forces_scaling", "std_scaling", "no_scaling")


@dataclass(frozen=True, eq=False)
class Statistics:
    """E0: (Z,) eV. scale: eV. shift: eV/atom. source: `given`, `isolated atoms`, `least squares`, `CORRECTED`,
    or `given; X: …` if the user gave those of some elements. `…; isolated atoms: H O`: those of H and O are not fitted.

    rank: atomic energies that the compositions and isolated atoms determine; more of them later is new information.
    """

    E0: Array
    avg_num_neighbors: float
    scale: float
    shift: float
    source: str
    rank: int

    @property
    def fitted_E0(self) -> bool:
        """Whether the atomic energies themselves are refitted."""
        return LEAST_SQUARES in self.source


def measure(
    graphs: Sequence[LabelledGraph],
    elements: Sequence[int],
    *,
    scaling: str,
    dtype: torch.dtype,
    given: Mapping[int, float] | None = None,
    count_neighbours: bool = True,
    shifted: bool = True,
) -> Statistics:
    """The statistics of a training set. `shifted` is False for plain MACE, whose isolated atoms have exactly E0."""
    bulk = [g for g in graphs if not g.isolated]
    if not bulk:
        raise ValueError("no training frame has more than one atom")
    E0, source = fit_atomic_energies(graphs, elements, given)
    E0 = as_stored(E0, dtype)
    composition = np.stack([g.composition for g in bulk])
    atoms = composition.sum(1)
    residual = (np.array([g.energy for g in bulk]) - composition @ E0) / atoms
    return Statistics(
        E0=E0,
        avg_num_neighbors=mean_neighbours(bulk) if count_neighbours else 1.0,
        scale=_scale(scaling, bulk, residual),
        shift=float(as_stored(np.array(residual.mean()), dtype)) if shifted else 0.0,
        source=source,
        rank=determined(composition, free_elements(source, elements)),
    )


def fit_atomic_energies(
    graphs: Sequence[LabelledGraph], elements: Sequence[int], given: Mapping[int, float] | None
) -> tuple[Array, str]:
    """(Z,) eV and where they come from: given, else isolated atoms among the frames, else least squares."""
    if given is not None:
        missing = [z for z in elements if z not in given]
        if missing:
            raise SettingsError(f"ARCHITECTURE.atomic_energies: no value for atomic numbers {missing}")
        return np.array([given[z] for z in elements], float), "given"
    alone = lone_atoms(graphs)
    if len(alone) == len(elements):
        return np.array([alone[k] for k in range(len(elements))]), ISOLATED
    bulk = [g for g in graphs if not g.isolated]
    composition = np.stack([g.composition for g in bulk])
    energies = np.array([g.energy for g in bulk])
    fixed = np.zeros(len(elements))
    fixed[list(alone)] = list(alone.values())
    free = np.array([k not in alone for k in range(len(elements))])
    E0 = fit_free_offsets(composition, energies - composition @ fixed, free) + fixed
    return E0, beside_isolated(LEAST_SQUARES, [elements[k] for k in sorted(alone)])


def beside_isolated(source: str, elements: Sequence[int]) -> str:
    """The source of atomic energies of which those of some elements are of isolated atoms."""
    symbols = " ".join(chemical_symbols[z] for z in elements)
    return f"{source}; {ISOLATED}: {symbols}" if symbols else source


def free_elements(source: str, elements: Sequence[int]) -> NDArray[np.bool_]:
    """(Z,) which atomic energies a refit may change: all but those that this source says are of isolated atoms."""
    fixed = source.partition(f"; {ISOLATED}: ")[2].split()
    return np.array([chemical_symbols[z] not in fixed for z in elements])


def determined(composition: Array, free: NDArray[np.bool_]) -> int:
    """The number of atomic energies that are known (not free), or that follow from these compositions."""
    return int(np.linalg.matrix_rank(composition * free)) + int((~free).sum())


def lone_atoms(graphs: Sequence[LabelledGraph]) -> dict[int, float]:
    """{index of the element: eV} of the isolated neutral atoms among the graphs.

    Of several of one element (other multiplicities) the lowest is the ground state.
    """
    found: dict[int, float] = {}
    for graph in graphs:
        if graph.isolated and graph.neutral:
            k = int(np.argmax(graph.composition))
            found[k] = min(graph.energy, found.get(k, graph.energy))
    return found


def smallest_correction(composition: Array, residuals: Array) -> Array:
    """(Z,) the smallest changes of the atomic energies that explain residuals: Σ_z n_z·δ_z ≈ r, |δ| minimal.

    Least squares in energies per atom. Elements that do not occur do not change; what the compositions do not
    distinguish is shared in proportion to the numbers of atoms. composition: (F, Z). residuals: (F,) eV.
    """
    atoms = np.maximum(composition.sum(1), 1)
    correction, *_ = np.linalg.lstsq(composition / atoms[:, None], residuals / atoms, rcond=DISTINCT)
    return np.asarray(correction, float)


def fit_offsets(
    composition: Array, energies: Array, weight: Array | None = None, trust: float = 0.0
) -> Array:
    """(Z,) offsets of the elements from Σ_z n_z·e_z ≈ E by least squares in energies per atom.

    Elements that the compositions do not distinguish (for example if there is a single composition) share one common
    shift per atom; elements that do not occur also get the common shift. With `trust` (ridge regression) this holds
    approximately where the mean squared difference in the fractions of elements is below `trust`.

    composition: (F, Z). energies: (F,) eV. weight: (F,) number of frames that each represents; default 1.
    """
    w = np.ones(len(energies)) if weight is None else weight
    root = np.sqrt(w / w.sum())
    atoms = np.maximum(composition.sum(1), 1)
    shares, each = composition / atoms[:, None], energies / atoms
    common = float(np.average(each, weights=w))
    left, right = root[:, None] * shares, root * (each - common)
    if trust:
        left = np.concatenate([left, np.sqrt(trust) * np.eye(shares.shape[1])])
        right = np.concatenate([right, np.zeros(shares.shape[1])])
    own, *_ = np.linalg.lstsq(left, right, rcond=1e-10)
    offsets: Array = common + own
    return offsets


def fit_free_offsets(
    composition: Array,
    energies: Array,
    free: NDArray[np.bool_],
    weight: Array | None = None,
    trust: float = 0.0,
) -> Array:
    """(Z,) `fit_offsets` for the free elements, from the frames that have any; 0 for the others."""
    own = composition * free
    rows = own.sum(1) > 0
    if not rows.any():
        return np.zeros(len(free))
    offsets: Array = fit_offsets(own[rows], energies[rows], None if weight is None else weight[rows], trust)
    return offsets * free


def mean_neighbours(graphs: Sequence[LabelledGraph]) -> float:
    """Mean number of neighbours of atoms that have any."""
    counts = torch.cat([torch.bincount(g.edges[1], minlength=len(g)) for g in graphs])
    counts = counts[counts > 0]
    return float(counts.double().mean()) if len(counts) else 1.0


def as_stored(values: Array, dtype: torch.dtype) -> Array:
    """Values rounded as the model stores them, so that labels are shifted by exactly what the model adds."""
    stored: Array = torch.from_numpy(np.asarray(values, float)).to(dtype).double().numpy()
    return stored


def _scale(scaling: str, graphs: Sequence[LabelledGraph], residual: Array) -> float:
    if scaling == "no_scaling":
        return 1.0
    if scaling == "rms_forces_scaling":
        forces = torch.cat([g.forces for g in graphs]).double()
        scale = float(forces.square().mean().sqrt())
    else:
        scale = float(residual.std(ddof=1)) if len(residual) > 1 else 0.0
    if not scale > 1e-8:
        log.warning("%s gives %.2e: energies are not scaled", scaling, scale)
        return 1.0
    return scale
