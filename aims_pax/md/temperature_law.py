"""Does the kinetic temperature of trajectories follow the canonical law?

With N_f degrees of freedom, 2K/(k_B T) has a χ² distribution with N_f of them, so the kinetic temperature has

    mean  ⟨T_kin⟩ = T          width  σ(T_kin) = T √(2 / N_f)

(e.g. Allen and Tildesley, Computer Simulation of Liquids, 2nd ed., eq. 2.83). Values at nearby steps are correlated,
so errors are those of the number of independent values n = Σ_i K_i / 2τ, with the integrated autocorrelation time τ
(in values) summed up to a window of 5 τ (Sokal, Monte Carlo Methods in Statistical Mechanics, 1997, sec. 3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aims_pax.frames import Array

WINDOW = 5.0  # autocorrelation times
SIGMAS = 3.0  # standard errors within which a value agrees
STEP_ERROR = (
    0.02  # of T: kinetic temperature is off by about (ωh)²/12 … /4 in stiff modes at finite time step h
)
FEWEST = 20.0  # independent values below which nothing is concluded: of short series τ is estimated too small


@dataclass(frozen=True)
class TemperatureLaw:
    """Temperatures in K; width: their standard deviation; errors are standard errors; independent: number of values."""

    target: float
    degrees: int
    mean: float
    mean_error: float
    width: float
    width_error: float
    independent: float

    @property
    def canonical_width(self) -> float:
        return self.target * math.sqrt(2 / self.degrees)

    @property
    def agrees(self) -> bool | None:
        """Whether mean and width are those of the law; None: too few independent values."""
        if not self.independent >= FEWEST:
            return None
        off = abs(self.mean - self.target) <= SIGMAS * self.mean_error + STEP_ERROR * self.target
        wide = (
            abs(self.width - self.canonical_width) <= SIGMAS * self.width_error + 0.05 * self.canonical_width
        )
        return bool(off and wide)


def temperature_law(series: Sequence[Array], target: float, degrees: int) -> TemperatureLaw:
    """Test kinetic temperatures (K) of several trajectories, at equal intervals, after they have settled."""
    values = np.concatenate(series) if len(series) else np.zeros(0)
    if len(values) < 2:
        return TemperatureLaw(target, degrees, math.nan, math.nan, math.nan, math.nan, 0.0)
    mean, width = float(values.mean()), float(values.std(ddof=1))
    n = len(values) / (2 * autocorrelation_time(series, mean))
    width_error = width / math.sqrt(2 * n)
    # the larger of both widths: a series that hardly moves must not have a small error
    wide = max(width, target * math.sqrt(2 / degrees)) if degrees else width
    return TemperatureLaw(target, degrees, mean, wide / math.sqrt(n), width, width_error, n)


def autocorrelation_time(series: Sequence[Array], mean: float) -> float:
    """τ = ½ + Σ_t ρ(t) in intervals, at least ½; ρ averaged over the series, whose common mean is given."""
    longest = max(len(x) for x in series)
    products, counts = np.zeros(longest), np.zeros(longest)
    for x in series:
        d = np.asarray(x, float) - mean
        size = 2 ** math.ceil(math.log2(2 * max(len(d), 1)))
        f = np.fft.rfft(d, size)
        products[: len(d)] += np.fft.irfft(f * np.conj(f), size)[: len(d)]
        counts[: len(d)] += np.arange(len(d), 0, -1)
    if products[0] <= 0:
        return longest / 2.0  # a constant: one independent value
    rho = (products / counts) / (products[0] / counts[0])
    tau = 0.5 + np.cumsum(rho[1:]) if longest > 1 else np.array([0.5])
    enough = np.flatnonzero(np.arange(1, len(tau) + 1) >= WINDOW * tau)
    return float(max(0.5, tau[enough[0]] if len(enough) else tau.max()))
