"""Scores of the wrapped and the reflected normal are the gradients of their log densities."""

import pytest
import torch

from aims_pax.models.diffusion.noise_kernels import (
    circle_width,
    reflect,
    reflected_displacement,
    reflected_log_density,
    wrap,
    wrapped_displacement,
    wrapped_log_density,
)

TRICLINIC = torch.tensor([[4.0, 0.0, 0.0], [1.7, 3.1, 0.0], [-0.9, 1.1, 5.2]], dtype=torch.float64)
ALL = torch.tensor([True, True, True])


def uniform(n: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) @ TRICLINIC


@pytest.mark.parametrize("sigma", [0.05, 0.5, 1.5, 3.0])
@pytest.mark.parametrize("pbc", [ALL, torch.tensor([True, True, False])])
def test_the_score_of_the_wrapped_normal_is_the_gradient_of_its_log_density(sigma, pbc):
    x, x0 = uniform(200, 1).requires_grad_(), uniform(200, 2)
    wrapped_log_density(x, x0, sigma, TRICLINIC, pbc).sum().backward()
    score = wrapped_displacement(x.detach(), x0, sigma, TRICLINIC, pbc) / sigma**2
    assert torch.allclose(score, x.grad, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.1, 1.0, 3.0, 8.0])
def test_the_score_of_the_reflected_normal_is_the_gradient_of_its_log_density(sigma):
    g = torch.Generator().manual_seed(3)
    z = (2 + 3 * torch.rand(500, generator=g, dtype=torch.float64)).requires_grad_()
    z0 = 2 + 3 * torch.rand(500, generator=g, dtype=torch.float64)
    reflected_log_density(z, z0, sigma, 2.0, 5.0).sum().backward()
    score = reflected_displacement(z.detach(), z0, sigma, 2.0, 5.0) / sigma**2
    assert torch.allclose(score, z.grad, rtol=1e-6, atol=1e-6)


def test_the_log_density_does_not_change_by_a_lattice_vector_and_is_that_of_samples():
    x, x0 = uniform(50, 4), uniform(50, 5)
    moved = x + torch.tensor([1.0, -2.0, 1.0], dtype=torch.float64) @ TRICLINIC
    a = wrapped_log_density(x, x0, 0.8, TRICLINIC, ALL)
    assert torch.allclose(a, wrapped_log_density(moved, x0, 0.8, TRICLINIC, ALL))


def test_reflected_samples_follow_the_reflected_density():
    g = torch.Generator().manual_seed(6)
    low, high = torch.tensor(0.0, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
    z = reflect(0.2 + 0.5 * torch.randn(100_000, generator=g, dtype=torch.float64), low, high)
    assert z.min() >= 0
    assert z.max() <= 1
    edges = torch.linspace(0, 1, 21, dtype=torch.float64)
    mid = 0.5 * (edges[1:] + edges[:-1])
    p = reflected_log_density(mid, torch.full_like(mid, 0.2), 0.5, 0.0, 1.0).exp()
    expected = 100_000 * p / p.sum()
    counts = torch.histogram(z, edges).hist
    assert float(((counts - expected) ** 2 / expected).sum()) < 45  # χ² with 19 degrees of freedom, p = 0.001


def test_wrapping_gives_the_nearest_fraction_along_periodic_axes_only():
    v = uniform(20, 7) * 3
    f = wrap(v, TRICLINIC, torch.tensor([True, True, False])) @ torch.linalg.inv(TRICLINIC)
    assert f[:, :2].min() >= -0.5
    assert f[:, :2].max() < 0.5
    assert torch.allclose(f[:, 2], (v @ torch.linalg.inv(TRICLINIC))[:, 2])
    assert torch.equal(wrap(v, TRICLINIC, torch.zeros(3, dtype=torch.bool)), v)


def test_the_size_of_the_score_falls_from_one_to_zero_and_is_that_of_samples():
    ratio = torch.tensor([0.001, 0.1, 0.3, 0.5], dtype=torch.float64)
    size = circle_width(ratio)
    assert size[0] == pytest.approx(1, abs=1e-3)
    assert (size[1:] < size[:-1]).all()
    cell = torch.eye(3, dtype=torch.float64) * 10
    g = torch.Generator().manual_seed(8)
    for r, expected in zip(ratio[1:], size[1:], strict=True):
        x0 = torch.zeros(20000, 3, dtype=torch.float64)
        x = 10 * r * torch.randn(20000, 3, generator=g, dtype=torch.float64)
        d = wrapped_displacement(x, x0, float(10 * r), cell, ALL)
        assert float(d.square().mean().sqrt() / (10 * r)) == pytest.approx(float(expected), rel=0.05)
