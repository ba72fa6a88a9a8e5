"""Whether a model repeats its training data.

The distance of two structures of one composition is the root mean square difference of their sorted interatomic
distances, pair of elements by pair of elements; distances between fixed atoms are left out. A sample counts as
memorised if it is closer to a training structure than 5 % of the held-out structures are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from aims_pax.frames import Array
from aims_pax.models.diffusion.atoms_graph import AtomsGraph
from aims_pax.models.neighbour_list import completed

QUANTILE = 0.05
SAME = 1e-5  # Å: structures nearer than that are one


def memorised_fraction(
    samples: Sequence[AtomsGraph], train: Sequence[AtomsGraph], held_out: Sequence[AtomsGraph]
) -> float:
    """Fraction of samples that are memorised; NaN where no held-out structure has their composition."""
    pools, others, made = (_by_composition(g) for g in (train, held_out, samples))
    close = total = 0
    for kind, rows in made.items():
        if kind not in pools or kind not in others:
            continue
        apart = nearest_distances(others[kind], pools[kind])
        apart = apart[apart > SAME]  # held-out copies of training structures say nothing
        limit = np.quantile(apart, QUANTILE) if len(apart) else 0.0
        close += int((nearest_distances(rows, pools[kind]) < max(limit, SAME)).sum())
        total += len(rows)
    return close / total if total else float("nan")


def nearest_distances(rows: Array, pool: Array) -> Array:
    """(n,) Å: the distance of each fingerprint (n, D) to the nearest of a pool (m, D)."""
    return np.array([np.sqrt(np.square(pool - row).mean(1)).min() for row in rows])


def distance_fingerprint(graph: AtomsGraph) -> Array:
    """(D,) Å: sorted distances, by pair of elements; the nearest image of each pair in a cell."""
    order = np.lexsort((graph.fixed, graph.x))
    x, pos, fixed = graph.x[order], graph.pos[order], graph.fixed[order]
    i, j = np.triu_indices(len(x), 1)
    keep = ~(fixed[i] & fixed[j])
    i, j = i[keep], j[keep]
    vectors = pos[j] - pos[i]
    if graph.pbc.any():
        box = completed(graph.cell, graph.pbc)
        f = vectors @ np.linalg.inv(box)
        vectors = (f - np.round(f) * graph.pbc) @ box
    d = np.linalg.norm(vectors, axis=1)
    kinds = x[i] * 200 + x[j]
    found: Array = d[np.lexsort((d, kinds))]
    return found


def _by_composition(graphs: Sequence[AtomsGraph]) -> dict[tuple[bytes, int], Array]:
    found: dict[tuple[bytes, int], list[Array]] = defaultdict(list)
    for graph in graphs:
        found[np.sort(graph.x).tobytes(), int(graph.fixed.sum())].append(distance_fingerprint(graph))
    return {kind: np.stack(rows) for kind, rows in found.items()}
