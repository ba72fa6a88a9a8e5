"""The network as a denoiser, with the preconditioning and loss of Karras et al. (EDM, NeurIPS 2022).

Positions:       D(x, σ) − x = −σ²/(σ² + σ_data²)·x + σ·σ_data/√(σ² + σ_data²)·F(x/√(σ² + σ_data²), log σ)
Cell positions:  D(x, σ) − x = c(σ)·F(x, log σ),   c(σ) the expected size of the wrapped displacement
Loss:            ⟨|D(x, σ) − x − d|²/c(σ)²⟩, d the displacement of the noise kernel; masked types: cross entropy

The score is (D − x)/σ². x is measured from the centre of mass, or from the centre of the fixed atoms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from aims_pax.errors import SettingsError
from aims_pax.models.diffusion.atoms_graph import AtomsGraph, BatchedGraphs, batch_graphs
from aims_pax.models.diffusion.noise_schedule import NoiseSchedule
from aims_pax.models.diffusion.noisers import ConfinedCellPositions, PositionNoiser, Positions, named_noisers
from aims_pax.models.diffusion.score_network import Neighbourhood, ScoreNetwork
from aims_pax.models.neighbour_list import neighbour_list

UNCONDITIONAL = 0.2  # share of training structures whose property, or whose composition, is hidden
TYPE_WEIGHT = 0.2  # of the cross entropy in the loss


class Denoises(Protocol):
    """What sampling needs: the network, or an exact solution."""

    def __call__(
        self, batch: BatchedGraphs, pos: Tensor, classes: Tensor, sigma: Tensor, /
    ) -> tuple[Tensor, Tensor | None]:
        """(D − x (A, 3) Å, scores of the elements (A, V) or None) at σ (B,)."""
        ...


@dataclass(frozen=True)
class Architecture:
    """Everything that a model is made from, as plain values.

    vocabulary: atomic numbers, sorted. cutoff: Å, of cell positions. sigma_data, sigma_min, sigma_max: Å.
    sigma_centre: Å, the level that training looks at most, 0 for none.
    neighbours: mean number of neighbours in the data. conditioning: name of the property, or "".
    classes: of an integer property, 1 for a scalar, 0 for none. centre, spread: of the property in the data.
    composition: whether the network knows which elements the masked atoms have, all together.
    """

    noisers: tuple[str, ...]
    vocabulary: tuple[int, ...]
    sde: str = "ve"
    cutoff: float = 6.0
    feature_size: int = 32
    n_blocks: int = 3
    n_rbf: int = 24
    sigma_data: float = 1.0
    sigma_min: float = 0.01
    sigma_max: float = 5.0
    sigma_centre: float = 0.0
    neighbours: float = 12.0
    conditioning: str = ""
    classes: int = 0
    centre: float = 0.0
    spread: float = 1.0
    composition: bool = False

    def plain(self) -> dict[str, Any]:
        """As plain values, for YAML."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def check(self) -> None:
        """Raises ValueError for values with which no model can be made."""
        for name, possible in {
            "vocabulary": bool(self.vocabulary)
            and list(self.vocabulary) == sorted(set(self.vocabulary))
            and min(self.vocabulary) > 0
            and max(self.vocabulary) < 119,
            "sde": self.sde in ("ve", "vp"),
            **{
                name: 0 < getattr(self, name) < math.inf
                for name in (
                    "cutoff",
                    "feature_size",
                    "n_blocks",
                    "n_rbf",
                    "sigma_data",
                    "neighbours",
                    "spread",
                )
            },
            "sigma_min": 0 < self.sigma_min < self.sigma_max < math.inf,
            "sigma_centre": 0 <= self.sigma_centre <= self.sigma_max,
            "centre": math.isfinite(self.centre),
            "classes": self.classes >= 0 and bool(self.classes) == bool(self.conditioning),
        }.items():
            if not possible:
                raise ValueError(f"architecture.{name}: {getattr(self, name)!r} is impossible")


class Denoiser(nn.Module):
    """A model of the distribution of structures. Single precision inside, double precision outside."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = a = architecture
        self.positions, self.types = named_noisers(a.noisers)
        scaled = isinstance(self.positions, Positions)
        self.network = ScoreNetwork(
            types=len(a.vocabulary) + 1,
            features=a.feature_size,
            blocks=a.n_blocks,
            radial=a.n_rbf,
            reach=6.0 if scaled else a.cutoff,
            smooth=not scaled,
            heights=isinstance(self.positions, ConfinedCellPositions),
            classes=len(a.vocabulary) if self.types else 0,
            condition=a.classes,
            composition=a.composition and self.types is not None,
        )
        self.schedule = NoiseSchedule(a.sde, a.sigma_min, a.sigma_max, a.sigma_data, a.sigma_centre)

    @property
    def masked(self) -> int:
        """The class of an atom whose element is masked."""
        return len(self.architecture.vocabulary)

    def classes_of(self, numbers: Tensor) -> Tensor:
        """(A,) classes of atomic numbers. Raises SettingsError for an element that is not in the vocabulary."""
        known = torch.tensor(self.architecture.vocabulary)
        place = torch.searchsorted(known, numbers).clamp_max(len(known) - 1)
        wrong = numbers[known[place] != numbers]
        if len(wrong):
            from ase.data import chemical_symbols

            names = ", ".join(chemical_symbols[z] for z in sorted(set(wrong.tolist())))
            had = ", ".join(chemical_symbols[z] for z in self.architecture.vocabulary)
            raise SettingsError(
                f"{names}: the model was trained on {had} only; train with structures that contain it"
            )
        return place

    def numbers_of(self, classes: Tensor) -> Tensor:
        """(A,) atomic numbers of classes that are not masked."""
        return torch.tensor(self.architecture.vocabulary)[classes]

    def standardised(self, values: Tensor) -> Tensor:
        """(B,) property values as the network takes them; classes of an integer property as they are."""
        a = self.architecture
        return values if a.classes > 1 else (values - a.centre) / a.spread

    def forward(
        self,
        batch: BatchedGraphs,
        pos: Tensor,
        classes: Tensor,
        sigma: Tensor,
        condition: Tensor | None = None,
        known: Tensor | None = None,
        left: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """(D − x (A, 3) Å, scores of the elements (A, V) or None). condition: (B,) standardised property.

        left: (B, V) number of masked atoms of each element, negative in structures where it is unknown; None: in all.
        """
        F, scores = self._raw(batch, pos, classes, sigma, condition, known, self._shares(batch, left))
        if self.positions is None:
            return torch.zeros_like(pos), scores
        skip, out = self._coefficients(batch, pos, sigma)
        return self.positions.projected(batch, skip + out[batch.graph, None] * F.double()), scores

    def loss(
        self,
        graphs: Sequence[AtomsGraph],
        generator: torch.Generator,
        prepared: tuple[BatchedGraphs, Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Mean loss of a batch at stratified random noise levels."""
        batch, clean, numbers = prepared or batch_graphs(graphs)
        classes = self.classes_of(numbers)
        sigma = self.schedule.drawn(len(batch), generator)
        condition, known = self._shown(graphs, generator)
        seen = classes
        if self.types:
            chance = self.schedule.time(sigma)[batch.graph]
            seen = self.types.noised(classes, batch.free, chance, self.masked, generator)
        pos = clean
        if self.positions is not None:
            clean = self.positions.settled(batch, clean)
            pos = self.positions.noised(batch, clean, sigma, generator)
        left = self._hidden(batch, classes, seen, generator) if self._counts else None
        found, scores = self(batch, pos, seen, sigma, condition, known, left)
        total = torch.zeros(())
        if self.positions is not None:
            total = total + self._position_loss(batch, pos, clean, sigma, found)
        if scores is not None:
            total = total + TYPE_WEIGHT * self._type_loss(batch, classes, seen, scores)
        return total

    def _position_loss(
        self, batch: BatchedGraphs, pos: Tensor, clean: Tensor, sigma: Tensor, found: Tensor
    ) -> Tensor:
        assert self.positions is not None
        target = self.positions.displacement(batch, pos, clean, sigma)
        out = self.positions.amplitude(batch, sigma, self.architecture.sigma_data)
        error = ((found - target) / out[batch.graph, None]).square().mean(1, keepdim=True)
        return batch.mean(error, batch.free).mean().float()

    def _type_loss(self, batch: BatchedGraphs, classes: Tensor, seen: Tensor, scores: Tensor) -> Tensor:
        """Mean over the masked atoms of each structure: the weight 1/t of a linear masking schedule."""
        hidden = (seen == self.masked) & batch.free
        entropy = nn.functional.cross_entropy(scores, classes, reduction="none")[:, None]
        return batch.mean(entropy, hidden).mean()

    @property
    def _counts(self) -> bool:
        """Whether the network knows the elements of the masked atoms, all together."""
        return self.architecture.composition and self.types is not None

    def _hidden(self, batch: BatchedGraphs, classes: Tensor, seen: Tensor, g: torch.Generator) -> Tensor:
        """(B, V) number of masked atoms of each element; −1 in the structures whose composition is not shown."""
        hidden = (seen == self.masked) & batch.free
        one = nn.functional.one_hot(classes, self.masked) * hidden[:, None]
        left = one.new_zeros((len(batch), self.masked)).index_add(0, batch.graph, one)
        known = torch.rand(len(batch), generator=g) >= UNCONDITIONAL
        return torch.where(known[:, None], left, -1)

    def _shares(self, batch: BatchedGraphs, left: Tensor | None) -> Tensor | None:
        """(B, V) shares of the elements among the masked atoms, not a number where nobody knows them."""
        if not self._counts:
            return None
        if left is None:
            return torch.full((len(batch), self.masked), torch.nan)
        shares = left / left.sum(1, keepdim=True).clamp_min(1)
        return torch.where(left < 0, torch.nan, shares.float())

    def _shown(self, graphs: Sequence[AtomsGraph], g: torch.Generator) -> tuple[Tensor | None, Tensor | None]:
        name = self.architecture.conditioning
        if not name:
            return None, None
        values = torch.tensor([float(graph.properties[name]) for graph in graphs])
        known = torch.rand(len(graphs), generator=g) >= UNCONDITIONAL
        return self.standardised(values), known

    def _coefficients(self, batch: BatchedGraphs, pos: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        noiser, data = self.positions, self.architecture.sigma_data
        assert noiser is not None
        out = noiser.amplitude(batch, sigma, data)
        if isinstance(noiser, Positions):
            relative = pos - noiser.centre(batch, pos)[batch.graph]
            return -(sigma**2 / (sigma**2 + data**2))[batch.graph, None] * relative, out
        return torch.zeros_like(pos), out

    def _raw(
        self,
        batch: BatchedGraphs,
        pos: Tensor,
        classes: Tensor,
        sigma: Tensor,
        condition: Tensor | None,
        known: Tensor | None,
        shares: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        data = self.architecture.sigma_data
        if isinstance(self.positions, Positions):
            near = all_pairs(batch, pos / (sigma**2 + data**2).sqrt()[batch.graph, None])
        elif self.positions is None and not bool(batch.pbc.any()):
            near = all_pairs(batch, pos / data)
        else:
            near = within_cutoff(batch, pos, self.architecture.cutoff, self.architecture.neighbours)
        if isinstance(self.positions, ConfinedCellPositions):
            low, high = batch.walls[batch.graph].T
            heights = ((pos[:, 2] - low) / (high - low)).float()
            near = Neighbourhood(near.receiver, near.sender, near.vectors, near.present, near.scale, heights)
        level = (sigma.clamp_min(1e-6).log() / 4).float()
        wanted = None if condition is None else condition.float()
        found: tuple[Tensor, Tensor | None] = self.network(
            near, classes, batch.free, batch.graph, level, wanted, known, shares
        )
        return found


def all_pairs(batch: BatchedGraphs, pos: Tensor) -> Neighbourhood:
    """All other atoms of the structure as neighbours of each free atom. pos: (A, 3) in any unit."""
    receiver = torch.nonzero(batch.free)[:, 0]
    sizes = batch.sizes
    most = int(sizes.max())
    start = (torch.cumsum(sizes, 0) - sizes)[batch.graph[receiver]]
    own = sizes[batch.graph[receiver]]
    k = torch.arange(most - 1)[None].expand(len(receiver), -1)
    place = receiver - start
    sender = k + (k >= place[:, None])  # all but the receiver itself
    present = sender < own[:, None]
    sender = torch.where(present, sender, 0) + start[:, None]
    vectors = (pos[sender] - pos[receiver][:, None]).float()
    scale = own.float().rsqrt()[:, None]
    return Neighbourhood(receiver, sender, vectors, present.float(), scale)


def within_cutoff(batch: BatchedGraphs, pos: Tensor, cutoff: float, usual: float) -> Neighbourhood:
    """Neighbours of each free atom within the cutoff (Å), with periodic images. usual: their mean number."""
    x, cells, pbc, free = pos.numpy(), batch.cell.numpy(), batch.pbc.numpy(), batch.free.numpy()
    ends = np.cumsum(batch.sizes.numpy())
    parts = []
    for b, end in enumerate(ends):
        start = end - int(batch.sizes[b])
        i, j, S = neighbour_list(x[start:end], cells[b], pbc[b], cutoff)
        mine = free[start + i]
        i, j, S = i[mine], j[mine], S[mine]
        vectors = x[start + j] - x[start + i] + S @ cells[b]
        parts.append((i + start, j + start, vectors))
    i, j, vectors = (np.concatenate([p[k] for p in parts]) for k in range(3))
    receiver = np.flatnonzero(free)
    row_of = np.full(len(free), -1)
    row_of[receiver] = np.arange(len(receiver))
    rows = row_of[i]
    counts = np.bincount(rows, minlength=len(receiver))
    column = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    shape = (len(receiver), max(1, int(counts.max(initial=0))))
    sender, present = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
    padded = np.ones((*shape, 3), np.float32)
    sender[rows, column], present[rows, column], padded[rows, column] = j, 1.0, vectors
    scale = torch.full((len(receiver), 1), usual**-0.5)
    return Neighbourhood(
        torch.from_numpy(receiver),
        torch.from_numpy(sender),
        torch.from_numpy(padded),
        torch.from_numpy(present),
        scale,
    )


def size_of_noise(graphs: Sequence[AtomsGraph], noiser: PositionNoiser | None) -> tuple[float, float]:
    """(σ_data, σ_max) in Å for these structures and this noiser."""
    if noiser is None:
        return 1.0, 5.0
    batch, pos, _ = batch_graphs(graphs)
    if isinstance(noiser, Positions):
        relative = (pos - noiser.centre(batch, pos)[batch.graph])[batch.free]
        data = float(relative.square().mean().sqrt())
        return max(data, 0.05), max(5 * data, 1.0)
    lengths = batch.cell.norm(dim=2)
    if isinstance(noiser, ConfinedCellPositions):
        lengths = torch.cat([lengths[:, :2], 2 * (batch.walls[:, 1:] - batch.walls[:, :1])], 1)
    return 1.0, float(lengths.max()) / 2
