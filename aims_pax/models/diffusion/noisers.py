"""How structures are noised, and the prior that sampling begins from.

| name                  | noise kernel                                 | prior                                 |
|-----------------------|----------------------------------------------|---------------------------------------|
| Positions             | normal, centre of mass at rest               | normal, centre of mass at the origin  |
| CellPositions         | wrapped normal in the cell                   | uniform in the cell: f @ cell         |
| ConfinedCellPositions | wrapped normal along a and b, reflected in z | uniform in the cell between the walls |
| Types                 | absorbing: an element becomes masked         | all masked                            |

A model has at most one noiser of the key `pos`, and at most one of the key `x`. A noiser of positions knows
the displacement d = σ²·∇ log p(x | x₀) that the network learns: the denoised structure is x + d.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from aims_pax.errors import SettingsError
from aims_pax.models.diffusion.atoms_graph import BatchedGraphs
from aims_pax.models.diffusion.noise_kernels import (
    circle_width,
    reflect,
    reflected_displacement,
    wrap,
    wrapped_displacement,
)
from aims_pax.suggestions import nearest


class PositionNoiser(ABC):
    """Noise on the positions of the free atoms. σ: one level (Å) per structure, (B,)."""

    key = "pos"
    name: str
    scaled: (
        bool  # whether distances are divided by the width of the noised data, and all pairs are neighbours
    )

    @abstractmethod
    def prior(self, batch: BatchedGraphs, pos: Tensor, width: float, generator: torch.Generator) -> Tensor:
        """Positions (A, 3) from the prior. pos: where fixed atoms are. width: σ of a normal prior, Å."""

    @abstractmethod
    def displacement(self, batch: BatchedGraphs, pos: Tensor, clean: Tensor, sigma: Tensor) -> Tensor:
        """d (A, 3) Å of the kernel around the clean positions, zero for fixed atoms."""

    @abstractmethod
    def settled(self, batch: BatchedGraphs, pos: Tensor) -> Tensor:
        """Positions inside the cell, between the walls, with the centre of mass where it belongs."""

    @abstractmethod
    def projected(self, batch: BatchedGraphs, vectors: Tensor) -> Tensor:
        """Vectors (A, 3) without what is not noised: fixed atoms, translations of the whole."""

    @abstractmethod
    def amplitude(self, batch: BatchedGraphs, sigma: Tensor, data: float) -> Tensor:
        """(B,) Å: what the output of the network is multiplied by, the expected size of its target."""

    def noise(self, batch: BatchedGraphs, sigma: Tensor, generator: torch.Generator) -> Tensor:
        """σ·n (A, 3): n normal, projected."""
        n = torch.randn((len(batch.graph), 3), generator=generator, dtype=torch.float64)
        return self.noise_directions(batch, n) * sigma[batch.graph, None]

    def noise_directions(self, batch: BatchedGraphs, n: Tensor) -> Tensor:
        """Noise without the directions in which the kernel has none."""
        return n * batch.free[:, None]

    def noised(self, batch: BatchedGraphs, clean: Tensor, sigma: Tensor, g: torch.Generator) -> Tensor:
        """Positions drawn from the kernel around the clean ones."""
        return self.settled(batch, clean + self.noise(batch, sigma, g))


class Positions(PositionNoiser):
    """Molecules and clusters."""

    name = "Positions"
    scaled = True

    def centre(self, batch: BatchedGraphs, pos: Tensor) -> Tensor:
        """(B, 3): the mean of the fixed atoms where there are some, else the mean of all."""
        held = batch.anchored[:, None]
        return torch.where(held, batch.mean(pos, ~batch.free), batch.mean(pos))

    def prior(self, batch: BatchedGraphs, pos: Tensor, width: float, generator: torch.Generator) -> Tensor:
        n = torch.randn(pos.shape, generator=generator, dtype=torch.float64)
        middle = self.centre(batch, pos) * batch.anchored[:, None]
        drawn = middle[batch.graph] + width * self.noise_directions(batch, n)
        return torch.where(batch.free[:, None], drawn, pos)

    def displacement(self, batch: BatchedGraphs, pos: Tensor, clean: Tensor, sigma: Tensor) -> Tensor:
        return self.projected(batch, clean - pos)

    def settled(self, batch: BatchedGraphs, pos: Tensor) -> Tensor:
        loose = (~batch.anchored)[:, None]
        return pos - (self.centre(batch, pos) * loose)[batch.graph]

    def projected(self, batch: BatchedGraphs, vectors: Tensor) -> Tensor:
        loose = (~batch.anchored)[:, None]
        return (vectors - (batch.mean(vectors) * loose)[batch.graph]) * batch.free[:, None]

    def noise_directions(self, batch: BatchedGraphs, n: Tensor) -> Tensor:
        return self.projected(batch, n)

    def amplitude(self, batch: BatchedGraphs, sigma: Tensor, data: float) -> Tensor:
        return sigma * data / (sigma**2 + data**2).sqrt()


class CellPositions(PositionNoiser):
    """Periodic structures: bulk, and atoms anywhere above a surface."""

    name = "CellPositions"
    scaled = False

    def prior(self, batch: BatchedGraphs, pos: Tensor, width: float, generator: torch.Generator) -> Tensor:
        f = torch.rand(pos.shape, generator=generator, dtype=torch.float64)
        drawn = torch.einsum("ak,akc->ac", f, batch.cell[batch.graph])
        return torch.where(batch.free[:, None], drawn, pos)

    def displacement(self, batch: BatchedGraphs, pos: Tensor, clean: Tensor, sigma: Tensor) -> Tensor:
        found = torch.zeros_like(pos)
        for b, rows in enumerate(_slices(batch)):
            found[rows] = self._of_one(batch, b, pos[rows], clean[rows], float(sigma[b]))
        return self.projected(batch, found)

    def _of_one(self, batch: BatchedGraphs, b: int, pos: Tensor, clean: Tensor, sigma: float) -> Tensor:
        return wrapped_displacement(pos, clean, sigma, batch.cell[b], self.periodic(batch)[b])

    def settled(self, batch: BatchedGraphs, pos: Tensor) -> Tensor:
        return torch.where(batch.free[:, None], self.wrapped(batch, pos, 0.5 * batch.cell.sum(1)), pos)

    def wrapped(self, batch: BatchedGraphs, pos: Tensor, middle: Tensor) -> Tensor:
        """Positions inside the cells around these points (B, 3)."""
        half, g = middle[batch.graph], batch.graph
        return wrap(pos - half, batch.cell[g], self.periodic(batch)[g]) + half

    def projected(self, batch: BatchedGraphs, vectors: Tensor) -> Tensor:
        loose = (~batch.anchored)[:, None]
        return (vectors - (batch.mean(vectors) * loose)[batch.graph]) * batch.free[:, None]

    def amplitude(self, batch: BatchedGraphs, sigma: Tensor, data: float) -> Tensor:
        squared = circle_width(sigma[:, None] / self.lengths(batch)).square().mean(1)
        return sigma * squared.sqrt()

    def periodic(self, batch: BatchedGraphs) -> Tensor:
        """(B, 3) bool: the axes along which the kernel is wrapped."""
        return torch.ones_like(batch.pbc)

    def lengths(self, batch: BatchedGraphs) -> Tensor:
        """(B, 3) Å: after which the kernel repeats along each axis."""
        heights: Tensor = 1.0 / torch.linalg.inv(batch.cell).norm(dim=1)
        return heights


class ConfinedCellPositions(CellPositions):
    """Atoms above a surface: periodic along the first two cell vectors, between two walls in z."""

    name = "ConfinedCellPositions"

    def prior(self, batch: BatchedGraphs, pos: Tensor, width: float, generator: torch.Generator) -> Tensor:
        f = torch.rand(pos.shape, generator=generator, dtype=torch.float64)
        flat = batch.cell[batch.graph, :2]
        low, high = batch.walls[batch.graph].T
        drawn = torch.einsum("ak,akc->ac", f[:, :2], flat)
        drawn = torch.cat([drawn[:, :2], (low + f[:, 2] * (high - low))[:, None]], 1)
        return torch.where(batch.free[:, None], drawn, pos)

    def _of_one(self, batch: BatchedGraphs, b: int, pos: Tensor, clean: Tensor, sigma: float) -> Tensor:
        low, high = (float(w) for w in batch.walls[b])
        found = wrapped_displacement(_flat(pos), _flat(clean), sigma, batch.cell[b], self.periodic(batch)[b])
        found[:, 2] = reflected_displacement(pos[:, 2], clean[:, 2], sigma, low, high)
        return found

    def settled(self, batch: BatchedGraphs, pos: Tensor) -> Tensor:
        low, high = batch.walls[batch.graph].T
        flat = self.wrapped(batch, _flat(pos), 0.5 * batch.cell[:, :2].sum(1))
        inside = torch.cat([flat[:, :2], reflect(pos[:, 2], low, high)[:, None]], 1)
        return torch.where(batch.free[:, None], inside, pos)

    def projected(self, batch: BatchedGraphs, vectors: Tensor) -> Tensor:
        """Without fixed atoms the structure may still be moved along the surface, not along z."""
        loose = (~batch.anchored)[:, None] * torch.tensor([1.0, 1.0, 0.0], dtype=vectors.dtype)
        return (vectors - (batch.mean(vectors) * loose)[batch.graph]) * batch.free[:, None]

    def periodic(self, batch: BatchedGraphs) -> Tensor:
        return torch.tensor([True, True, False]).expand(len(batch), 3)

    def lengths(self, batch: BatchedGraphs) -> Tensor:
        flat = batch.cell[:, :2]
        area = torch.linalg.cross(flat[:, 0], flat[:, 1]).norm(dim=1)
        heights = area[:, None] / flat.norm(dim=2).flip(1)
        return torch.cat([heights, 2 * (batch.walls[:, 1:] - batch.walls[:, :1])], 1)


class Types:
    """Elements as classes of a compact vocabulary, and one class that means masked."""

    key = "x"
    name = "Types"

    def noised(
        self, classes: Tensor, free: Tensor, probability: Tensor, masked: int, g: torch.Generator
    ) -> Tensor:
        """Classes (A,) in which each free atom is masked with its probability (A,)."""
        u = torch.rand(len(classes), generator=g, dtype=torch.float64)
        return torch.where((u < probability) & free, torch.full_like(classes, masked), classes)


POSITION_NOISERS: dict[str, type[PositionNoiser]] = {
    c.name: c for c in (Positions, CellPositions, ConfinedCellPositions)
}
NOISER_NAMES = (*POSITION_NOISERS, Types.name)


def named_noisers(names: Sequence[str]) -> tuple[PositionNoiser | None, Types | None]:
    """The noiser of positions and that of types. Raises SettingsError for names that cannot go together."""
    positions: list[PositionNoiser] = []
    types: list[Types] = []
    for name in names:
        if name == Types.name:
            types.append(Types())
        elif name in POSITION_NOISERS:
            positions.append(POSITION_NOISERS[name]())
        else:
            near = nearest(name, NOISER_NAMES)
            hint = f"; nearest: {near}" if near else ""
            raise SettingsError(f"noisers: {name!r}: expected {' | '.join(NOISER_NAMES)}{hint}")
    for key, found in (("pos", positions), ("x", types)):
        if len(found) > 1:
            several = ", ".join(n.name for n in found)
            raise SettingsError(f"noisers: {several} all noise {key!r}; give one of them")
    if not positions and not types:
        raise SettingsError(f"noisers: expected at least one of {', '.join(NOISER_NAMES)}")
    return (positions[0] if positions else None), (types[0] if types else None)


def _flat(vectors: Tensor) -> Tensor:
    return torch.cat([vectors[:, :2], torch.zeros_like(vectors[:, :1])], 1)


def _slices(batch: BatchedGraphs) -> list[slice]:
    ends = torch.cumsum(batch.sizes, 0).tolist()
    return [slice(end - int(n), end) for end, n in zip(ends, batch.sizes.tolist(), strict=True)]
