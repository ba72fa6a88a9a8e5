"""Structures as a diffusion model sees them: one (`AtomsGraph`), or many as flat arrays (`BatchedGraphs`).

>>> water = AtomsGraph(x=[8, 1, 1], pos=[[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
>>> len(water), water.edges(1.2)[0].tolist()
(3, [0, 0, 1, 2])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aims_pax.errors import SettingsError
from aims_pax.frames import Array, Frame
from aims_pax.models.neighbour_list import Ints, neighbour_list


@dataclass(frozen=True, eq=False)
class AtomsGraph:
    """One structure.

    x: (N,) atomic numbers. pos: (N, 3) Å. cell: (3, 3) Å, rows are lattice vectors. pbc: (3,) bool.
    mask: (N,) bool, atoms that are fixed: they are not noised and not generated.
    confinement: lowest and highest z (Å) of the atoms that are not fixed, or None.
    properties: numbers of the whole structure, for conditioning.
    """

    x: NDArray[np.int64]
    pos: Array
    cell: Array = field(default_factory=lambda: np.zeros((3, 3)))
    pbc: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(3, bool))
    mask: NDArray[np.bool_] | None = None
    confinement: tuple[float, float] | None = None
    properties: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "x", np.array(self.x, np.int64))
        put(self, "pos", np.array(self.pos, float).reshape(len(self.x), 3))
        put(self, "cell", np.array(self.cell, float))
        put(self, "pbc", np.array(np.broadcast_to(np.asarray(self.pbc, bool), (3,))))
        mask = np.zeros(len(self.x), bool) if self.mask is None else np.array(self.mask, bool)
        put(self, "mask", mask)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def fixed(self) -> NDArray[np.bool_]:
        """(N,) bool: `mask`, never None."""
        return np.zeros(len(self.x), bool) if self.mask is None else self.mask

    def edges(self, cutoff: float) -> tuple[Ints, Ints, Ints]:
        """Pairs within the cutoff (Å), periodic images included: i (E,), j (E,), S (E, 3)."""
        return neighbour_list(self.pos, self.cell, self.pbc, cutoff)

    @classmethod
    def from_frame(
        cls,
        frame: Frame,
        confinement: tuple[float, float] | None = None,
        properties: Mapping[str, float] | None = None,
        masked: bool = True,
    ) -> AtomsGraph:
        """A frame as a graph. masked: whether its fixed atoms are fixed here too.

        Raises SettingsError for atoms that are fixed in some directions only.
        """
        mask: NDArray[np.bool_] | None = None
        if frame.fixed is not None and masked:
            mask = np.asarray(frame.fixed.all(axis=1))
            partly = np.flatnonzero(frame.fixed.any(axis=1) & ~mask)
            if len(partly):
                raise SettingsError(
                    f"{frame.formula}: atom {int(partly[0]) + 1} is fixed in "
                    "some directions only; a diffusion model needs atoms that are fixed entirely, or free"
                )
        return cls(
            frame.numbers, frame.positions, frame.cell, frame.pbc, mask, confinement, dict(properties or {})
        )

    def to_frame(self) -> Frame:
        """The structure as a frame; masked atoms are its fixed atoms."""
        return Frame(self.x, self.pos, self.cell, self.pbc, fixed=self.fixed if self.fixed.any() else None)

    def repeated(self, r: int) -> AtomsGraph:
        """r × r × 1 copies along the first two cell vectors."""
        if r == 1:
            return self
        shifts = [a * self.cell[0] + b * self.cell[1] for a in range(r) for b in range(r)]
        return replace(
            self,
            x=np.tile(self.x, r * r),
            pos=np.concatenate([self.pos + s for s in shifts]),
            cell=self.cell * np.array([r, r, 1])[:, None],
            mask=np.tile(self.fixed, r * r),
        )

    def canonical(self) -> AtomsGraph:
        """Rotated so that the first cell vector lies along x and the second in the xy plane."""
        from ase.cell import Cell

        if not self.cell.any():
            return self
        standard, turn = Cell(self.cell).standard_form()
        return replace(self, cell=np.asarray(standard.array), pos=self.pos @ turn.T)


@dataclass(frozen=True, eq=False)
class BatchedGraphs:
    """B structures with A atoms in total, without their positions, which change while noise is added or removed.

    graph: (A,) the structure of each atom. sizes: (B,). free: (A,) bool. cell: (B, 3, 3) Å. pbc: (B, 3) bool.
    walls: (B, 2) Å, confinement in z, NaN without. Floating-point numbers are float64.
    """

    graph: Tensor
    sizes: Tensor
    free: Tensor
    cell: Tensor
    pbc: Tensor
    walls: Tensor

    def __len__(self) -> int:
        return len(self.sizes)

    def mean(self, values: Tensor, of: Tensor | None = None) -> Tensor:
        """(B, …) mean over the atoms of each structure, or over those in `of` (A,); zero where there are none."""
        weight = torch.ones_like(values[:, :1]) if of is None else of.to(values.dtype)[:, None]
        total = values.new_zeros((len(self), values.shape[1])).index_add_(0, self.graph, values * weight)
        count = values.new_zeros((len(self), 1)).index_add_(0, self.graph, weight)
        return total / count.clamp_min(1)

    @property
    def anchored(self) -> Tensor:
        """(B,) bool: whether the structure has fixed atoms, which define its place in space."""
        held = torch.zeros(len(self), dtype=torch.bool)
        held[self.graph[~self.free]] = True
        return held


def batch_graphs(graphs: Sequence[AtomsGraph]) -> tuple[BatchedGraphs, Tensor, Tensor]:
    """(batch, pos (A, 3) Å float64, x (A,) atomic numbers)."""
    sizes = torch.tensor([len(g) for g in graphs])

    def joined(parts: list[Any]) -> Tensor:
        return torch.from_numpy(np.concatenate(parts))

    walls = [(np.nan, np.nan) if g.confinement is None else g.confinement for g in graphs]
    batch = BatchedGraphs(
        graph=torch.repeat_interleave(torch.arange(len(graphs)), sizes),
        sizes=sizes,
        free=~joined([g.fixed for g in graphs]),
        cell=torch.from_numpy(np.stack([g.cell for g in graphs])),
        pbc=torch.from_numpy(np.stack([g.pbc for g in graphs])),
        walls=torch.tensor(walls, dtype=torch.float64),
    )
    return batch, joined([g.pos for g in graphs]), joined([g.x for g in graphs])
