"""Forces in another unit are recognised by comparing them with forces in eV/Å."""

import numpy as np
import pytest

from aims_pax.force_units import UNITS, other_unit

RNG = np.random.default_rng(3)
FORCES = RNG.normal(size=(40, 3))


@pytest.mark.parametrize("unit", UNITS)
def test_each_unit_is_recognised_although_the_methods_differ(unit):
    labels = UNITS[unit] * (0.9 * FORCES + RNG.normal(scale=0.4, size=FORCES.shape))
    assert other_unit(labels, FORCES) == unit


@pytest.mark.parametrize("factor", [0.5, 0.7, 1.0, 1.6, 3.0])  # a foundation model may be soft
def test_other_methods_in_electronvolts_are_not_taken_for_other_units(factor):
    assert other_unit(factor * FORCES, FORCES) is None


@pytest.mark.parametrize("others", [RNG.normal(size=FORCES.shape), 0 * FORCES, np.nan * FORCES])
def test_forces_that_are_not_alike_say_nothing(others):
    assert other_unit(FORCES / 51.4221, others) is None
