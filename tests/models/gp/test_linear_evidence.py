"""The evidence finds the noise and the amplitude that made the data."""

import numpy as np
import pytest

from aims_pax.models.gp.linear_evidence import NormalEquations, solve_by_evidence


def made(noise, energy_noise, seed=0, n=400, m=30):
    rng = np.random.default_rng(seed)
    weights = rng.normal(0, 2.0, m)
    sums = NormalEquations(m, 1, np.zeros((1, m)))
    for _ in range(n // 20):
        rows = rng.normal(size=(20, m))
        sums.add_forces(rows, rows @ weights + rng.normal(0, noise, 20), 20)
    rows, counts = rng.normal(size=(n, m)), np.full((n, 1), 4.0)
    sums.add_energies(rows, rows @ weights + 4 * 7.5 + rng.normal(0, energy_noise, n), counts)
    return solve_by_evidence(sums), weights


def test_noise_amplitude_ratio_and_constant_are_found():
    solution, weights = made(noise=0.1, energy_noise=0.02)
    assert solution.noise == pytest.approx(0.1, rel=0.1)
    assert solution.amplitude == pytest.approx(2.0, rel=0.4)
    assert solution.ratio * np.sqrt(4) == pytest.approx(0.2, rel=0.6)  # on a grid of half decades
    assert solution.weights == pytest.approx(weights, abs=0.05)
    assert solution.constants == pytest.approx([7.5], abs=0.01)


def test_the_centre_of_the_rows_changes_nothing():
    rng = np.random.default_rng(2)
    rows, counts, y = rng.normal(size=(30, 5)) + 100, np.full((30, 1), 3.0), rng.normal(size=30)
    found = []
    for centre in (np.zeros((1, 5)), np.full((1, 5), 33.0)):
        sums = NormalEquations(5, 1, centre)
        sums.add_forces(rng.normal(size=(1, 5)) * 0, np.zeros(1), 1)
        sums.add_energies(rows, y, counts)
        s = solve_by_evidence(sums)
        found.append(rows @ s.weights + counts @ s.constants)
    assert found[0] == pytest.approx(found[1], abs=1e-6)


def test_residuals_below_the_rounding_errors_do_not_choose_the_noise():
    """Labels that the features explain exactly, energies much larger than forces."""
    rng = np.random.default_rng(3)
    m, weights = 40, np.ones(40)
    few = rng.normal(size=(12, m)) * 10.0 ** rng.uniform(-4, 0, (12, 1))  # rows depend on each other
    sums = NormalEquations(m, 1, np.zeros((1, m)))
    rows = rng.normal(size=(300, 12)) @ few
    sums.add_forces(rows, rows @ weights, 300)
    rows = 100 * rng.normal(size=(100, 12)) @ few
    sums.add_energies(rows, rows @ weights, np.full((100, 1), 3.0))
    solution = solve_by_evidence(sums)
    assert solution.amplitude > 0.1
    assert rows @ solution.weights + 3 * solution.constants[0] == pytest.approx(rows @ weights, abs=1e-3)


def test_one_force_alone_is_signal():
    sums = NormalEquations(1, 1, np.zeros((1, 1)))
    sums.add_energies(np.zeros((1, 1)), np.zeros(1), np.ones((1, 1)))
    for size in (0.1, 3.0):
        sums.forces, sums.force_y, sums.force_yy, sums.n_forces = np.zeros((1, 1)), np.zeros(1), 0.0, 0
        sums.add_forces(np.full((1, 1), 0.7), np.array([size]), 1)
        assert 0.7 * solve_by_evidence(sums).weights == pytest.approx(size, rel=1e-3)
