"""Forces of many structures from many members, in one evaluation per MD step.

`Committee` is the potential; binding it to structures gives a `BoundCommittee`, which stores what does not change
(species, neighbour lists with a skin) and passes an `EdgeGraph` to an evaluator. Evaluators are interchangeable: torch
here, symmetrix in `native`, or any other function from a graph to energies, forces and dE/dε.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol
from weakref import WeakKeyDictionary

import numpy as np
import torch

from aims_pax.frames import Array, Frame, Label
from aims_pax.models import memory_budget
from aims_pax.models.batch_splitting import BatchSplitter, batch_splitter
from aims_pax.models.mace.build import elements_of, model_atomic_energies
from aims_pax.models.mace.graphs import EdgeGraph, model_input, species_index, species_of
from aims_pax.models.mace.inference_pieces import Pieces, likely_edges
from aims_pax.models.mace.mace_import import MaceModel, interaction_energy
from aims_pax.models.neighbour_list import SkinNeighbours
from aims_pax.potential import Evaluation

SKIN = 0.5  # Å: a hydrogen at 500 K moves by half of it in about ten steps of 0.5 fs
WORK = 2**24  # edges × channels × spherical components evaluated at once by `labels`: about 1 GB


class Evaluator(Protocol):
    """Maps a graph to energies (M, F) eV, forces (M, A, 3) eV/Å, dE/dε (M, F, 3, 3) eV or None; float64."""

    members: int

    def __call__(
        self, graph: EdgeGraph, *, strain: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]: ...


EvaluatorMaker = Callable[[Sequence[MaceModel], int], Evaluator]  # of models and their head


class TorchEvaluator:
    """MACE modules, one after the other, on the same graph."""

    def __init__(self, models: Sequence[MaceModel], head: int = 0) -> None:
        self.models, self.head = list(models), head
        self.members = len(self.models)
        self.dtype = next(self.models[0].parameters()).dtype

    def __call__(
        self, graph: EdgeGraph, *, strain: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        elements = len(self.models[0].atomic_numbers)
        one_hot = torch.nn.functional.one_hot(graph.species, elements)
        attrs, vectors = one_hot.to(self.dtype), graph.vectors.to(self.dtype)
        edges = torch.stack([graph.sender, graph.receiver])
        frames = len(graph.ptr) - 1
        composition = torch.zeros((frames, elements), dtype=torch.float64, device=vectors.device)
        composition.index_add_(0, graph.frame_of, one_hot.double())
        energies, forces, strains = [], [], []
        for model in self.models:
            out = model(
                model_input(attrs, edges, vectors, graph.frame_of, graph.ptr, self.head),
                training=False,
                compute_force=True,
                compute_stress=strain,
            )
            E0 = model_atomic_energies(model, self.head)
            energies.append(interaction_energy(out).detach().double() + composition @ E0)
            forces.append(out["forces"].detach().double())
            if strain:
                strains.append(out["stress"].detach().double())
        return torch.stack(energies), torch.stack(forces), torch.stack(strains) if strain else None


@torch.no_grad()
def node_energies(model: MaceModel, graph: EdgeGraph, head: int = 0) -> torch.Tensor:
    """(A,) eV float64: energies of the atoms by MACE's own modules, with the exact atomic energies."""
    dtype = next(model.parameters()).dtype
    one_hot = torch.nn.functional.one_hot(graph.species, len(model.atomic_numbers))
    edges = torch.stack([graph.sender, graph.receiver])
    given = model_input(one_hot.to(dtype), edges, graph.vectors.to(dtype), graph.frame_of, graph.ptr, head)
    out = model(given, training=False, compute_force=False)
    stored = model.atomic_energies_fn.atomic_energies.reshape(-1, len(model.atomic_numbers))[head]
    difference = model_atomic_energies(model, head) - stored.double()
    energies: torch.Tensor = out["node_energy"].double() + difference[graph.species]
    return energies


@torch.no_grad()
def node_invariants(model: MaceModel, graph: EdgeGraph, head: int = 0) -> torch.Tensor:
    """(A, D) float64: the scalar channels of the atoms after each layer, one layer after the other."""
    dtype = next(model.parameters()).dtype
    one_hot = torch.nn.functional.one_hot(graph.species, len(model.atomic_numbers))
    edges = torch.stack([graph.sender, graph.receiver])
    given = model_input(one_hot.to(dtype), edges, graph.vectors.to(dtype), graph.frame_of, graph.ptr, head)
    layers = [product.linear.irreps_out for product in model.products]
    features = model(given, training=False, compute_force=False)["node_feats"]
    parts = features.split([irreps.dim for irreps in layers], dim=1)
    scalars = [part[:, : irreps.count("0e")] for part, irreps in zip(parts, layers, strict=True)]
    return torch.cat(scalars, dim=1).double()


def torch_evaluator(models: Sequence[MaceModel], head: int = 0, cuda_graphs: bool = False) -> Evaluator:
    """The torch evaluator of these models: our own forward if it supports them, else MACE's modules.

    cuda_graphs: on a GPU, replay recordings of our own forward.
    """
    from aims_pax.models.mace.cuda_graphs import CudaGraphEvaluator
    from aims_pax.models.mace.fast_forward import fast_evaluator

    fast = fast_evaluator(models) if head == 0 else None
    if fast is None:
        return TorchEvaluator(models, head)
    on_gpu = next(models[0].parameters()).is_cuda
    return CudaGraphEvaluator(fast) if on_gpu and cuda_graphs else fast


def cut(graph: EdgeGraph, atoms: torch.Tensor) -> EdgeGraph:
    """The part of a graph with the chosen atoms ((A,) bool), the edges among them and their structures."""
    remaining = torch.nonzero(atoms[graph.sender] & atoms[graph.receiver]).squeeze(-1)
    index = atoms.cumsum(0) - 1
    sizes = torch.zeros(len(graph.ptr) - 1, dtype=torch.int64, device=atoms.device)
    sizes.index_add_(0, graph.frame_of, atoms.long())
    sizes = sizes[sizes > 0]
    return EdgeGraph(
        graph.species[atoms],
        index[graph.sender[remaining]],
        index[graph.receiver[remaining]],
        graph.vectors[remaining],
        torch.repeat_interleave(torch.arange(len(sizes), device=atoms.device), sizes),
        torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]),
    )


def in_pieces(
    evaluator: Evaluator, graph: EdgeGraph, strain: bool, room: BatchSplitter
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Evaluate a graph at once, or in several groups of structures if memory runs out."""
    frames = len(graph.ptr) - 1
    sizes = torch.bincount(graph.frame_of[graph.sender], minlength=frames).tolist()

    def work(first: int, end: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        if end - first == frames:
            return evaluator(graph, strain=strain)
        chosen = (graph.frame_of >= first) & (graph.frame_of < end)
        return evaluator(cut(graph, chosen), strain=strain)

    parts = room.each(sizes, work)
    if len(parts) == 1:
        return parts[0]
    energies, forces, strains = zip(*parts, strict=True)
    return torch.cat(energies, 1), torch.cat(forces, 1), torch.cat(strains, 1) if strain else None


class BoundCommittee:
    """A committee bound to F structures with A atoms in total; only positions and cells change.

    A structure that can no longer be evaluated (not finite, exploded, collapsed) gets NaN; the others are not affected.
    """

    drives = True

    def __init__(self, committee: Committee, frames: Sequence[Frame]) -> None:
        self.evaluator, self._alone, self._committee = committee.evaluator, committee.alone, committee
        self.members, self.device, self._room = committee.members, committee.device, committee.room
        device = torch.device(self.device)
        self.frames = list(frames)
        species = [species_of(frame, committee.index) for frame in frames]
        self.species = torch.from_numpy(np.concatenate(species)).to(device)
        sizes = torch.tensor([len(frame) for frame in frames])
        self.frame_of = torch.repeat_interleave(torch.arange(len(frames)), sizes).to(device)
        self.ptr = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)]).to(device)
        self.neighbours = SkinNeighbours(frames, committee.r_max, committee.skin, device)
        self.periodic = torch.tensor([frame.periodic for frame in frames], device=device)
        self._any_periodic = any(frame.periodic for frame in frames)

    def __call__(
        self,
        positions: torch.Tensor,
        cells: torch.Tensor,
        *,
        stress: bool = False,
        driving_members: Sequence[int] | None = None,
    ) -> Evaluation:
        """positions: (A, 3), cells: (F, 3, 3), Å float64. Stress is NaN for structures without it.

        With `driving_members` structure f is evaluated by member driving_members[f] alone; the result has M = 1.
        """
        graph = self._graph(positions, cells)
        strain = stress and self._any_periodic
        if driving_members is None:
            said = in_pieces(self.evaluator, graph, strain, self._room)
        else:
            said = self._driven(graph, driving_members, strain)
        energies, forces, derivative = said
        tensors = self._stress(derivative, cells, len(energies)) if stress else None
        if self.neighbours.lost.any():
            lost = torch.from_numpy(self.neighbours.lost).to(self.ptr.device)
            energies[:, lost] = torch.nan
            forces[:, lost[self.frame_of]] = torch.nan
            if tensors is not None:
                tensors[:, lost] = torch.nan
        return Evaluation(energies, forces, tensors)

    def atom_energies(self, positions: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
        """(M, A) eV float64: energies of the atoms, which sum to those of the structures; by MACE's own modules."""
        graph, owner = self._graph(positions, cells), self._committee
        return torch.stack([node_energies(model, graph, owner.head) for model in owner.models])

    def atom_invariants(self, positions: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
        """(A, D) float64: the invariant features of the atoms in the first member."""
        return node_invariants(self._committee.models[0], self._graph(positions, cells), self._committee.head)

    def _graph(self, positions: torch.Tensor, cells: torch.Tensor) -> EdgeGraph:
        edges = self.neighbours(positions, cells)
        return EdgeGraph(self.species, edges.sender, edges.receiver, edges.vectors, self.frame_of, self.ptr)

    def _driven(
        self, graph: EdgeGraph, driving_members: Sequence[int], strain: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Results as of an evaluator, with M = 1: the structures of each member are evaluated as a separate graph."""
        energies = graph.vectors.new_zeros((1, len(self.frames)))
        forces = graph.vectors.new_zeros((1, len(self.species), 3))
        strains = graph.vectors.new_zeros((1, len(self.frames), 3, 3)) if strain else None
        driver_of = torch.tensor(driving_members, device=self.ptr.device)
        for member in sorted(set(driving_members)):
            mine = driver_of == member
            atoms = mine[self.frame_of]
            energy, force, tensor = in_pieces(self._alone(member), cut(graph, atoms), strain, self._room)
            energies[:, mine], forces[:, atoms] = energy, force
            if strains is not None and tensor is not None:
                strains[:, mine] = tensor
        return energies, forces, strains

    def _stress(self, derivative: torch.Tensor | None, cells: torch.Tensor, members: int) -> torch.Tensor:
        shape = (members, len(self.frames), 3, 3)
        tensors = torch.full(shape, torch.nan, dtype=torch.float64, device=self.ptr.device)
        if derivative is not None and self._any_periodic:
            volume = torch.linalg.det(cells).abs()[:, None, None]
            tensors[:, self.periodic] = (derivative / volume)[:, self.periodic]
        return tensors


class Committee:
    """M models with the same elements and cutoff, as one `Potential`. M may be 1.

    evaluator: makes the evaluator of a list of models; default torch.
    """

    gives_atom_energies = True  # its bindings have `atom_energies`

    def __init__(
        self,
        models: Sequence[MaceModel],
        device: str = "cpu",
        skin: float = SKIN,
        head: int = 0,
        evaluator: EvaluatorMaker = torch_evaluator,
    ) -> None:
        self.evaluator: Evaluator = evaluator(models, head)
        self.models, self.head = list(models), head
        self._first = models[0]
        self._one = [lambda model=model: evaluator([model], head) for model in models]
        self._ones: dict[int, Evaluator] = {}
        self.members, self.device, self.skin = len(models), device, skin
        self.elements = elements_of(models[0])
        self.index = species_index(self.elements)
        self.r_max = float(models[0].r_max)
        self.room = batch_splitter("dynamics", device)
        self._edges_at_once = WORK // _size(models[0])
        self._pieces = Pieces(
            _size(models[0]), self.members, self.r_max, device, self._need, self._economical
        )

    def bind(self, frames: Sequence[Frame]) -> BoundCommittee:
        """Bind to these structures. Raises SettingsError for an element the models do not know."""
        return BoundCommittee(self, frames)

    def pieces(self, frames: Sequence[Frame]) -> list[range]:
        """Groups of structures, each small enough to be evaluated at once within the memory limit.

        Raises SettingsError for a structure that alone exceeds the limit.
        """
        return self._pieces(frames)

    def alone(self, member: int) -> Evaluator:
        """The evaluator of one member."""
        if member not in self._ones:
            self._ones[member] = self._one[member]()
        return self._ones[member]

    def labels(self, frames: Sequence[Frame]) -> list[Label]:
        """The mean over the members for each frame; with stress for frames periodic in three directions."""
        labels: list[Label] = []
        pieces = [[part[k] for k in piece] for part in self._chunks(frames) for piece in self.pieces(part)]
        for chunk in pieces:
            evaluation = self.evaluate(chunk)
            energies = evaluation.energies.mean(0).cpu().numpy()
            forces = evaluation.forces.mean(0).cpu().numpy()
            stress = evaluation.stress.mean(0).cpu().numpy()  # type: ignore[union-attr]
            parts = np.split(forces, np.cumsum([len(f) for f in chunk])[:-1])
            labels += [
                Label(float(e), f, s if frame.periodic else None)
                for frame, e, f, s in zip(chunk, energies, parts, stress, strict=True)
            ]
        return labels

    def evaluate(self, frames: Sequence[Frame]) -> Evaluation:
        """All members on all frames at once: energies (M, F), forces (M, A, 3), stress (M, F, 3, 3)."""
        bound = BoundCommittee(self, frames)
        positions = torch.from_numpy(np.concatenate([f.positions for f in frames])).to(self.device)
        cells = torch.from_numpy(np.stack([f.cell for f in frames])).to(self.device)
        return bound(positions, cells, stress=True)

    def atom_features(self, frames: Sequence[Frame]) -> list[Array]:
        """(N, D) for each frame: the invariant features of its atoms in the first member, for any frames.

        Only equal weights give comparable features. Raises SettingsError for an element the models do not know.
        """
        found: list[Array] = []
        for chunk in self._chunks(frames):
            bound = BoundCommittee(self, chunk)
            positions = torch.from_numpy(np.concatenate([f.positions for f in chunk])).to(self.device)
            cells = torch.from_numpy(np.stack([f.cell for f in chunk])).to(self.device)
            values = bound.atom_invariants(positions, cells).cpu().numpy()
            found += np.split(values, np.cumsum([len(f) for f in chunk])[:-1])
        return found

    def _need(self, neighbours: float) -> memory_budget.Need:
        """The memory that an evaluation by all members needs: given by the evaluator, else measured once."""
        own = getattr(self.evaluator, "need", None)
        known: memory_budget.Need | None = own() if own is not None else None
        if known is not None:
            return known
        found = _needs.setdefault(self._first, {})
        if self.members not in found:
            plain: Evaluator = getattr(self.evaluator, "plain", self.evaluator)
            found[self.members] = memory_budget.measured(
                lambda n, k: plain(random_graph(n, k, self.r_max, self.device), strain=True),
                neighbours, self.device,
            )  # fmt: skip
        return found[self.members]

    def _economical(self) -> bool:
        save: Callable[[], bool] | None = getattr(self.evaluator, "economical", None)
        return save is not None and save()

    def _chunks(self, frames: Sequence[Frame]) -> list[list[Frame]]:
        """Consecutive frames grouped so that their estimated edges fill a batch."""
        chunks: list[list[Frame]] = []
        room = 0.0
        for frame in frames:
            edges = likely_edges(frame, self.r_max)
            if not chunks or edges > room:
                chunks.append([])
                room = float(self._edges_at_once)
            chunks[-1].append(frame)
            room -= edges
        return chunks


# by number of members
_needs: WeakKeyDictionary[MaceModel, dict[int, memory_budget.Need]] = WeakKeyDictionary()


def random_graph(n: int, k: int, r_max: float, device: str) -> EdgeGraph:
    """A random graph, not a real geometry, to measure costs: n atoms of the first element with k edges each."""
    receiver = torch.arange(n).repeat_interleave(k)
    sender = (receiver + 1 + torch.arange(k).repeat(n)) % n
    vectors = torch.randn((n * k, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    vectors = 0.6 * r_max * vectors / vectors.norm(dim=1, keepdim=True)
    zeros = torch.zeros(n, dtype=torch.int64)
    parts = (zeros, sender, receiver, vectors, zeros, torch.tensor([0, n]))
    return EdgeGraph(*(part.to(device) for part in parts))


def _size(model: MaceModel) -> int:
    """Numbers per edge: channels × spherical components."""
    return int(model.interactions[-1].target_irreps.dim)
