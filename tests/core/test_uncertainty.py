"""Eq. 1 of arXiv:2508.12888."""

import numpy as np
import pytest

from aims_pax.core.uncertainty import atomic_sd, uncertainty


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
