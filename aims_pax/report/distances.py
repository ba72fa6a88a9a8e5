"""Interatomic distances: the shortest of each pair of elements, in each labelled frame, and their histograms."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from aims_pax.frames import Array, Geometry
from aims_pax.report.figures.style import thinned
from aims_pax.report.tolerant_readers import StructureHeader

MOST = 600  # frames evaluated at most, evenly distributed over the run
REACH = 3.6  # Å, cutoff in crystals
BIN = 0.04  # Å, of histograms
Pair = tuple[int, int]


def shortest_by_pair(structures: Sequence[StructureHeader]) -> dict[Pair, list[float]]:
    """{(Z, Z'): shortest distance in Å of each frame that has the pair}, Z ≤ Z'."""
    found: dict[Pair, list[float]] = {}
    for k in thinned(len(structures), MOST):
        geometry = structures[int(k)].geometry()
        if geometry is not None:
            for pair, d in pairs(geometry).items():
                found.setdefault(pair, []).append(d)
    return found


def pairs(geometry: Geometry) -> dict[Pair, float]:
    """The shortest distance (Å) of each pair of elements; periodic images count up to REACH."""
    return {pair: float(d.min()) for pair, d in distances_by_pair(geometry).items()}


def distances_by_pair(geometry: Geometry) -> dict[Pair, Array]:
    """All distances (Å) of each pair of elements; periodic images count up to REACH."""
    z = geometry.numbers
    i, j, d = _neighbours(geometry)
    low, high = np.minimum(z[i], z[j]), np.maximum(z[i], z[j])
    both = low * 200 + high
    return {(int(key) // 200, int(key) % 200): d[both == key] for key in np.unique(both)}


def distance_histograms(
    geometries: Iterable[Geometry],
) -> tuple[dict[Pair, NDArray[np.int64]], dict[Pair, float]]:
    """({pair: counts in bins of BIN from 0 to REACH}, {pair: the shortest distance, Å}) over these structures."""
    edges = np.linspace(0, REACH, round(REACH / BIN) + 1)
    counts: dict[Pair, NDArray[np.int64]] = {}
    shortest: dict[Pair, float] = {}
    for geometry in geometries:
        for pair, d in distances_by_pair(geometry).items():
            counts[pair] = counts.get(pair, np.zeros(len(edges) - 1, np.int64)) + np.histogram(d, edges)[0]
            shortest[pair] = min(shortest.get(pair, np.inf), float(d.min()))
    return counts, shortest


def _neighbours(geometry: Geometry) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    if any(geometry.pbc):
        from ase.geometry import complete_cell
        from matscipy.neighbours import neighbour_list

        cell = complete_cell(geometry.cell)  # a slab or wire may have no vector along an open direction
        i, j, d = neighbour_list(
            "ijd", positions=geometry.positions, cell=cell, pbc=geometry.pbc, cutoff=REACH
        )
        return i, j, d
    i, j = np.triu_indices(len(geometry.numbers), 1)
    return i, j, np.linalg.norm(geometry.positions[i] - geometry.positions[j], axis=1)
