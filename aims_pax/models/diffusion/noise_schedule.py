"""Noise levels σ of training and of sampling.

    ve    log σ from a logistic distribution in training; σ_i = (σ_max^⅐ + i/(n−1)·(σ_min^⅐ − σ_max^⅐))⁷ in sampling
    vp    σ(t) = σ_data·√(exp(½β_d t² + β_min t) − 1), t uniform in training and in sampling

Positions are never scaled: a variance-preserving process is, in the coordinates x/s(t), a variance-exploding one with
these levels (Karras et al., NeurIPS 2022, Table 1), which also has a meaning in a periodic cell.

Which atom goes where is decided at levels around a third of the distance of neighbours; below the thermal width there
is nothing to learn but noise. Training therefore looks most at the levels around `centre`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

SDES = ("ve", "vp")
RHO = 7.0
WIDTH = 0.8  # of the logistic distribution of log σ: half of the levels within a factor of 2.4
BETA_MIN, BETA_MAX = 0.1, 20.0


@dataclass(frozen=True)
class NoiseSchedule:
    """The levels of one model. low, high: σ_min and σ_max (Å); data: σ_data (Å).

    centre: the median level of training (Å) before it is cut off at σ_min and σ_max; 0: log σ is uniform.
    """

    sde: str
    low: float
    high: float
    data: float
    centre: float = 0.0

    def drawn(self, n: int, generator: torch.Generator) -> Tensor:
        """(n,) levels for training, stratified: one in each of n equally probable parts of the range."""
        u = (torch.arange(n) + torch.rand(n, generator=generator, dtype=torch.float64)) / n
        u = u[torch.randperm(n, generator=generator)]
        if self.sde == "ve" and self.centre > 0:
            first, last = (1 / (1 + (self.centre / end) ** (1 / WIDTH)) for end in (self.low, self.high))
            p = first + (last - first) * u
            found: Tensor = self.centre * (p / (1 - p)) ** WIDTH
            return found
        if self.sde == "ve":
            return self.low * (self.high / self.low) ** u
        return self._vp(self._vp_time(self.low) * (1 - u) + self._vp_time(self.high) * u)

    def levels(self, steps: int) -> Tensor:
        """(steps + 1,) decreasing levels for sampling, the last one zero."""
        i = torch.arange(steps, dtype=torch.float64) / max(1, steps - 1)
        if self.sde == "ve":
            high, low = self.high ** (1 / RHO), self.low ** (1 / RHO)
            found = (high + i * (low - high)) ** RHO
        else:
            found = self._vp(self._vp_time(self.high) * (1 - i) + self._vp_time(self.low) * i)
        return torch.cat([found, torch.zeros(1, dtype=torch.float64)])

    def time(self, sigma: Tensor) -> Tensor:
        """log σ between σ_min and σ_max as a number from 0 to 1; the probability that a type is masked."""
        safe = sigma.clamp_min(self.low)
        return (safe.log() - math.log(self.low)).div(math.log(self.high / self.low)).clamp(0, 1)

    def _vp(self, t: Tensor) -> Tensor:
        return self.data * torch.expm1(0.5 * (BETA_MAX - BETA_MIN) * t * t + BETA_MIN * t).sqrt()

    def _vp_time(self, sigma: float) -> float:
        b, c = BETA_MAX - BETA_MIN, math.log1p((sigma / self.data) ** 2)
        return (math.sqrt(BETA_MIN**2 + 2 * b * c) - BETA_MIN) / b
