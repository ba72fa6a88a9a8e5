"""Uncertainty of forces: the disagreement of ensemble members, or the model's own estimate.

Atomic spread, population variance averaged over components (Eq. 1 of arXiv:2508.12888):

    σ_a = sqrt( 1/(3M) · Σ_m Σ_k (F_mak − F̄_ak)² )

with M members, atoms a and Cartesian components k. A model's own estimate (`Evaluation.spread`) is used instead, if it
has one: it has the same unit and is also the standard deviation of one component.
"""

from __future__ import annotations

import numpy as np

from aims_pax.frames import Array


def atomic_sd(forces: Array) -> Array:
    """σ_a in eV/Å, (N,), from the members' forces (M, N, 3) eV/Å."""
    deviation = forces - forces.mean(axis=0)  # (M, N, 3)
    sigma: Array = np.sqrt((deviation**2).mean(axis=(0, 2)))
    return sigma


def atomic_spread(forces: Array, own: Array | None = None) -> Array:
    """(N,) eV/Å: the model's own spread (N,) where it gives one, else σ_a of the members' forces (M, N, 3).

    Raises ValueError for one member without a spread: it has no uncertainty.
    """
    if own is not None:
        return np.asarray(own, float)
    if len(forces) < 2:
        raise ValueError("one member without its own spread has no uncertainty; use at least two members")
    return atomic_sd(forces)


def uncertainty(forces: Array, kind: str, own: Array | None = None) -> tuple[float, ...]:
    """Uncertainty in eV/Å of one frame: one value, or one per atom for `ensemble_sd`.

    forces: (M, N, 3) eV/Å. own: (N,) eV/Å, the model's own spread. kind: max_atomic_sd | mean_atomic_sd | ensemble_sd.
    Raises ValueError for another kind, and for one member without a spread.

    >>> forces = np.array([[[0.0, 0, 0], [1, 0, 0]], [[0.0, 0, 0], [3, 0, 0]]])
    >>> [round(u, 3) for u in uncertainty(forces, "ensemble_sd")]
    [0.0, 0.577]
    """
    sigma = atomic_spread(forces, own)
    if kind == "max_atomic_sd":
        return (float(sigma.max()),)
    if kind == "mean_atomic_sd":
        return (float(sigma.mean()),)
    if kind == "ensemble_sd":
        return tuple(float(s) for s in sigma)
    raise ValueError(f"uncertainty_type {kind!r}")
