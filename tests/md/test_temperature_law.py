"""The canonical law of the kinetic temperature, on series whose statistics are known."""

import numpy as np
import pytest

from aims_pax.md.temperature_law import autocorrelation_time, temperature_law


def canonical(T, degrees, n, seed=0, memory=0.0):
    """χ² temperatures; memory: correlation of neighbouring values, made by sums of squares of AR(1) series."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, degrees))
    for k in range(1, n):
        x[k] = memory * x[k - 1] + np.sqrt(1 - memory**2) * x[k]
    return T * (x**2).mean(1)


def test_canonical_temperatures_agree_and_the_widths_are_those_of_the_law():
    law = temperature_law([canonical(500, 27, 2000, s) for s in range(4)], 500, 27)
    assert law.agrees is True
    assert law.mean == pytest.approx(500, abs=4 * law.mean_error)
    assert law.width == pytest.approx(law.canonical_width, rel=0.05)
    assert law.canonical_width == pytest.approx(500 * np.sqrt(2 / 27))
    assert law.independent > 6000


@pytest.mark.parametrize(("scale", "squeeze"), [(1.15, 1.0), (0.85, 1.0), (1.0, 0.5), (1.0, 1.6)])
def test_a_wrong_mean_or_width_is_seen(scale, squeeze):
    T = canonical(500, 27, 3000)
    T = 500 * scale + squeeze * (T - 500)
    assert temperature_law([T], 500, 27).agrees is False


def test_correlated_values_count_as_few():
    """An AR(1) series x has ρ = a^t, so its square has a^2t: τ = ½ (1 + a²)/(1 − a²)."""
    a = 0.95
    T = canonical(300, 3, 40_000, 1, memory=a)
    assert autocorrelation_time([T], float(T.mean())) == pytest.approx(
        0.5 * (1 + a**2) / (1 - a**2), rel=0.15
    )
    short = canonical(300, 3, 100, 2, memory=0.99)
    law = temperature_law([short], 300, 3)
    assert law.independent < 20
    assert law.agrees is None


def test_a_temperature_that_does_not_move_is_one_value():
    assert temperature_law([np.full(500, 300.0)], 300, 27).independent == pytest.approx(1)
    assert temperature_law([], 300, 27).agrees is None
