"""Labelled structures as graphs: built once for each frame, cached, concatenated into batches by `torch.cat`.

A graph holds edge vectors instead of positions. The model is evaluated at positions 0 with the vectors as shifts, so
that float32 rounds only distances below the cutoff, not coordinates far from the origin. For the stress the vectors
are given as `unit_shifts` in a unit cell, which the strain then deforms exactly; the result is dE/dε and is divided
by the true volume here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from aims_pax.errors import SettingsError
from aims_pax.frames import WEIGHT, Array, Frame, LabelledFrame
from aims_pax.isolated_atoms import is_lone
from aims_pax.models.neighbour_list import is_sane_structure, neighbour_list
from aims_pax.surrogate_labels import is_surrogate_copy


@dataclass(frozen=True, eq=False)
class LabelledGraph:
    """One labelled frame. Z: number of elements of the model.

    species: (N,) index into the elements. edges: (2, E) sender, receiver. vectors: (E, 3) Å, model dtype.
    composition: (Z,) atoms of each element. energy: eV float64. forces: (N, 3) eV/Å.
    stress: (3, 3) eV/Å³, zeros when the label has none. volume: Å³, 1 without a cell.
    isolated: one atom or ion alone, on which no member trains. neutral: its energy is an E0.
    relative: whether the energy is already above the atomic energies and the common shift of a model.
    parent: id of the structure of which this is a copy with a label of a surrogate; "" for others.
    """

    id: str
    species: torch.Tensor
    edges: torch.Tensor
    vectors: torch.Tensor
    composition: Array
    energy: float
    forces: torch.Tensor
    stress: torch.Tensor
    has_stress: bool
    volume: float
    weight: float
    isolated: bool
    neutral: bool = True
    relative: bool = False
    parent: str = ""

    def __len__(self) -> int:
        return len(self.species)


class GraphCache:
    """All graphs made so far, by frame id; members share them."""

    def __init__(
        self,
        elements: Sequence[int],
        r_max: float,
        dtype: torch.dtype,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        self.elements, self.r_max, self.dtype = tuple(elements), r_max, dtype
        self.weights = dict(weights or {})
        self.index = species_index(elements)
        self._made: dict[str, tuple[LabelledFrame, LabelledGraph]] = {}

    def __len__(self) -> int:
        return len(self._made)

    def of(self, labelled: Sequence[LabelledFrame]) -> list[LabelledGraph]:
        """The graphs of these frames, in order."""
        return [self._of(frame) for frame in labelled]

    def _of(self, labelled: LabelledFrame) -> LabelledGraph:
        known = self._made.get(labelled.id)
        if known is not None and (known[0] is labelled or self._same(known[0], labelled)):
            return known[1]
        graph = self._make(labelled)
        self._made[graph.id] = labelled, graph
        return graph

    def _same(self, one: LabelledFrame, other: LabelledFrame) -> bool:
        """Whether two labels of a frame are the same for training."""
        return (
            one.label.energy == other.label.energy
            and np.array_equal(one.label.forces, other.label.forces)
            and (one.label.stress is None) == (other.label.stress is None)
            and self._weight(one.origin) == self._weight(other.origin)
        )

    def _make(self, labelled: LabelledFrame) -> LabelledGraph:
        frame, label = labelled.frame, labelled.label
        if not label.finite:
            raise ValueError(f"frame {labelled.id}: its label is not finite; it cannot be used for training")
        if not is_sane_structure(frame.positions, frame.cell, frame.pbc, self.r_max):
            raise ValueError(
                f"frame {labelled.id}: no neighbour list can be made (atoms too far or too dense)"
            )
        species = species_of(frame, self.index)
        i, j, S = neighbour_list(frame.positions, frame.cell, frame.pbc, self.r_max)
        vectors = frame.positions[j] - frame.positions[i] + S @ frame.cell
        has_stress = label.stress is not None and frame.periodic
        tensor = label.stress if has_stress and label.stress is not None else np.zeros((3, 3))
        return LabelledGraph(
            id=labelled.id,
            species=torch.from_numpy(species),
            edges=torch.from_numpy(np.stack([i, j])),
            vectors=torch.from_numpy(vectors).to(self.dtype),
            composition=np.bincount(species, minlength=len(self.elements)).astype(float),
            energy=label.energy,
            forces=torch.from_numpy(np.array(label.forces)).to(self.dtype),
            stress=torch.from_numpy(np.array(tensor)).to(self.dtype),
            has_stress=has_stress,
            volume=abs(float(np.linalg.det(frame.cell))) if frame.periodic else 1.0,
            weight=self._weight(labelled.origin),
            isolated=is_lone(labelled),
            neutral=not frame.charge,
            parent=str(labelled.origin["parent"]) if is_surrogate_copy(labelled) else "",
        )

    def _weight(self, origin: Mapping[str, Any]) -> float:
        """config_weight × config_type_weights: of the frame's config_type, else system, else stage, else Default."""
        own = float(origin.get(WEIGHT, 1.0))
        for key in ("config_type", "system", "stage"):
            named = self.weights.get(str(origin.get(key)))
            if named is not None:
                return own * named
        return own * self.weights.get("Default", 1.0)


@dataclass(frozen=True, eq=False)
class GraphBatch:
    """Several graphs concatenated into one, on the device. F graphs, A atoms, E edges.

    node_attrs: (A, Z) one-hot. edges: (2, E). vectors: (E, 3). frame_of: (A,). ptr: (F + 1,).
    energy: (F,) eV above the atomic energies. forces: (A, 3). stress: (F, 3, 3).
    has_stress, volume, weight: (F,).
    """

    node_attrs: torch.Tensor
    edges: torch.Tensor
    vectors: torch.Tensor
    frame_of: torch.Tensor
    ptr: torch.Tensor
    energy: torch.Tensor
    forces: torch.Tensor
    stress: torch.Tensor
    has_stress: torch.Tensor
    volume: torch.Tensor
    weight: torch.Tensor

    @property
    def frames(self) -> int:
        return len(self.ptr) - 1


def collate(
    graphs: Sequence[LabelledGraph], E0: Array, device: torch.device, shift: float = 0.0
) -> GraphBatch:
    """Concatenate. E0: (Z,) eV, subtracted in float64, so that large total energies lose no precision in float32.

    shift: eV/atom of the model, part of the predicted energies, which is added to `relative` ones.
    """
    sizes = torch.tensor([len(g) for g in graphs])
    ptr = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
    dtype = graphs[0].vectors.dtype
    starts = ptr.tolist()
    above = [
        g.energy + shift * len(g) if g.relative else g.energy - float(g.composition @ E0) for g in graphs
    ]

    def numbers(values: list[Any]) -> torch.Tensor:
        return torch.tensor(values, dtype=dtype, device=device)

    return GraphBatch(
        node_attrs=torch.nn.functional.one_hot(torch.cat([g.species for g in graphs]), len(E0)).to(
            device, dtype
        ),
        edges=torch.cat([g.edges + start for g, start in zip(graphs, starts[:-1], strict=True)], dim=1).to(
            device
        ),
        vectors=torch.cat([g.vectors for g in graphs]).to(device),
        frame_of=torch.repeat_interleave(torch.arange(len(graphs)), sizes).to(device),
        ptr=ptr.to(device),
        energy=numbers(above),
        forces=torch.cat([g.forces for g in graphs]).to(device),
        stress=torch.stack([g.stress for g in graphs]).to(device),
        has_stress=numbers([float(g.has_stress) for g in graphs]),
        volume=numbers([g.volume for g in graphs]),
        weight=numbers([g.weight for g in graphs]),
    )


def model_input(
    node_attrs: torch.Tensor,
    edges: torch.Tensor,
    vectors: torch.Tensor,
    frame_of: torch.Tensor,
    ptr: torch.Tensor,
    head: int = 0,
) -> dict[str, torch.Tensor]:
    """Inputs of MACE's forward: positions 0, the vectors as shifts, a unit cell; new tensors at each call."""
    frames = len(ptr) - 1
    unit = torch.eye(3, dtype=vectors.dtype, device=vectors.device).repeat(frames, 1)
    return {
        "node_attrs": node_attrs,
        "positions": torch.zeros((len(node_attrs), 3), dtype=vectors.dtype, device=vectors.device),
        "edge_index": edges,
        "shifts": vectors,
        "unit_shifts": vectors,
        "cell": unit,
        "batch": frame_of,
        "ptr": ptr,
        "head": torch.full((frames,), head, dtype=torch.int64, device=vectors.device),
    }


def species_index(elements: Sequence[int]) -> np.ndarray[Any, Any]:
    """(119,) from atomic number to the index among the elements, −1 for unknown ones."""
    index = np.full(119, -1)
    index[list(elements)] = np.arange(len(elements))
    return index


def species_of(frame: Frame, index: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """(N,) indices among the elements. Raises SettingsError for an element the model does not know."""
    species = index[frame.numbers]
    if (species < 0).any():
        from ase.data import chemical_symbols

        unknown = sorted({chemical_symbols[z] for z in frame.numbers[species < 0]})
        known = " ".join(chemical_symbols[z] for z in np.flatnonzero(index >= 0))
        raise SettingsError(
            f"the model does not know {', '.join(unknown)} (in {frame.formula}); it knows {known}"
        )
    return species.astype(np.int64)


@dataclass(frozen=True)
class EdgeGraph:
    """F structures with A atoms and E edges.

    species: (A,). sender, receiver: (E,). vectors: (E, 3) Å float64.
    frame_of: (A,) structure of each atom. ptr: (F + 1,) first atom of each structure.
    """

    species: torch.Tensor
    sender: torch.Tensor
    receiver: torch.Tensor
    vectors: torch.Tensor
    frame_of: torch.Tensor
    ptr: torch.Tensor


@dataclass(frozen=True, eq=False)
class EdgeBatch:
    """Inputs of an evaluation: species (A,), sender, receiver (E,), vectors (E, 3), frame_of (A,)."""

    species: torch.Tensor
    sender: torch.Tensor
    receiver: torch.Tensor
    vectors: torch.Tensor
    frame_of: torch.Tensor
    frames: int
