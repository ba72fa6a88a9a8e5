"""The range of energies that thermal motion reaches."""

import numpy as np
import pytest
from ase.units import kB

from aims_pax.core.thermal_energy import ThermalRange


@pytest.mark.parametrize("degrees", [3, 21, 300])
def test_harmonic_motion_stays_inside_from_the_minimum_and_from_a_thermal_frame(degrees):
    rng, T = np.random.default_rng(0), 500.0
    energies = 0.5 * kB * T * rng.chisquare(degrees, size=20_000)  # V of f/2 kT on average
    for lowest in (0.0, float(energies[:10].min())):
        low, high = ThermalRange(lowest, degrees, 5.0).bounds(T)
        outside = (energies < low) | (energies > high)
        assert outside.mean() < 3e-3


def test_what_is_far_above_or_below_is_named_with_its_limit():
    law = ThermalRange(-10.0, 21, 5.0)
    assert law.implausible(-9.0, 500.0) is None
    assert law.implausible(-7.0, 500.0) == (
        "predicted energy 3.00 eV above the lowest label, 1.15 eV is the limit at 500 K"
    )
    assert "below the lowest label" in (law.implausible(-12.0, 500.0) or "")
    assert law.implausible(-7.0, 2000.0) is None
