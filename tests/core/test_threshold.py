"""δ = (1 + c_x) · mean(last ≤ 400), ∞ for the first ten evaluations, frozen on demand."""

import math

import pytest

from aims_pax.core.threshold import Threshold


def filled(values, per_atom=1):
    threshold = Threshold()
    for value in values:
        threshold = threshold.seen((value,) * per_atom)
    return threshold


def test_there_is_no_threshold_during_the_first_ten_evaluations():
    assert math.isinf(filled([1.0] * 9).value(0.0))
    assert filled([1.0] * 10).value(0.0) == 1.0


def test_it_is_the_mean_of_the_last_400_scaled_by_c_x():
    threshold = filled([100.0] * 50 + [2.0] * 400)
    assert threshold.value(0.0) == 2.0
    assert threshold.value(-0.25) == 1.5
    assert threshold.value(0.5) == 3.0


def test_a_frozen_threshold_no_longer_moves_and_freezing_waits_for_the_warm_up():
    assert filled([1.0] * 5).freeze(0.0).frozen is None
    frozen = filled([1.0] * 10).freeze(0.0)
    assert frozen.seen((50.0,)).value(0.0) == 1.0


def test_per_atom_values_of_systems_of_different_size_are_averaged_over_all_atoms():
    threshold = Threshold()
    for _ in range(5):
        threshold = threshold.seen((1.0,) * 2).seen((4.0,) * 10)
    assert threshold.value(0.0) == pytest.approx((2 * 1 + 10 * 4) / 12)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_never_enters(bad):
    with pytest.raises(ValueError, match="not finite"):
        Threshold().seen((1.0, bad))
