"""An uncertainty against the errors it predicts."""

import numpy as np
import pytest

from aims_pax.report.calibration import atomic_errors, calibrate


def test_the_true_error_of_an_atom_is_what_its_spread_predicts():
    """Members and truth drawn from one distribution: e_a and σ_a agree on average."""
    rng = np.random.default_rng(0)
    sigma = rng.uniform(0.05, 0.5, 4000)
    arrays = {
        "atomic_sd": sigma,
        "forces": rng.normal(size=(4000, 3)) * sigma[:, None],
        "true_forces": np.zeros((4000, 3)),
    }
    spread, error = atomic_errors(arrays)
    h = calibrate(spread, error)
    assert h.ratio == pytest.approx(1.0, abs=0.03)
    assert calibrate(spread, 2 * error).ratio == pytest.approx(2.0, abs=0.06)


def test_rank_correlation_is_spearmans():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(1)
    x = rng.integers(1, 8, 60).astype(float)  # many ties
    y = x + rng.integers(0, 6, 60)
    assert calibrate(x, y).rank == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)
    assert calibrate(x, x).rank == pytest.approx(1.0)
    assert calibrate(x, x.max() + 1 - x).rank == pytest.approx(-1.0)


def test_what_is_not_finite_does_not_count():
    h = calibrate(np.array([np.nan, 0.0, 1, 2, 3]), np.array([1.0, 1.0, 1, 2, np.inf]))
    assert len(h.spread) == 2
    assert np.isnan(h.rank)
