"""Estimates for MACE models from settings and geometries: number of parameters, memory, size of snapshots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from aims_pax.settings import Settings
from aims_pax.systems import System, count_neighbours, elements

# Bytes saved for the backward pass are 4 · C · layers · k · (E n, E n (L+1), N (L+1)² n^(ν−1), Z (L+1)² n^ν) with
# n = (ℓ+1)², E edges, N atoms, Z elements, ν correlation. k: least-squares fit to 10 MACE models, accurate within a
# factor of two, to the tensors saved by MACE's own modules; the faster evaluation of aims-PAX needs less.
SAVED = {"moving": (1.54, 0.226, 0.170, 0.626), "training": (4.55, 1.18, 0.436, 0.715)}
PER_MEMBER = 7  # copies of the parameters: weights, gradient, Adam with AMSGrad (3), averages (2)


def estimate_parameters(settings: Settings, n_elements: int) -> int:
    """Approximate number of parameters of one member, without the few hundred path weights of the contraction."""
    a = settings.mace.architecture
    C, L, Z = a.num_channels, a.max_L, n_elements
    total = Z * C
    for layer in range(a.num_interactions):
        into = 1 if layer == 0 else L + 1  # degrees of the input features
        out = 1 if layer == a.num_interactions - 1 else L + 1
        paths = sum(
            1
            for l1 in range(into)
            for l2 in range(a.max_ell + 1)
            for l3 in range(a.max_ell + 1)
            if abs(l1 - l2) <= l3 <= l1 + l2 and (l1 + l2 + l3) % 2 == 0
        )
        widths = [a.num_radial_basis, *a.radial_MLP, paths * C]
        total += sum(x * y for x, y in pairwise(widths))
        total += into * C * C + paths * C * C + out * C * C  # linear: before, after convolution, product
        total += min(into, out) * C * C * Z  # the residual, one for each element
    return total


def estimate_memory(
    settings: Settings, systems: Sequence[System], trajectories: Mapping[str, int]
) -> dict[str, float]:
    """Estimates in MB, in addition to ~600 MB of torch and MACE: members, one training batch, one MD step of all.

    trajectories: {name of a system: number of its trajectories that are evaluated together}.
    """
    a, general = settings.mace.architecture, settings.mace.general
    size = 8 if general.default_dtype == "float64" else 4
    zs = len(elements(s.frame for s in systems))
    edges = {s.name: count_neighbours(s.frame, a.r_max) for s in systems}
    atoms = {s.name: len(s.frame) for s in systems}
    batch = settings.mace.training.batch_size
    largest = max(systems, key=lambda s: edges[s.name]).name
    members = estimate_parameters(settings, zs) * size * PER_MEMBER * settings.ensemble_size

    def saved(what: str, n_edges: float, n_atoms: float) -> float:
        n, degrees = (a.max_ell + 1) ** 2, a.max_L + 1
        terms = (
            n_edges * n, n_edges * n * degrees, n_atoms * degrees**2 * n ** (a.correlation - 1),
            zs * degrees**2 * n**a.correlation,
        )  # fmt: skip
        return size * a.num_channels * a.num_interactions * float(np.dot(SAVED[what], terms))

    return {
        "members": _mega(members),
        "training": _mega(saved("training", batch * edges[largest], batch * atoms[largest])),
        "moving": _mega(
            saved(
                "moving",
                sum(edges[s] * k for s, k in trajectories.items()),
                sum(atoms[s] * k for s, k in trajectories.items()),
            )
        ),
    }


def snapshot_bytes(settings: Settings, n_elements: int) -> float:
    """Bytes of all members with the state of their training."""
    size = 8 if settings.mace.general.default_dtype == "float64" else 4
    return float(estimate_parameters(settings, n_elements) * size * settings.ensemble_size * PER_MEMBER)


def _mega(size: float) -> float:
    return float(f"{size / 1e6:.2g}")
