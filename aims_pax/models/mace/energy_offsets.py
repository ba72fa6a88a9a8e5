"""Energy offsets that are refitted during training: E0 if they came from least squares (but those of isolated atoms
among the frames), else the common shift.

Forces do not depend on them, and gradients adjust them slowly: at a force weight of 1000 they lag many epochs behind.
So a visit ends with a fit to the residuals of the averaged weights on a sample of its training frames. The size of the
sample is limited, so that the cost does not grow with the training set; a stage ends with a fit to all frames.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from ase.data import chemical_symbols
from numpy.typing import NDArray

from aims_pax.frames import Array
from aims_pax.models.batch_splitting import BatchSplitter
from aims_pax.models.mace.build import is_shifted
from aims_pax.models.mace.foundation_error import foundation_force_mae
from aims_pax.models.mace.graphs import LabelledGraph, collate
from aims_pax.models.mace.losses import energies
from aims_pax.models.mace.mace_import import MaceModel
from aims_pax.models.mace.member import Beginning, Member
from aims_pax.models.mace.statistics import (
    CORRECTED,
    ISOLATED,
    as_stored,
    beside_isolated,
    determined,
    fit_free_offsets,
    free_elements,
    lone_atoms,
    measure,
    smallest_correction,
)

if TYPE_CHECKING:
    from aims_pax.settings.mace import MaceSettings

log = logging.getLogger(__name__)

SAMPLE = 24  # frames evaluated after a visit; one of each composition as far as possible
EDGES = 20_000  # of structures evaluated together
TRUST = 1e-4  # smallest squared difference in composition (fractions of elements) that a sample can resolve


def refit(member: Member, train: Sequence[LabelledGraph], most: int | None = None) -> None:
    """Fit the offsets to the averaged weights on these frames, or on a sample of about `most` of them.

    With a sample, elements get different offsets only if compositions differ clearly. Otherwise the noise of many
    visits would accumulate in differences that the data do not determine.
    """
    shifted = is_shifted(member.settings) and hasattr(member.model, "scale_shift")
    if member.statistics is None or not (member.statistics.fitted_E0 or shifted):
        return
    graphs, weight = (list(train), np.ones(len(train))) if most is None else sample_graphs(train, most)
    if not graphs:
        return
    composition = np.stack([g.composition for g in graphs])
    residual = residuals(member, graphs)
    if not np.isfinite(residual).all():
        return
    if member.statistics.fitted_E0:
        trust = 0.0 if most is None else TRUST
        free = free_elements(member.statistics.source, member.elements)
        change = fit_free_offsets(composition, residual, free, weight, trust)
        wanted = member.statistics.E0 + change
        member.shift_offsets(E0=wanted)
        if shifted:  # takes what rounding to the precision of the model took: of gold up to 0.03 eV an atom
            lost = composition @ (wanted - member.statistics.E0) / composition.sum(1)
            member.shift_offsets(shift=member.statistics.shift + float(np.average(lost, weights=weight)))
    else:
        mean = float(np.average(residual / composition.sum(1), weights=weight))
        member.shift_offsets(shift=member.statistics.shift + mean)


def residuals(member: Member, graphs: Sequence[LabelledGraph]) -> Array:
    """(F,) label minus prediction of the averaged weights, eV."""
    assert member.statistics is not None
    with member.average.in_place():
        return _residuals_of(member.model, member.statistics.E0, graphs, member.device)


def _residuals_of(
    model: MaceModel, E0: Array, graphs: Sequence[LabelledGraph], device: torch.device
) -> Array:
    """(F,) label minus prediction of a model with these atomic energies, eV."""

    def work(first: int, end: int) -> Array:
        batch = collate(graphs[first:end], E0, device)
        difference: Array = (batch.energy.double() - energies(model, batch).double()).cpu().numpy()
        return difference

    sizes = [graph.edges.shape[1] for graph in graphs]
    return np.concatenate(BatchSplitter("energy offsets", str(device), EDGES).each(sizes, work))


def sample_graphs(
    graphs: Sequence[LabelledGraph], most: int
) -> tuple[list[LabelledGraph], NDArray[np.float64]]:
    """About `most` of the graphs, evenly spaced within each composition, and the number that each represents."""
    if len(graphs) <= most:
        return list(graphs), np.ones(len(graphs))
    kinds: dict[bytes, list[int]] = {}
    for k, graph in enumerate(graphs):
        kinds.setdefault(graph.composition.tobytes(), []).append(k)
    places = set(_even(len(kinds), min(len(kinds), most)))
    groups = [group for n, group in enumerate(kinds.values()) if n in places]
    total = sum(len(group) for group in groups)
    chosen: list[LabelledGraph] = []
    weight: list[float] = []
    for group in groups:
        quota = min(len(group), max(1, round(most * len(group) / total)))
        chosen += [graphs[group[k]] for k in _even(len(group), quota)]
        weight += [len(group) / quota] * quota
    return chosen, np.array(weight)


def _even(n: int, m: int) -> list[int]:
    """m ≤ n different indices below n, evenly spaced, including the last one."""
    return [int(x) for x in np.linspace(n - 1, 0, m).round()[::-1]]


def take_statistics(
    member: Member,
    everything: Sequence[LabelledGraph],
    train: Sequence[LabelledGraph],
    given: Mapping[int, float] | None,
) -> None:
    """Measure the statistics at the first training; refit the atomic energies when later compositions determine more.

    everything: training graphs with isolated atoms. given: the user's atomic energies, {Z: eV}, or None.
    """
    if not train:
        raise ValueError(f"{member.name}: nothing to train on")
    if member.statistics is None and member.begun_from is not None:
        _continue_foundation(member, member.begun_from, everything, train, given)
        return
    if member.statistics is None:
        a = member.settings.architecture
        s = measure(
            everything,
            member.elements,
            scaling=a.scaling,
            dtype=member.dtype,
            given=given,
            count_neighbours=a.compute_avg_num_neighbors,
            shifted=is_shifted(member.settings),
        )
        member.freeze(s)
        log.info(
            "%s: atomic energies from %s, %.1f neighbours, scale %.3f eV, shift %.3f eV/atom",
            member.name, s.source, s.avg_num_neighbors, s.scale, s.shift,
        )  # fmt: skip
        return
    free = free_elements(member.statistics.source, member.elements)
    rank = determined(np.stack([g.composition for g in train]), free)
    if rank > member.statistics.rank and (member.statistics.fitted_E0 or not member.statistics.rank):
        refit(member, train)
        assert member.statistics is not None
        member.statistics = replace(member.statistics, rank=rank)


def _continue_foundation(
    member: Member,
    begun: Beginning,
    everything: Sequence[LabelledGraph],
    train: Sequence[LabelledGraph],
    given: Mapping[int, float] | None,
) -> None:
    """Scale, shift and neighbours of the foundation model; atomic energies of the user, of isolated atoms, or its own
    with the smallest correction that explains its residuals on these frames. Never means of total energies.

    The correction is that of the foundation model itself. What the perturbation of the member adds to energies is then
    fitted as usual.
    """
    before = begun.statistics
    composition = np.stack([g.composition for g in train])
    fixed = lone_atoms(everything)
    if given is not None:
        fixed = {k: given[z] for k, z in enumerate(member.elements) if z in given}
    occurring = np.flatnonzero(composition.sum(0))
    free = np.array([k in occurring and k not in fixed for k in range(len(member.elements))])
    names = [chemical_symbols[z] for z in member.elements]
    source = "given" if given is not None else ISOLATED
    if given is None and free.any():
        source = beside_isolated(CORRECTED, [member.elements[k] for k in sorted(fixed)])
    if given is not None and free.any():
        others = " ".join(s for s, own in zip(names, free, strict=True) if own)
        source = f"given; {others}: the foundation model, corrected on its residuals"
    E0 = np.array(before.E0)
    E0[list(fixed)] = list(fixed.values())
    rank = determined(composition, free_elements(source, member.elements))
    member.freeze(replace(before, E0=as_stored(E0, member.dtype), source=source, rank=rank))
    error = foundation_force_mae(begun.model, E0, train, member.device)
    residual = _residuals_of(begun.model, E0, train, member.device)
    correction = smallest_correction(composition * free, residual)
    member.shift_offsets(E0=E0 + correction)
    refit(member, train)
    known = np.linalg.matrix_rank(composition * free)
    moved = ", ".join(f"{s} {d:+.3f}" for s, d, own in zip(names, correction, free, strict=True) if own)
    log.info(
        "%s: atomic energies from %s%s; scale %.3f eV and %.1f neighbours are those of the foundation model, whose "
        "force MAE on these frames is %.1f meV/Å before training",
        member.name, source,
        f" of {len(train)} frames ({moved} eV; {known} of {free.sum()} elements determined)" if moved else "",
        before.scale, before.avg_num_neighbors, 1000 * error,
    )  # fmt: skip


def given_energies(
    settings: MaceSettings, elements: Sequence[int], folder: Path | None, others: Sequence[int] = ()
) -> dict[int, float] | None:
    """{Z: eV} if the user gave atomic energies, else None. others: elements whose energies may be missing."""
    value = settings.architecture.atomic_energies
    if value is None:
        return None
    from aims_pax.settings.mace import atomic_energies_by_element

    return atomic_energies_by_element(value, elements, folder, others)
