"""Calibration of an uncertainty: predicted against true errors, by rank and by size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aims_pax.frames import Array


@dataclass(frozen=True)
class Calibration:
    """Spread against error. rank: Spearman's ρ; ratio: rms error / rms spread (1: calibrated)."""

    spread: Array
    error: Array
    rank: float
    ratio: float


def calibrate(spread: Array, error: Array) -> Calibration:
    """Compare predicted with true errors (K,), both positive; entries that are not finite are left out."""
    good = np.isfinite(spread) & np.isfinite(error) & (spread > 0)
    spread, error = spread[good], error[good]
    if len(spread) < 3 or np.ptp(spread) == 0 or np.ptp(error) == 0:
        return Calibration(spread, error, math.nan, math.nan)
    rank = float(np.corrcoef(_ranks(spread), _ranks(error))[0, 1])
    return Calibration(spread, error, rank, math.sqrt(float((error**2).mean() / (spread**2).mean())))


def atomic_errors(arrays: Mapping[str, NDArray[Any]]) -> tuple[Array, Array]:
    """(σ_a, e_a) in eV/Å, each (A,): the spread and the error it predicts, e_a = sqrt( 1/3 Σ_k (F_ak − F_ak^ref)² )."""
    wrong = arrays["forces"] - arrays["true_forces"]
    return arrays["atomic_sd"], np.sqrt((wrong**2).mean(axis=1))


def _ranks(values: Array) -> Array:
    """Ranks from 0; equal values get the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: Array = (ends - (counts + 1) / 2)[inverse]
    return ranks
