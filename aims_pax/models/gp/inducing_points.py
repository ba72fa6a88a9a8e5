"""Inducing environments: the M environments that are farthest from each other, chosen greedily for each element."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from aims_pax.frames import Array, Frame
from aims_pax.models.gp.soap import SoapDescriptor

POOL = 6000  # environments of all elements to choose from; more structures than that are taken at equal distances
AT_ONCE = 20  # structures whose spectra are computed together
SAME = 1e-9  # squared distance of normalised spectra below which two environments are one


def choose_inducing(
    frames: Sequence[Frame], descriptor: SoapDescriptor, count: int
) -> dict[int, tuple[Array, NDArray[np.int64]]]:
    """{atomic number: ((m, D) spectra, (m,) index of the frame each is from)}; Σ m ≤ count, shared like the atoms."""
    chosen = _pool(frames)
    values: dict[int, list[Array]] = {}
    source: dict[int, list[NDArray[np.int64]]] = {}
    for a in range(0, len(chosen), AT_ONCE):
        some = np.array(chosen[a : a + AT_ONCE])
        for z, found in descriptor.of([frames[k] for k in some], slopes=False).items():
            values.setdefault(z, []).append(found.values)
            source.setdefault(z, []).append(some[found.structure])
    pools = {z: (np.concatenate(values[z]), np.concatenate(source[z])) for z in sorted(values)}
    total = sum(len(q) for q, _ in pools.values())
    picked = {}
    for z, (q, of) in pools.items():
        wanted = max(1, round(count * len(q) / total))
        picks = farthest_environments(q, min(wanted, len(q)))
        picked[z] = (q[picks], of[picks])
    return picked


def farthest_environments(q: Array, count: int) -> list[int]:
    """Indices of rows of q (n, D), |q| = 1, each farthest from those before; fewer where the rest are copies."""
    nearest = np.full(len(q), np.inf)
    picks: list[int] = []
    best = 0
    for _ in range(count):
        picks.append(best)
        nearest = np.minimum(nearest, 2 - 2 * (q @ q[best]))
        best = int(nearest.argmax())
        if nearest[best] < SAME:
            break
    return picks


def _pool(frames: Sequence[Frame]) -> list[int]:
    atoms = sum(map(len, frames))
    n = len(frames) if atoms <= POOL else max(1, round(len(frames) * POOL / atoms))
    return sorted({int(k) for k in np.linspace(0, len(frames) - 1, n).round()})
