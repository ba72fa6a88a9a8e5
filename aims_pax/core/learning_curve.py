"""The learning curve: the error against the number of training structures, and what more labels would bring.

A power law with a floor (Cortes et al., NIPS 1993; Huang and von Lilienfeld, J. Chem. Phys. 145, 161102, 2016),

    e(n) = A · [ f + (1 − f) · (n/n₀)^−b ],

with n₀ the present size of the training set, so that A is the present error and f·A the error that no number of
labels goes below. Measured errors scatter log-normally around it. The posterior of (b, f) is summed over a grid, A is
analytic on each of its points; priors: b ~ N(0.5, 0.25²), f with density 4(1 − f)³. A known training error is a lower
limit of f·A: with more structures it only grows towards the floor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aims_pax.frames import Array

EXPONENTS = np.linspace(0.05, 1.2, 24)
SHARES = np.linspace(0.0, 0.96, 13)  # of the room that the training error leaves to f
EXPONENT, EXPONENT_SD = 0.5, 0.25
FEWEST = 4  # measured errors before there is a curve
FURTHEST = 1000.0  # times the present size: nothing is said about larger sets


@dataclass(frozen=True)
class ErrorForecast:
    """An error on the curve in eV/Å with its standard error, and limits of its central 80 %."""

    error: float
    standard_error: float
    low: float
    high: float


@dataclass(frozen=True)
class LearningCurve:
    """The posterior on the grid of G shapes. n: present size of the training set. used: measured errors in the fit.

    b, f (G,); mean, sd (G,): of ln A, A in eV/Å; weight (G,), sum 1.
    """

    n: int
    used: int
    b: Array
    f: Array
    mean: Array
    sd: Array
    weight: Array

    def at(self, n: float) -> ErrorForecast:
        """The forecast for a training set of n structures."""
        centre = self.mean + np.log(self._shape(n))
        average = float(self.weight @ centre)
        spread = math.sqrt(float(self.weight @ (self.sd**2 + (centre - average) ** 2)))
        return ErrorForecast(
            math.exp(average),
            math.exp(average) * spread,
            math.exp(average - 1.2816 * spread),
            math.exp(average + 1.2816 * spread),
        )

    def below(self, n: float, error: float) -> float:
        """Probability that the error (eV/Å) with n structures is at most this."""
        gap = (math.log(error) - self.mean - np.log(self._shape(n))) / self.sd
        return float(self.weight @ np.array([0.5 * math.erfc(-g / math.sqrt(2)) for g in gap]))

    def upper(self, n: float, confidence: float) -> float:
        """The error in eV/Å that the true one is below with this probability, by bisection."""
        low, high = math.log(self.at(n).error) - 8.0, math.log(self.at(n).error) + 8.0
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (low, middle) if self.below(n, math.exp(middle)) > confidence else (middle, high)
        return math.exp(high)

    def gain(self, n: float) -> tuple[float, float]:
        """(mean, standard deviation) of the relative decrease of the error from the present size to n."""
        gone = 1 - self._shape(n)  # A cancels: far better known than the error itself
        mean = float(self.weight @ gone)
        return mean, math.sqrt(float(self.weight @ (gone - mean) ** 2))

    def more_labels(self, error: float, probability: float = 0.5) -> float:
        """Structures to add until the error (eV/Å) is at most this, with a probability; infinity: beyond FURTHEST."""
        if self.below(self.n, error) >= probability:
            return 0.0
        if self.below(self.n * FURTHEST, error) < probability:
            return math.inf
        low, high = 0.0, math.log(FURTHEST)
        for _ in range(40):
            middle = (low + high) / 2
            enough = self.below(self.n * math.exp(middle), error) >= probability
            low, high = (low, middle) if enough else (middle, high)
        return self.n * (math.exp(high) - 1)

    def _shape(self, n: float) -> Array:
        """(G,) e(n)/A of each shape."""
        shape: Array = self.f + (1 - self.f) * (n / self.n) ** -self.b
        return shape


def fit_learning_curve(
    n: Sequence[float] | Array,
    error: Sequence[float] | Array,
    relative_error: Sequence[float] | Array,
    n_now: int,
    training_error: float = 0.0,
    common: float = 0.0,
    progress: Sequence[float] | Array | None = None,
) -> LearningCurve | None:
    """The curve through measured errors; None with fewer than FEWEST.

    n (K,): sizes of the training set. error (K,): eV/Å. relative_error (K,): their standard errors divided by them.
    n_now: present size. training_error: eV/Å, on the structures that the model was trained on; 0: unknown.
    common: relative standard error that all measured errors share. progress (K,): ln of how the error of the models has
    changed since each was measured, where that is known otherwise than from the curve (NaN: it is not): A then follows
    from the errors brought to the present, b and f as ever from the measured ones.
    """
    x, y, s = (np.asarray(v, float) for v in (n, np.log(error), relative_error))
    if len(y) < FEWEST:
        return None
    precision = 1 / np.maximum(s, 1e-3) ** 2
    ratio = np.log(np.maximum(x, 1.0) / n_now)  # (K,)
    # A, were b = EXPONENT and f = 0
    rough = math.exp(float(np.average(y + EXPONENT * ratio, weights=precision)))
    least = min(training_error / rough, 0.95)
    b, share = (g.ravel() for g in np.meshgrid(EXPONENTS, SHARES, indexing="ij"))
    f = least + (1 - least) * share
    shape = np.log(f[:, None] + (1 - f[:, None]) * np.exp(-np.outer(b, ratio)))  # (G, K)
    mean = (y - shape) @ precision / precision.sum()
    rest = (y - shape - mean[:, None]) ** 2 @ precision
    prior = -0.5 * ((b - EXPONENT) / EXPONENT_SD) ** 2 + 3 * np.log(1 - share)
    logs = prior - 0.5 * rest
    weight = np.exp(logs - logs.max())
    if progress is not None:
        known = np.isfinite(progress)
        now = np.where(known, y + np.where(known, progress, 0.0), y - shape)
        mean = now @ precision / precision.sum()
    sd = np.full(len(b), math.sqrt(1 / float(precision.sum()) + common**2))
    return LearningCurve(n_now, len(y), b, f, mean, sd, weight / weight.sum())
