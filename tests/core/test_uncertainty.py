"""Eq. 1 of arXiv:2508.12888."""

import numpy as np
import pytest

from aims_pax.core.uncertainty import atomic_sd, atomic_spread, uncertainty


def test_atomic_spread_is_the_formula_written_out():
    rng = np.random.default_rng(0)
    F = rng.normal(size=(4, 5, 3))
    M, N, _ = F.shape
    for a in range(N):
        mean = F[:, a].mean(axis=0)
        expected = np.sqrt(sum((F[m, a, k] - mean[k]) ** 2 for m in range(M) for k in range(3)) / (3 * M))
        assert atomic_sd(F)[a] == pytest.approx(expected, rel=1e-12)


def test_the_three_kinds_are_maximum_mean_and_vector():
    F = np.random.default_rng(1).normal(size=(3, 7, 3))
    sigma = atomic_sd(F)
    assert uncertainty(F, "max_atomic_sd") == (pytest.approx(sigma.max()),)
    assert uncertainty(F, "mean_atomic_sd") == (pytest.approx(sigma.mean()),)
    assert uncertainty(F, "ensemble_sd") == pytest.approx(tuple(sigma))


def test_members_that_agree_are_certain_and_rotation_changes_nothing():
    F = np.random.default_rng(2).normal(size=(3, 4, 3))
    assert uncertainty(np.repeat(F[:1], 3, axis=0), "max_atomic_sd") == (pytest.approx(0.0, abs=1e-12),)
    Q, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    assert atomic_sd(F @ Q) == pytest.approx(atomic_sd(F))


def test_what_a_model_says_of_itself_takes_the_place_of_the_members_disagreement():
    F, own = np.zeros((1, 3, 3)), np.array([0.1, 0.4, 0.1])
    assert uncertainty(F, "max_atomic_sd", own) == (0.4,)
    assert uncertainty(F, "mean_atomic_sd", own) == (pytest.approx(0.2),)
    assert uncertainty(F, "ensemble_sd", own) == (0.1, 0.4, 0.1)
    several = np.random.default_rng(4).normal(size=(3, 3, 3))
    assert uncertainty(several, "max_atomic_sd", own) == (0.4,)
    assert np.array_equal(atomic_spread(several), atomic_sd(several))


def test_one_member_that_says_nothing_of_itself_is_not_taken_for_certain():
    with pytest.raises(ValueError, match="one member without its own spread"):
        uncertainty(np.zeros((1, 3, 3)), "max_atomic_sd")
