"""Inducing environments: the M environments that are farthest from each other, chosen greedily for each element.

Where an element has only a few, those of displaced copies are added, which need no labels. The kernel of normalised
spectra has no slope at an inducing environment, ∂(q̂·u)^ζ = 0 at q̂ = u, so that with one for each element, as for a
dimer or another symmetric molecule, all forces would be zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from aims_pax.frames import Array, Frame
from aims_pax.models.gp.soap import SoapDescriptor

POOL = 6000  # environments of all elements to choose from; more structures than that are taken at equal distances
AT_ONCE = 20  # structures whose spectra are computed together
FEW = 12  # environments of an element below which those of displaced copies are added
DISPLACED = 0.1  # Å, standard deviation
COPIES = 24  # displaced copies of all structures together, at most
SAME = 1e-9  # squared distance of normalised spectra below which two environments are one


def choose_inducing(
    frames: Sequence[Frame], descriptor: SoapDescriptor, count: int
) -> dict[int, tuple[Array, NDArray[np.int64]]]:
    """{atomic number: ((m, D) spectra, (m,) index of the frame each is from)}; Σ m ≤ count, shared like the atoms."""
    chosen = _pool(frames)
    pools = _environments([frames[k] for k in chosen], np.array(chosen), descriptor)
    total = sum(len(q) for q, _ in pools.values())
    wanted = {z: max(1, round(count * len(q) / total)) for z, (q, _) in pools.items()}
    picks = {z: farthest_environments(q, min(wanted[z], len(q))) for z, (q, _) in pools.items()}
    few = [z for z, own in picks.items() if len(own) < min(FEW, wanted[z])]
    if few:
        more = _environments(*_displaced(frames, chosen), descriptor)
        for z in few:
            q, of = (np.concatenate(both) for both in zip(pools[z], more[z], strict=True))
            pools[z] = q, of
            picks[z] = farthest_environments(q, min(wanted[z], FEW), picks[z])
    return {z: (q[picks[z]], of[picks[z]]) for z, (q, of) in pools.items()}


def _environments(
    frames: Sequence[Frame], source: NDArray[np.int64], descriptor: SoapDescriptor
) -> dict[int, tuple[Array, NDArray[np.int64]]]:
    """{atomic number, ascending: (spectra, the source of the frame of each)}."""
    values: dict[int, list[Array]] = {}
    of: dict[int, list[NDArray[np.int64]]] = {}
    for a in range(0, len(frames), AT_ONCE):
        for z, found in descriptor.of(frames[a : a + AT_ONCE], slopes=False).items():
            values.setdefault(z, []).append(found.values)
            of.setdefault(z, []).append(source[a : a + AT_ONCE][found.structure])
    return {z: (np.concatenate(values[z]), np.concatenate(of[z])) for z in sorted(values)}


def _displaced(frames: Sequence[Frame], chosen: Sequence[int]) -> tuple[list[Frame], NDArray[np.int64]]:
    """Copies of structures, each the same in every call, and the indices of the structures."""
    rng = np.random.default_rng(0)
    source = [k for k in chosen for _ in range(max(1, COPIES // len(chosen)))]
    return [
        frames[k].moved(frames[k].positions + rng.normal(0, DISPLACED, (len(frames[k]), 3))) for k in source
    ], np.array(source)


def farthest_environments(q: Array, count: int, begin: Sequence[int] = (0,)) -> list[int]:
    """Indices of rows of q (n, D), |q| = 1, each farthest from those before; fewer where the rest are copies.

    begin: the first ones.
    """
    picks = list(begin)
    nearest = (2 - 2 * (q @ q[picks].T)).min(1)
    while len(picks) < count:
        best = int(nearest.argmax())
        if nearest[best] < SAME:
            break
        picks.append(best)
        nearest = np.minimum(nearest, 2 - 2 * (q @ q[best]))
    return picks


def _pool(frames: Sequence[Frame]) -> list[int]:
    atoms = sum(map(len, frames))
    n = len(frames) if atoms <= POOL else max(1, round(len(frames) * POOL / atoms))
    return sorted({int(k) for k in np.linspace(0, len(frames) - 1, n).round()})
