"""Stress tensors and virials, 3x3."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ASYMMETRY = 0.01  # relative: larger than the asymmetry of a stress from integration grids


def symmetric(tensor: NDArray[np.float64]) -> bool:
    """Whether a tensor (3, 3), in eV/Å³ or eV, is symmetric but for the errors of grids."""
    return bool(abs(tensor - tensor.T).max() <= ASYMMETRY * abs(tensor).max() + 1e-3)
