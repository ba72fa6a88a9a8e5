from __future__ import annotations

import numpy as np
import pytest
import torch

from aims_pax.md.linalg3x3 import flow, rows_times, small_exp, square, trace3x3, volume


def test_series_and_fractions_are_the_functions_they_stand_for():
    X = torch.from_numpy(np.random.default_rng(0).normal(0, 0.05, (4, 3, 3)))
    grow, phi = flow(X)
    assert np.allclose(grow, torch.linalg.matrix_exp(X), rtol=0, atol=1e-15)
    assert np.allclose(torch.linalg.solve(X, grow - torch.eye(3)), phi, rtol=0, atol=1e-12)
    x = torch.linspace(-0.1, 0.1, 9, dtype=torch.float64)
    assert np.allclose(small_exp(x), x.exp(), rtol=2e-8)
    assert np.allclose(small_exp(0.1 * x), (0.1 * x).exp(), rtol=0, atol=2e-13)
    assert np.allclose(small_exp(x) * small_exp(-x), 1.0, rtol=0, atol=1e-15)


def matrices(n: int = 5, seed: int = 1) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, 3, 3)))


def test_traces_squares_volumes_and_rows_are_those_of_numpy():
    a = matrices()
    symmetric = a + a.transpose(1, 2)
    np.testing.assert_allclose(trace3x3(a), np.trace(a.numpy(), axis1=1, axis2=2), rtol=1e-14)
    np.testing.assert_allclose(square(symmetric), (symmetric.numpy() ** 2).sum((1, 2)), rtol=1e-14)
    np.testing.assert_allclose(volume(a), abs(np.linalg.det(a.numpy())), rtol=1e-12)
    x = matrices(seed=2)[:, 0]
    np.testing.assert_allclose(
        rows_times(x, a), [row @ m for row, m in zip(x.numpy(), a.numpy(), strict=True)]
    )


@pytest.mark.parametrize("A", [np.zeros((3, 3)), np.diag([0.1, -0.05, 0.0]), np.full((3, 3), 0.04)])
def test_the_flow_solves_its_equation_also_for_singular_matrices(A):
    """ẏ = y·A + b from y(0) = 0 in 4000 small steps of the midpoint rule."""
    b, y, n = np.array([1.0, -2.0, 0.5]), np.zeros(3), 4000
    for _ in range(n):
        middle = y + 0.5 / n * (y @ A + b)
        y = y + (middle @ A + b) / n
    phi = flow(torch.from_numpy(A)[None])[1][0].numpy()
    np.testing.assert_allclose(b @ phi, y, rtol=1e-8, atol=1e-9)


def test_a_matrix_gives_the_same_bits_in_any_batch():
    a = 0.1 * matrices(7)
    for function in (trace3x3, square, volume, lambda m: flow(m)[0], lambda m: flow(m)[1]):
        alone = torch.cat([function(a[k : k + 1]) for k in range(7)])
        assert torch.equal(function(a), alone)


def test_the_small_exponential_is_the_same_in_numpy_and_torch():
    x = np.linspace(-0.2, 0.2, 11)
    np.testing.assert_array_equal(small_exp(x), small_exp(torch.from_numpy(x)).numpy())
