"""Normal distributions on a torus and between two walls, as sums over images: samples, log densities, scores.

    p(x | x₀) = Σ_S N(x; x₀ + S·h, σ²)                                   wrapped: S over the lattice h
    p(z | z₀) = Σ_m N(z; z₀ + 2mL, σ²) + N(z; 2a − z₀ + 2mL, σ²)         reflected between a and b = a + L

Both solve the heat equation with their boundary conditions and become uniform, so a noised distribution is the law of
a diffusion at each σ, and noise can be added in steps. This does not hold for a normal distribution that is truncated
to [a, b]: integrated backwards with its score, the samples of a narrow distribution come out about 40 % too narrow.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

REACH = 6.0  # images further away than this many σ are not counted


def lattice_shifts(cell: Tensor, pbc: Tensor, sigma: float) -> Tensor:
    """(K, 3) Å: the lattice vectors S·h that matter for this σ, for differences that are wrapped already."""
    ranges = []
    inverse = torch.linalg.pinv(cell)
    for axis in range(3):
        if not bool(pbc[axis]):
            ranges.append(range(1))
            continue
        height = 1.0 / float(inverse[:, axis].norm())
        k = int(REACH * sigma / height) + 1
        ranges.append(range(-k, k + 1))
    S = torch.tensor(list(itertools.product(*ranges)), dtype=cell.dtype)
    shifts: Tensor = S @ cell
    return shifts


def wrap(vectors: Tensor, cell: Tensor, pbc: Tensor) -> Tensor:
    """Vectors (N, 3) with fractional components in [−½, ½) along the periodic axes of the cell.

    cell: (3, 3), or (N, 3, 3), one for each vector. pbc: (3,) or (N, 3).
    """
    if not bool(pbc.any()):
        return vectors
    inverse = torch.linalg.pinv(cell) if cell.dim() == 2 else _inverses(cell)
    f = (vectors[:, None] @ inverse)[:, 0]
    whole: Tensor = ((torch.floor(f + 0.5) * pbc)[:, None] @ cell)[:, 0]
    return vectors - whole


def _inverses(cells: Tensor) -> Tensor:
    """(N, 3, 3) inverses; cells that are singular are not periodic along three axes, and take the pseudoinverse."""
    first = cells[:1]
    same = torch.equal(cells, first.expand_as(cells))
    found: Tensor = torch.linalg.pinv(first if same else cells)
    return found


def wrapped_displacement(x: Tensor, x0: Tensor, sigma: float, cell: Tensor, pbc: Tensor) -> Tensor:
    """σ²·∇ log p(x | x₀) of the wrapped normal, (N, 3) Å: the mean of x₀ + S·h − x over the images."""
    near = wrap(x0 - x, cell, pbc)[:, None] + lattice_shifts(cell, pbc, sigma)
    weight = torch.softmax(-near.square().sum(-1) / (2 * sigma**2), dim=1)
    return (weight[..., None] * near).sum(1)


def wrapped_log_density(x: Tensor, x0: Tensor, sigma: float, cell: Tensor, pbc: Tensor) -> Tensor:
    """log p(x | x₀) of the wrapped normal without its constant, (N,)."""
    near = wrap((x0 - x).detach(), cell, pbc) + (x0 - x) - (x0 - x).detach()
    near = near[:, None] + lattice_shifts(cell, pbc, sigma)
    return torch.logsumexp(-near.square().sum(-1) / (2 * sigma**2), dim=1)


def reflect(z: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """z folded into [low, high] by reflection at both ends."""
    width = high - low
    u = torch.remainder(z - low, 2 * width)
    return low + torch.where(u > width, 2 * width - u, u)


def reflection_images(z0: Tensor, low: float, high: float, sigma: float) -> Tensor:
    """(N, K) the images of z₀ (N,) between two walls that matter for this σ."""
    width = high - low
    k = int(REACH * sigma / (2 * width)) + 1
    m = 2 * width * torch.arange(-k, k + 1, dtype=z0.dtype)
    return torch.cat([z0[:, None] + m, 2 * low - z0[:, None] + m], dim=1)


def reflected_displacement(z: Tensor, z0: Tensor, sigma: float, low: float, high: float) -> Tensor:
    """σ²·∂ log p(z | z₀)/∂z of the reflected normal, (N,) Å."""
    near = reflection_images(z0, low, high, sigma) - z[:, None]
    weight = torch.softmax(-near.square() / (2 * sigma**2), dim=1)
    return (weight * near).sum(1)


def reflected_log_density(z: Tensor, z0: Tensor, sigma: float, low: float, high: float) -> Tensor:
    """log p(z | z₀) of the reflected normal without its constant, (N,)."""
    near = reflection_images(z0, low, high, sigma) - z[:, None]
    return torch.logsumexp(-near.square() / (2 * sigma**2), dim=1)


def circle_width(ratio: Tensor) -> Tensor:
    """Root mean square of σ·∂ log p/∂x of a wrapped normal on a circle, by σ/L: 1 when narrow, 0 when uniform.

    Interpolated in a table that is integrated numerically at import.
    """
    low, high, values = _TABLE
    place = (ratio.clamp(low, high).log() - torch.tensor(low).log()) / (
        torch.tensor(high).log() - torch.tensor(low).log()
    )
    k = place * (len(values) - 1)
    left = k.floor().long().clamp_max(len(values) - 2)
    share = k - left
    return values[left] * (1 - share) + values[left + 1] * share


def _circle_table(low: float = 0.02, high: float = 0.8, n: int = 128) -> tuple[float, float, Tensor]:
    x = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000 - 0.5  # L = 1
    m = torch.arange(-8, 9, dtype=torch.float64)
    values = []
    for step in range(n):
        sigma = low * (high / low) ** (step / (n - 1))
        near = m - x[:, None]
        log_p = -near.square() / (2 * sigma**2)
        p = torch.logsumexp(log_p, 1).exp()
        d = (torch.softmax(log_p, 1) * near).sum(1)
        values.append(((p * d.square()).sum() / p.sum()).sqrt() / sigma)
    return low, high, torch.stack(values)


_TABLE = _circle_table()
