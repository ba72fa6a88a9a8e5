"""The dense process on coordinates of a whole structure: distances of molecules up to four atoms, or Cartesian ones.

    k(x, x') = Σ_P exp(−|x − P x'|²/2l²),  P: permutations of identical atoms;  x_p = r^−p of all pairs, or x = r

Energies and forces are observed; with J = ∂x/∂r (rows: directions of motion) and D = x − x',

    cov(F, E') = J D k/l²,   cov(E, F') = −D J'ᵀ k/l²,   cov(F, F') = [J J'ᵀ − (J D)(J' D)ᵀ/l²] k/l²

(Solak et al., NIPS 15 (2003)). Its cost grows with the cube of the number of observations.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, optimize

from aims_pax.errors import SettingsError
from aims_pax.frames import Array, Frame, Label
from aims_pax.models.gp.external_directions import internal_directions
from aims_pax.models.gp.leave_one_out import UNSCALED, LeaveOneOutErrors, VarianceScale, fit_variance_scale
from aims_pax.models.gp.soap_points import SoapPoints
from aims_pax.models.gp.sparse_process import ProcessPrediction, joined_predictions

CARTESIAN = 0  # `power` of Cartesian coordinates
POWERS = (1, 2, 3)
AT_ONCE = 20  # structures predicted together
SMALLEST_NOISE = 1e-6  # of forces against the amplitude
EXTENDED = np.longdouble
LARGEST = 20_000  # observations: 3 GB
FIT_STEPS = 60
SEARCHED = 150  # structures from which scale and noises are chosen: that takes two hundred factorisations


@dataclass(frozen=True)
class DenseShape:
    """Hyperparameters.

    power: of distances, or CARTESIAN. scale: l. noise: of forces, energy_noise: of energies, both relative to the
    amplitude. internal: forces are observed along internal directions only. points: spectra at fixed points instead of
    distances.
    """

    power: int
    scale: float
    noise: float
    energy_noise: float
    internal: bool = True
    points: SoapPoints | None = None


@dataclass(frozen=True)
class DenseProcess:
    """A fitted process of structures with the same atoms in the same order.

    numbers: (N,) atomic numbers. x: (F, D), slopes: (F, K, D) of the training structures; lower: Cholesky factor;
    alpha: (F + F·K,) weights, energies first; amplitude: eV; mean: eV, the prior mean.
    """

    numbers: NDArray[np.int64]
    shape: DenseShape
    x: Array
    slopes: Array
    lower: Array
    alpha: Array
    amplitude: float
    mean: float
    evidence: float
    energy_scale: VarianceScale = UNSCALED
    force_scale: VarianceScale = UNSCALED

    def predict(self, frames: Sequence[Frame], spread: bool = False) -> ProcessPrediction:
        """Predictions for structures of these atoms. Raises SettingsError for others."""
        for frame in frames:
            if not np.array_equal(frame.numbers, self.numbers):
                raise SettingsError(
                    f"{frame.formula}: not the atoms, in the order, that this process was trained on"
                )
        parts = [self._part(frames[k : k + AT_ONCE], spread) for k in range(0, len(frames), AT_ONCE)]
        return joined_predictions(parts)

    def _part(self, frames: Sequence[Frame], spread: bool) -> ProcessPrediction:
        # the weights are large and of both signs: in double precision their sum is not smooth
        x, slopes = coordinates(frames, self.shape.power, self.shape.points, EXTENDED)
        turns = permutations(self.numbers, self.shape.power)
        cross = covariance(x, slopes, self.x, self.slopes, self.shape.scale, turns)
        n = len(frames)
        said = np.asarray(cross @ self.alpha, np.float64)
        cross = np.asarray(cross, np.float64)
        found = ProcessPrediction(said[:n] + self.mean, said[n:].reshape(-1, 3))
        if not spread:
            return found
        solved = linalg.solve_triangular(self.lower, cross.T, lower=True, check_finite=False)
        prior = np.concatenate([
            covariance(x[k : k + 1], slopes[k : k + 1], x[k : k + 1], slopes[k : k + 1], self.shape.scale, turns)
            .diagonal()[None] for k in range(n)
        ])  # fmt: skip
        left = np.concatenate([prior[:, 0], prior[:, 1:].ravel()]) - (solved**2).sum(0)
        variance = self.amplitude**2 * np.maximum(left, 0)
        noise = (self.amplitude * np.array([self.shape.energy_noise, self.shape.noise])) ** 2
        energy = self.energy_scale(variance[:n] + noise[0], np.zeros(n))
        force = self.force_scale(variance[n:] + noise[1], np.zeros(len(variance) - n))
        return replace(found, energy_sd=np.sqrt(energy), force_sd=np.sqrt(force).reshape(-1, 3))


@dataclass(frozen=True)
class DenseFit:
    """A fitted process and its leave-one-out errors."""

    process: DenseProcess
    errors: LeaveOneOutErrors


def fit_distances(
    frames: Sequence[Frame], labels: Sequence[Label], check: Callable[[], Any] = lambda: None
) -> DenseFit:
    """The process on powers of distances with the largest evidence, for molecules of at least two atoms.

    check: called often; it may raise.
    """
    some = sorted({int(k) for k in np.linspace(0, len(frames) - 1, min(len(frames), SEARCHED)).round()})
    part = [frames[k] for k in some], [labels[k] for k in some]
    found = max((_by_evidence(*part, power, check) for power in POWERS), key=lambda p: p.evidence)
    if len(some) < len(frames):
        found = _with_enough_noise(_Observations(frames, labels, found.shape), found.shape)
    return with_errors(found, labels)


def fit_dense(
    frames: Sequence[Frame],
    labels: Sequence[Label],
    shape: DenseShape,
    mean: float | Literal["likely"] | None = None,
    amplitude: float | None = None,
) -> DenseProcess:
    """Fit with these hyperparameters. mean: None: of the energies; "likely": with the largest likelihood, as ænet-gpr
    does, which may be far from all energies. amplitude: None: by evidence.

    Raises SettingsError when there are too many observations for a dense matrix.
    """
    problem = _Observations(frames, labels, shape)
    if mean == "likely":
        mean = problem.likely_mean(shape)
    return problem.fitted(shape, float(problem.energies.mean()) if mean is None else mean, amplitude)


def with_errors(process: DenseProcess, labels: Sequence[Label]) -> DenseFit:
    """Leave-one-out errors in closed form: residuals (K⁻¹)_ii⁻¹ α_i with covariance A² (K⁻¹)_ii⁻¹ for each block i."""
    n, rows, _ = process.slopes.shape
    inverse = linalg.cho_solve((process.lower, True), np.eye(len(process.alpha)), check_finite=False)
    energies, forces, ve, vf = np.zeros(n), [], np.zeros(n), []
    for k in range(n):
        own = np.concatenate([[k], n + k * rows + np.arange(rows)])
        block = np.linalg.inv(inverse[np.ix_(own, own)])
        residual, variance = -(block @ process.alpha[own]), process.amplitude**2 * block.diagonal()
        energies[k], ve[k] = residual[0], variance[0]
        forces.append(residual[1:])
        vf.append(variance[1:])
    errors = LeaveOneOutErrors(energies, np.concatenate(forces), ve, np.concatenate(vf))
    none_e, none_f = np.zeros(n), np.zeros(len(errors.forces))
    scaled = replace(
        process,
        energy_scale=fit_variance_scale(errors.energies, ve, none_e),
        force_scale=fit_variance_scale(errors.forces, errors.force_variances, none_f),
    )
    return DenseFit(scaled, errors)


# ---------------------------------------------------------------- coordinates and covariances


def coordinates(
    frames: Sequence[Frame], power: int, points: SoapPoints | None = None, dtype: Any = np.float64
) -> tuple[Array, Array]:
    """(F, D) coordinates and (F, 3N, D) their derivatives. dtype: of distances."""
    if points is not None:
        return points.of(frames)
    r = np.stack([f.positions for f in frames]).astype(dtype)
    n, atoms, _ = r.shape
    if power == CARTESIAN:
        r = np.asarray(r, np.float64)
        return r.reshape(n, -1), np.broadcast_to(np.eye(3 * atoms), (n, 3 * atoms, 3 * atoms))
    i, j = np.triu_indices(atoms, 1)
    d = r[:, i] - r[:, j]
    length = np.linalg.norm(d, axis=2)
    slope = (-power * length ** (-power - 2))[:, :, None] * d  # (F, D, 3)
    slopes = np.zeros((n, atoms, 3, len(i)), dtype)
    pair = np.arange(len(i))
    slopes[:, i, :, pair] = slope.transpose(1, 0, 2)
    slopes[:, j, :, pair] = -slope.transpose(1, 0, 2)
    return length**-power, slopes.reshape(n, 3 * atoms, -1)


def permutations(numbers: NDArray[np.int64], power: int) -> list[Any]:
    """How permutations of identical atoms permute the distances (indices); Cartesian: the identity alone."""
    n = len(numbers)
    if power == CARTESIAN:
        return [slice(None)]
    pairs = {pair: k for k, pair in enumerate(itertools.combinations(range(n), 2))}
    turns = set()
    for order in itertools.permutations(range(n)):
        if all(numbers[a] == numbers[b] for a, b in enumerate(order)):
            turns.add(tuple(pairs[min(order[a], order[b]), max(order[a], order[b])] for a, b in pairs))
    return [np.array(t) for t in sorted(turns)]


def covariance(
    x: Array, slopes: Array, y: Array, y_slopes: Array, scale: float, turns: Sequence[Any]
) -> Array:
    """(F(1 + K), G(1 + L)) covariance of energies and forces of two sets; amplitude 1, energies first."""
    total: Any = 0.0
    for turn in turns:
        total = total + _covariance(x, slopes, y[:, turn], y_slopes[:, :, turn], scale)
    return np.asarray(total)


def _covariance(x: Array, j: Array, y: Array, jy: Array, scale: float) -> Array:
    n, k, d = j.shape
    m, q, _ = jy.shape
    difference = x[:, None] - y[None]  # (n, m, D)
    kernel = np.exp(-0.5 * (difference**2).sum(2) / scale**2)
    c = kernel / scale**2
    left = np.matmul(j, difference.transpose(0, 2, 1))  # (n, K, m): J_s D_st
    right = np.matmul(difference.transpose(1, 0, 2), jy.transpose(0, 2, 1)).transpose(1, 0, 2)  # (n, m, L)
    out = np.empty((n * (1 + k), m * (1 + q)), x.dtype)
    out[:n, :m] = kernel
    out[n:, :m] = (c[:, None, :] * left).reshape(n * k, m)
    out[:n, m:] = -(c[:, :, None] * right).reshape(n, m * q)
    both = (j.reshape(n * k, d) @ jy.reshape(m * q, d).T).reshape(n, k, m, q)
    for s in range(n):
        both[s] -= left[s][:, :, None] * right[s][None] / scale**2
        both[s] *= c[s][None, :, None]
    out[n:, m:] = both.reshape(n * k, m * q)
    return out


# ---------------------------------------------------------------- fitting


class _Observations:
    """Coordinates and labels of training structures of the same atoms."""

    def __init__(self, frames: Sequence[Frame], labels: Sequence[Label], shape: DenseShape) -> None:
        self.numbers = frames[0].numbers
        self.x, slopes = coordinates(frames, shape.power, shape.points)
        forces = np.stack([label.forces.ravel() for label in labels])
        if shape.internal:
            directions = _same_size([internal_directions(f) for f in frames])
            slopes = np.matmul(directions.transpose(0, 2, 1), slopes)
            forces = np.matmul(directions.transpose(0, 2, 1), forces[:, :, None])[:, :, 0]
        self.slopes = np.ascontiguousarray(slopes)
        self.energies, self.forces = np.array([label.energy for label in labels]), forces.ravel()
        n = len(self.energies) + len(self.forces)
        if n > LARGEST:
            raise SettingsError(
                f"{len(frames)} structures of {len(frames[0])} atoms are {n} observations, and a dense process takes "
                f"at most {LARGEST}; use Descriptor auto, or fewer structures"
            )

    def factor(self, shape: DenseShape) -> Array:
        """Lower Cholesky factor of the covariance of the observations, for amplitude 1."""
        turns = permutations(self.numbers, shape.power)
        kernel = covariance(self.x, self.slopes, self.x, self.slopes, shape.scale, turns)
        n = len(self.energies)
        spot = np.arange(len(kernel))
        kernel[spot, spot] += np.where(spot < n, shape.energy_noise**2, shape.noise**2)
        return np.asarray(linalg.cholesky(kernel, lower=True, overwrite_a=True, check_finite=False))

    def likely_mean(self, shape: DenseShape) -> float:
        """μ = 1ᵀK⁻¹y / 1ᵀK⁻¹1, with 1 for energies and 0 for forces."""
        ones = np.concatenate([np.ones(len(self.energies)), np.zeros(len(self.forces))])
        solved = linalg.cho_solve((self.factor(shape), True), ones, check_finite=False)
        return float(solved @ np.concatenate([self.energies, self.forces]) / (solved @ ones))

    def fitted(self, shape: DenseShape, mean: float, amplitude: float | None = None) -> DenseProcess:
        lower = self.factor(shape)
        y = np.concatenate([self.energies - mean, self.forces])
        alpha = linalg.cho_solve((lower, True), y, check_finite=False)
        s2 = max(float(y @ alpha) / len(y), 1e-300)
        evidence = -0.5 * len(y) * np.log(s2) - float(np.log(lower.diagonal()).sum())
        scale = float(np.sqrt(s2)) if amplitude is None else amplitude
        return DenseProcess(
            self.numbers, shape, self.x, self.slopes, lower, alpha, scale, mean, float(evidence)
        )


def _by_evidence(
    frames: Sequence[Frame], labels: Sequence[Label], power: int, check: Callable[[], Any]
) -> DenseProcess:
    """The scale and the noises with the largest evidence: the best of a grid of scales, then a simplex search."""
    start = DenseShape(power, 1.0, 1e-4, 1e-4)
    data = _Observations(frames, labels, start)
    mean = float(data.energies.mean())
    spread = max(float(np.sqrt(data.x.var(0).sum())), 1e-3)

    def shape(v: Any) -> DenseShape:
        noise = max(float(np.exp(v[1])), SMALLEST_NOISE)
        return DenseShape(power, float(np.exp(v[0])), noise, max(float(np.exp(v[2])), SMALLEST_NOISE / 10))

    def cost(v: Any) -> float:
        check()
        try:
            own = data.fitted(shape(v), mean)
        except np.linalg.LinAlgError:  # not positive definite: the noise is too small for this scale
            return 1e10
        prior = 0.5 * ((v[2] - v[1] + np.log(10)) / 2) ** 2 + 0.5 * ((v[1] - np.log(1e-4)) / 4) ** 2
        return float(prior - own.evidence)

    grid = [np.log([spread * f, 1e-4, 1e-5]) for f in (0.3, 1.0, 3.0, 10.0)]
    best = min(grid, key=cost)
    found = optimize.minimize(cost, best, method="Nelder-Mead", options={"maxfev": FIT_STEPS}).x
    return _with_enough_noise(data, shape(found))


def _with_enough_noise(data: _Observations, shape: DenseShape) -> DenseProcess:
    """The fit with these hyperparameters, the noises doubled until the covariance is positive definite to rounding."""
    while True:
        try:
            return data.fitted(shape, float(data.energies.mean()))
        except np.linalg.LinAlgError:
            if shape.noise > 1:  # numbers that are not finite
                raise
            shape = replace(shape, noise=2 * shape.noise, energy_noise=2 * shape.energy_noise)


def _same_size(directions: Sequence[Array]) -> Array:
    """(F, 3N, K): linear and bent structures of one molecule have K = 3N − 5 and 3N − 6; the smaller number is used."""
    k = min(d.shape[1] for d in directions)
    return np.stack([d[:, :k] for d in directions])
