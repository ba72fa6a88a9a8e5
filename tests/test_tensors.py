"""A stress is symmetric but for the errors of grids."""

import numpy as np
import pytest

from aims_pax.tensors import symmetric


@pytest.mark.parametrize(
    ("xy", "fits"), [(0.1, True), (0.1009, True), (0.115, False), (-0.1, False), (np.nan, False)]
)
def test_small_differences_of_the_halves_are_allowed(xy, fits):
    assert symmetric(np.array([[1e-1, 0.1, 0], [xy, 0, 0], [0, 0, 0]])) is fits
