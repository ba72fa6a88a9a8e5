"""Shortest interatomic distances: of each pair of elements, in each labelled frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from aims_pax.frames import Array
from aims_pax.report.figures.style import thinned
from aims_pax.report.tolerant_readers import StoredStructure, StructureHeader

MOST = 600  # frames evaluated at most, evenly distributed over the run
REACH = 3.6  # Å, cutoff in crystals


def shortest_by_pair(structures: Sequence[StructureHeader]) -> dict[tuple[int, int], list[float]]:
    """{(Z, Z'): shortest distance in Å of each frame that has the pair}, Z ≤ Z'."""
    found: dict[tuple[int, int], list[float]] = {}
    for k in thinned(len(structures), MOST):
        geometry = structures[int(k)].geometry()
        if geometry is not None:
            for pair, d in pairs(geometry).items():
                found.setdefault(pair, []).append(d)
    return found


def pairs(geometry: StoredStructure) -> dict[tuple[int, int], float]:
    """The shortest distance (Å) of each pair of elements; periodic images count up to REACH."""
    z = geometry.numbers
    i, j, d = _neighbours(geometry)
    low, high = np.minimum(z[i], z[j]), np.maximum(z[i], z[j])
    found: dict[tuple[int, int], float] = {}
    for key in np.unique(low * 200 + high):
        found[int(key) // 200, int(key) % 200] = float(d[low * 200 + high == key].min())
    return found


def _neighbours(geometry: StoredStructure) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    if any(geometry.pbc):
        from matscipy.neighbours import neighbour_list

        cell = geometry.cell
        i, j, d = neighbour_list(
            "ijd", positions=geometry.positions, cell=cell, pbc=geometry.pbc, cutoff=REACH
        )
        return i, j, d
    i, j = np.triu_indices(len(geometry.symbols), 1)
    return i, j, np.linalg.norm(geometry.positions[i] - geometry.positions[j], axis=1)
