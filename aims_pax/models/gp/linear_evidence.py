"""Bayesian linear regression on M features with energies and forces, its scales chosen by evidence.

    y = Φ w + C b + ε,   w ~ N(0, A²),   b: free,   ε_F ~ N(0, σ²),   ε_E ~ N(0, (ρσ)²·N)

Φ are rows of features (a row for each energy and force component), C the numbers of atoms of each element, b an energy
for each element without a prior, N the number of atoms. With G = Σ ΦᵀΦ (weighted), λ = σ²/A²:

    w = (G + λ)⁻¹ Φᵀy,    log evidence = −n/2 ln s² − ½ Σ ln(1 + g/λ) − n_E ln ρ,    s² = (y² − bᵀ(G + λ)⁻¹b)/n

with g the eigenvalues of G, where b is eliminated from the energies (MacKay, Neural Computation 4, 415 (1992)). Rows
are added in turn, so that memory does not depend on the number of structures.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import linalg

from aims_pax.frames import Array

LAMBDAS = np.arange(-11.0, 3.01, 0.5)  # log10
RATIOS = np.arange(-3.5, 0.01, 0.5)  # log10 of ρ
TYPICAL_RATIO, RATIO_WIDTH = -2.0, 1.0  # log-normal prior of ρ: few energies do not determine it
TYPICAL_LAMBDA, LAMBDA_WIDTH = -8.0, 4.0  # log-normal prior of λ: one force alone may be signal or noise
ROUNDS = 3  # of ρ and λ in turn
DECADE = np.log(10.0)
ROUNDING = 1e-11  # of y², in the sum of the squared residuals


@dataclass
class NormalEquations:
    """Sums over the rows. m: features, elements: columns of C. `centre` (E, M) is subtracted as C·centre from the rows
    of energies: it changes nothing but rounding, where energies of all structures are almost equal."""

    m: int
    elements: int
    centre: Array
    forces: Array = field(init=False)
    energies: Array = field(init=False)

    def __post_init__(self) -> None:
        m, e = self.m, self.elements
        self.forces, self.energies = np.zeros((m, m)), np.zeros((m, m))
        self.force_y, self.energy_y = np.zeros(m), np.zeros(m)
        self.mixed, self.counts, self.count_y = np.zeros((m, e)), np.zeros((e, e)), np.zeros(e)
        self.force_yy = self.energy_yy = 0.0
        self.n_forces = self.n_energies = 0

    def add_forces(self, rows: Array, y: Array, degrees: int) -> None:
        """rows: (3A, M), y: (3A,) internal forces, degrees: number of internal directions among them."""
        self.forces += rows.T @ rows
        self.force_y += rows.T @ y
        self.force_yy += float(y @ y)
        self.n_forces += degrees

    def add_energies(self, rows: Array, y: Array, counts: Array) -> None:
        """rows: (F, M), y: (F,) eV, counts: (F, E) numbers of atoms of each element."""
        weight = 1 / np.sqrt(counts.sum(1))
        rows, y, c = (rows - counts @ self.centre) * weight[:, None], y * weight, counts * weight[:, None]
        self.energies += rows.T @ rows
        self.energy_y += rows.T @ y
        self.energy_yy += float(y @ y)
        self.mixed += rows.T @ c
        self.counts += c.T @ c
        self.count_y += c.T @ y
        self.n_energies += len(y)


@dataclass(frozen=True)
class LinearSolution:
    """weights: (M,), constants: (E,) eV. half: (M, M) with (G + λ)⁻¹ = half·halfᵀ. noise: σ (eV/Å), ratio: ρ,
    amplitude: A (eV). offsets: (E, M), the features of energies are φ − c·offsets; counts_inverse: (E, E) of b."""

    weights: Array
    constants: Array
    half: Array
    noise: float
    ratio: float
    amplitude: float
    offsets: Array
    counts_inverse: Array
    evidence: float


def solve_by_evidence(sums: NormalEquations) -> LinearSolution:
    """The scales with the largest evidence, and the weights that follow."""
    inverse = np.zeros_like(sums.counts)
    if sums.n_energies:
        inverse = np.asarray(np.linalg.pinv(sums.counts, rcond=1e-10, hermitian=True))
    rank = int(np.linalg.matrix_rank(sums.counts, tol=1e-10, hermitian=True)) if sums.n_energies else 0
    own = sums.energies - sums.mixed @ inverse @ sums.mixed.T
    own_y = sums.energy_y - sums.mixed @ (inverse @ sums.count_y)
    own_yy = max(sums.energy_yy - float(sums.count_y @ inverse @ sums.count_y), 0.0)
    problem = _Problem(sums.forces, own, sums.force_y, own_y, sums.force_yy, own_yy, sums.n_forces,
                       max(sums.n_energies - rank, 0))  # fmt: skip
    log_ratio = TYPICAL_RATIO
    found = problem.best_lambda(log_ratio)
    for _ in range(ROUNDS if problem.n_energies > 1 else 0):
        better = problem.best_ratio(found[1])
        if better == log_ratio:
            break
        log_ratio, found = better, problem.best_lambda(better)
    evidence, log_lambda, variance, g, v, b = found
    lam = 10.0**log_lambda
    weights = v @ (b / (g + lam))
    regression = inverse @ sums.mixed.T  # (E, M)
    constants = inverse @ sums.count_y - regression @ weights - sums.centre @ weights
    noise = float(np.sqrt(variance))
    return LinearSolution(
        weights, constants, v / np.sqrt(g + lam), noise, 10.0**log_ratio, noise / float(np.sqrt(lam)),
        sums.centre + regression, inverse, float(evidence),
    )  # fmt: skip


@dataclass(frozen=True)
class _Problem:
    """Normal equations of forces and of energies without their constants."""

    forces: Array
    energies: Array
    force_y: Array
    energy_y: Array
    force_yy: float
    energy_yy: float
    n_forces: int
    n_energies: int

    def joined(self, log_ratio: float) -> tuple[Array, Array, float]:
        w = 10.0 ** (-2 * log_ratio)
        return (
            self.forces + w * self.energies, self.force_y + w * self.energy_y,
            self.force_yy + w * self.energy_yy,
        )  # fmt: skip

    def prior(self, log_ratio: float) -> float:
        typical = ((log_ratio - TYPICAL_RATIO) / RATIO_WIDTH) ** 2
        return float(-0.5 * typical - self.n_energies * log_ratio * DECADE)

    def best_lambda(self, log_ratio: float) -> tuple[float, float, float, Array, Array, Array]:
        """(evidence, log10 λ, s², g, V, Vᵀb) at the best λ, to 0.1 decades."""
        g, v, b, yy = self.diagonal(log_ratio)

        def at(log_lambda: float) -> tuple[float, float, float]:
            evidence, s2 = self.evidence(g, b, yy, 10.0**log_lambda)
            return evidence - 0.5 * ((log_lambda - TYPICAL_LAMBDA) / LAMBDA_WIDTH) ** 2, log_lambda, s2

        coarse = max(map(at, LAMBDAS))[1]
        evidence, log_lambda, s2 = max(map(at, coarse + np.arange(-0.4, 0.41, 0.1)))
        return evidence + self.prior(log_ratio), float(log_lambda), s2, g, v, b

    def diagonal(self, log_ratio: float) -> tuple[Array, Array, Array, float]:
        """(g, V, Vᵀb, y²) of the joined equations."""
        matrix, b, yy = self.joined(log_ratio)
        g, v = linalg.eigh(matrix, overwrite_a=True, check_finite=False, driver="evd")
        return np.maximum(g, 0), v, v.T @ b, yy

    def evidence(self, g: Array, b: Array, yy: float, lam: float) -> tuple[float, float]:
        """(log evidence without the prior of ρ, s²) at λ."""
        s2 = self.residual(yy, float((b**2 / (g + lam)).sum()))
        n = self.n_forces + self.n_energies
        return -0.5 * n * np.log(s2) - 0.5 * float(np.log1p(g / lam).sum()), s2

    def residual(self, yy: float, explained: float) -> float:
        """s²: without a floor at the rounding errors of the difference, λ would be chosen by them."""
        return max(yy - explained, ROUNDING * yy, 1e-30) / max(self.n_forces + self.n_energies, 1)

    def best_ratio(self, log_lambda: float) -> float:
        """log10 ρ with the largest evidence at this λ."""
        n, lam = self.n_forces + self.n_energies, 10.0**log_lambda

        def at(log_ratio: float) -> float:
            matrix, b, yy = self.joined(log_ratio)
            matrix[np.diag_indices_from(matrix)] += lam
            try:
                factor = linalg.cholesky(matrix, lower=True, overwrite_a=True, check_finite=False)
            except np.linalg.LinAlgError:  # λ is less than the rounding errors of G; slower
                g, _, b, yy = self.diagonal(log_ratio)
                return self.evidence(g, b, yy, lam)[0] + self.prior(log_ratio)
            y = linalg.solve_triangular(factor, b, lower=True, check_finite=False)
            s2 = self.residual(yy, float(y @ y))
            logdet = 2 * float(np.log(factor.diagonal()).sum()) - len(b) * np.log(lam)
            return float(-0.5 * n * np.log(s2) - 0.5 * logdet + self.prior(log_ratio))

        return float(max(RATIOS, key=at))
