"""A power law with a floor through measured errors, and what it says about more labels."""

import math

import numpy as np
import pytest

from aims_pax.core.learning_curve import fit_learning_curve

N = np.arange(20, 80)


def measured(seed, exponent=0.5, floor=0.0, scatter=0.35, n=N):
    rng = np.random.default_rng(seed)
    true = (1 - floor) * (n / 80) ** -exponent * 0.1 + floor * 0.1
    return true * np.exp(scatter * rng.normal(size=len(n)))


def fitted(seed, n=N, **how):
    return fit_learning_curve(n, measured(seed, n=n, **how), np.full(len(n), 0.35), 80)


def test_no_curve_through_three_points():
    assert fit_learning_curve([10, 20, 30], [0.3, 0.2, 0.1], [0.1] * 3, 30) is None


def test_exact_points_are_extrapolated():
    n = np.array([10, 20, 40, 80])
    curve = fit_learning_curve(n, 2.0 * n**-0.5, np.full(4, 0.01), 80)
    assert curve.at(80).error == pytest.approx(2 * 80**-0.5, rel=0.02)
    assert curve.at(320).error == pytest.approx(2 * 320**-0.5, rel=0.1)
    assert curve.more_labels(2 * 160**-0.5) == pytest.approx(80, rel=0.2)


@pytest.mark.parametrize("exponent", [0.35, 0.5, 0.7])
def test_the_uncertainty_is_that_of_the_forecast(exponent):
    """80 % of the true errors, now and with 40 more labels, are within the central 80 %."""
    inside = {80: 0, 120: 0}
    for seed in range(60):
        curve = fitted(seed, exponent=exponent)
        for n in inside:
            said, true = curve.at(n), 0.1 * (n / 80) ** -exponent
            inside[n] += said.low <= true <= said.high
    assert all(0.65 <= k / 60 <= 1 for k in inside.values())


def test_the_bound_is_a_quantile_and_probabilities_agree_with_it():
    curve = fitted(0)
    assert curve.below(80, curve.upper(80, 0.9)) == pytest.approx(0.9, abs=1e-6)
    assert curve.upper(80, 0.5) < curve.upper(80, 0.9)
    assert curve.more_labels(curve.at(80).error * 1.3) == 0
    n = curve.more_labels(0.07, 0.5)
    assert curve.below(80 + n, 0.07) == pytest.approx(0.5, abs=0.01)


def test_a_flat_curve_promises_little_and_a_steep_one_much():
    flat = [fitted(s, floor=0.95).gain(120)[0] for s in range(10)]
    steep = [fitted(s, exponent=0.8).gain(120)[0] for s in range(10)]
    assert np.mean(flat) < 0.08 < 0.15 < np.mean(steep)


def test_an_error_below_the_training_error_is_out_of_reach():
    free = fitted(1)
    held = fit_learning_curve(N, measured(1), np.full(len(N), 0.35), 80, training_error=0.05)
    assert free.more_labels(0.04) < math.inf
    assert held.more_labels(0.04) == math.inf
    assert held.at(100000).error > 0.045
    assert held.at(80).error == pytest.approx(free.at(80).error, rel=0.15)


def test_an_error_that_all_points_share_does_not_average_out():
    alone = fitted(2).at(80)
    shared = fit_learning_curve(N, measured(2), np.full(len(N), 0.35), 80, common=0.2).at(80)
    assert shared.standard_error / shared.error > 0.2 > alone.standard_error / alone.error
