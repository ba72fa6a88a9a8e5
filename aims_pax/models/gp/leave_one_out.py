"""Errors of a process on each structure as if it had been trained without it, in closed form; and what they say about
its variances.

For a linear model with normal equations M = Σ ΦᵀΦ + λ the prediction without the rows Φ_i has the residual

    (1 − H)⁻¹ (y_i − Φ_i w),   H = Φ_i M⁻¹ Φ_iᵀ,   and the covariance σ² (1 − H)⁻¹

(Rasmussen and Williams, Gaussian Processes for Machine Learning, 5.4.2, for blocks). Inducing environments and scales
stay those of all data. Equal to refits to rounding.

The variance of the sparse process vanishes where its features do, far from all data. The part of the prior that the
inducing environments do not explain, v = A² (k** − q**), repairs this, but is too large near the data, where the
function is smoother than the prior. It counts as v²/(v + τ), so that it is full far from the data. The scale of the
rest and τ follow from the leave-one-out errors, with v as it is without the inducing environments of the structure
itself: the rest is made to cover less than it should, so that v has a part everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from aims_pax.frames import Array
from aims_pax.models.gp.linear_evidence import LinearSolution

SINGULAR = 1e-9  # 1 − H of an energy whose constant no other structure determines
NORMAL_90 = 1.6449  # half the width of the central 90 % of a normal distribution
FEWEST = 8  # errors that are enough to fit two numbers
ALONE, TOGETHER = 0.68, 0.925  # shares of leave-one-out errors in 90 % intervals
SMALL = 1e-3  # unexplained variances below this share of the squared errors do not count


@dataclass(frozen=True)
class LeaveOneOutErrors:
    """energies: (F,) eV, NaN where undefined; forces: (K,) eV/Å, all components; prediction minus label.

    energy_variances, force_variances: of the predictions including noise, (eV)², (eV/Å)², same shapes.
    """

    energies: Array
    forces: Array
    energy_variances: Array
    force_variances: Array

    @property
    def energy_mae(self) -> float:
        known = self.energies[np.isfinite(self.energies)]
        return float(np.abs(known).mean()) if len(known) else float("nan")

    @property
    def force_mae(self) -> float:
        return float(np.abs(self.forces).mean()) if len(self.forces) else float("nan")


@dataclass(frozen=True)
class StructureRows:
    """What is needed of one structure: energy: (M,) features, forces: (3A, M), counts: (E,), and its labels without the
    constants: y_energy (eV), y_forces: (3A,) eV/Å."""

    energy: Array
    forces: Array
    counts: Array
    y_energy: float
    y_forces: Array


def leave_one_out(solution: LinearSolution, structures: Iterable[StructureRows]) -> LeaveOneOutErrors:
    """The errors of each structure."""
    energies, forces, energy_variances, force_variances = [], [], [], []
    for own in structures:
        e, f, ve, vf = _without(solution, own)
        energies.append(e)
        forces.append(f)
        energy_variances.append(ve)
        force_variances.append(vf)
    return LeaveOneOutErrors(
        np.array(energies), _joined(forces), np.array(energy_variances), _joined(force_variances)
    )


def _without(solution: LinearSolution, own: StructureRows) -> tuple[float, Array, float, Array]:
    atoms = own.counts.sum()
    scale = solution.ratio * np.sqrt(atoms)  # of an energy against a force component
    row = (own.energy - own.counts @ solution.offsets) / scale
    half = np.concatenate([row[None], own.forces]) @ solution.half
    hat = half @ half.T
    hat[0, 0] += own.counts @ solution.counts_inverse @ own.counts / atoms
    predicted = own.energy @ solution.weights + own.counts @ solution.constants
    residual = np.concatenate(
        [[(own.y_energy - predicted) / scale], own.y_forces - own.forces @ solution.weights]
    )
    start = 0 if 1 - hat[0, 0] > SINGULAR else 1
    inverse = np.linalg.inv(np.eye(len(hat) - start) - hat[start:, start:])
    left = np.asarray(-(inverse @ residual[start:]), float)
    variance = np.asarray(solution.noise**2 * inverse.diagonal())
    if start:
        return np.nan, left, np.nan, variance
    return float(left[0] * scale), left[1:], float(variance[0] * scale**2), variance[1:]


def without_inducing(rows: Array, factor: Array, own: NDArray[np.int64]) -> Array:
    """Σ Φ² of whitened rows (n, m) when the inducing environments `own` (indices) are left out; K_UU = factor·factorᵀ.

    (K⁻¹)_oo of the others follows by removing from the row space what only `own` explain.
    """
    total = np.einsum("nm,nm->n", rows, rows)
    if not len(own):
        return np.asarray(total)
    unit = np.zeros((len(factor), len(own)))
    unit[own, np.arange(len(own))] = 1
    only, _ = np.linalg.qr(linalg.solve_triangular(factor, unit, lower=True, check_finite=False))
    lost = rows @ only
    return np.asarray(total - np.einsum("nm,nm->n", lost, lost))


# ---------------------------------------------------------------- variances


@dataclass(frozen=True)
class VarianceScale:
    """variance = scale·(cheap variance) + v²/(v + near), v: the unexplained prior variance."""

    scale: float = 1.0
    near: float = 0.0

    def __call__(self, cheap: Array, unexplained: Array) -> Array:
        v = np.maximum(unexplained, 0.0)
        return np.asarray(self.scale * cheap + v * v / np.maximum(v + self.near, 1e-300))


UNSCALED = VarianceScale()


def fit_variance_scale(errors: Array, cheap: Array, unexplained: Array) -> VarianceScale:
    """`scale` so that the cheap part alone covers the share ALONE of the errors in its 90 % intervals, then the largest
    unexplained part with which they cover TOGETHER."""
    use = np.isfinite(errors) & np.isfinite(cheap) & (cheap > 0)
    e, d, v = np.abs(errors[use]), cheap[use], np.maximum(unexplained[use], 0.0)
    if len(e) < FEWEST:
        return VarianceScale(near=float(np.median(v)) if len(v) else 0.0)
    typical = float(np.median(v))
    if typical <= SMALL * float(np.median(e)) ** 2:
        return VarianceScale(_scale(e, d, TOGETHER), 0.0)
    scale = _scale(e, d, ALONE)
    for near in typical * 10 ** np.arange(6.0, -0.01, -0.1):
        found = VarianceScale(scale, float(near))
        if float(np.mean(e < NORMAL_90 * np.sqrt(found(d, v)))) >= TOGETHER:
            return found
    bare = np.maximum(e**2 / NORMAL_90**2 - v * v / (v + typical), 0)  # what the cheap part has to cover
    return VarianceScale(max(scale, float(np.quantile(bare / d, TOGETHER))), typical)


def _scale(errors: Array, cheap: Array, share: float) -> float:
    """With which variances `cheap` cover this share of the errors in 90 % intervals."""
    return (float(np.quantile(errors / np.sqrt(cheap), share)) / NORMAL_90) ** 2


def _joined(parts: list[Array]) -> Array:
    return np.concatenate(parts) if parts else np.zeros(0)
