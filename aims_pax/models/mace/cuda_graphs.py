"""Evaluation on a GPU with one launch instead of many hundreds: recorded as a CUDA graph, replayed at each MD step.

A step of a few small molecules keeps a GPU busy for a fifth of the time; the rest is the launching of its operations
(measured: benchmarks/gpu.py). A recording has fixed tensors, so the edges of each step are copied into rows of K slots
per atom, of which unused ones are longer than the cutoff and contribute exactly zero.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import torch

from aims_pax.models.mace.fast_forward import FastEvaluator
from aims_pax.models.mace.forward import Weights
from aims_pax.models.mace.graphs import EdgeGraph
from aims_pax.models.mace.layout import Layout, pad

log = logging.getLogger(__name__)

BEFORE = 5  # evaluations of the same structures before one is recorded: a recording costs about as many
SLOTS = 2**16  # at most: from here on a GPU is busy, and rows of equal length are a waste
SPARE = 1.1  # times the slots needed now, in steps of EIGHT: neighbours come and go
EIGHT = 8
WARM_UP = 3  # evaluations before the recording, in which libraries allocate what they need
AGREEMENT = 1e-4  # of the largest value: by how much a replay may differ from what was recorded

Outputs = tuple[list[torch.Tensor], list[torch.Tensor]]
Work = Callable[[], Outputs]
Recorder = Callable[[Work, torch.device], tuple[Callable[[], None], Outputs]]


def record_cuda_graph(work: Work, device: torch.device) -> tuple[Callable[[], None], Outputs]:
    """Record `work`, which only reads and writes tensors on the device: (repeat it, the tensors that it then fills)."""
    with torch.cuda.device(device):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                work()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = work()

    def repeat() -> None:
        with torch.cuda.device(device):
            graph.replay()

    return repeat, outputs


@dataclass(eq=False)
class Recording:
    """A recorded evaluation of all models for structures of these species.

    species: (A,) of the caller. weights: those of each model that it reads. slots: K of each atom. layout: with the
    tensors that it reads. vectors: (A·K, 3) Å, read by it. outputs: written by `repeat`.
    """

    species: torch.Tensor
    weights: Sequence[Weights]
    slots: int
    layout: Layout
    vectors: torch.Tensor
    repeat: Callable[[], None] = lambda: None
    outputs: Outputs = ([], [])

    def serves(self, species: torch.Tensor, weights: Sequence[Weights]) -> bool:
        """Whether it was recorded for these species and weights."""
        same = all(mine is theirs for mine, theirs in zip(self.weights, weights, strict=True))
        return same and (self.species is species or torch.equal(self.species, species))


class CudaGraphEvaluator:
    """`Evaluator` that replays a recording of `plain` while species and weights stay the same.

    record: makes recordings. A model that cannot be recorded, or whose replay differs, is evaluated by `plain`.
    """

    def __init__(self, plain: FastEvaluator, record: Recorder = record_cuda_graph) -> None:
        self.plain, self.members, self._record = plain, plain.members, record
        self.recording: Recording | None = None
        self.refusal: str | None = None
        self._last: torch.Tensor | None = None  # species of the last evaluation, and how many have had them
        self._alike = 0

    def __call__(
        self, graph: EdgeGraph, *, strain: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        if self.refusal is not None or not len(graph.sender):
            return self.plain(graph, strain=strain)
        weights = self.plain.frozen_weights()
        if self.recording is not None and not self.recording.serves(graph.species, weights):
            self.recording = None
        if self.recording is None and not self._is_due(graph.species):
            return self.plain(graph, strain=strain)
        batch = self.plain.batch(graph)
        rank = _rank(graph.species) if self.recording is None else self.recording.layout.rank
        within, degree = _numbered(rank[graph.receiver], len(graph.species))
        if self.recording is None or degree > self.recording.slots:
            self._begin(graph, weights, degree, within)
            if self.recording is None:
                return self.plain(graph, strain=strain)
        layout = _filled(self.recording, graph, within)
        self.recording.vectors.copy_(pad(batch.vectors, layout, self.plain.models[0].plan.r_max))
        self.recording.repeat()
        return self.plain.assembled(batch, layout, *self.recording.outputs, strain)

    def _is_due(self, species: torch.Tensor) -> bool:
        """Whether these species have been evaluated often enough for a recording."""
        same = self._last is not None and (self._last is species or torch.equal(self._last, species))
        self._last, self._alike = species, self._alike + 1 if same else 1
        return self._alike > BEFORE

    def _begin(self, graph: EdgeGraph, weights: Sequence[Weights], degree: int, within: torch.Tensor) -> None:
        """Record the evaluation of this graph, and compare; sets `recording`, or `refusal`."""
        self.recording = None
        atoms, slots = len(graph.species), EIGHT * math.ceil(SPARE * degree / EIGHT)
        if atoms * slots > SLOTS:
            self._alike = 0  # others may be smaller
            return
        plan = self.plain.models[0].plan
        made = _empty(graph.species, weights, slots, self.plain.elements, plan.dtype)
        layout = _filled(made, graph, within)
        made.vectors.copy_(pad(self.plain.batch(graph).vectors, layout, plan.r_max))

        def work() -> Outputs:
            return self.plain.node_energies(weights, made.layout, made.vectors.detach())

        expected = work()
        try:
            made.repeat, made.outputs = self._record(work, graph.species.device)
            made.repeat()
        except RuntimeError as reason:  # what cannot be recorded, and lack of memory
            return self._refuse(str(reason).strip().partition("\n")[0])
        pairs = zip(chain(*made.outputs), chain(*expected), strict=True)
        for mine, theirs in pairs:  # both NaN: a structure that cannot be evaluated
            scale = float(theirs.nan_to_num(0.0, 0.0, 0.0).abs().max())
            allowed = AGREEMENT * max(scale, AGREEMENT)
            if not torch.allclose(mine, theirs, rtol=0.0, atol=allowed, equal_nan=True):
                difference = float((mine - theirs).abs().max())
                return self._refuse(f"a replay differs by {difference:.1e} of {scale:.1e}")
        self.recording = made

    def _refuse(self, reason: str) -> None:
        self.refusal = reason
        log.info("inference: without CUDA graphs, because %s", reason)


def _empty(
    species: torch.Tensor, weights: Sequence[Weights], slots: int, elements: int, dtype: torch.dtype
) -> Recording:
    """A recording whose slots have no edges yet."""
    rank = _rank(species)
    order = torch.argsort(rank)
    counts = torch.bincount(species, minlength=elements).tolist()
    own = torch.arange(len(species), device=species.device).repeat_interleave(slots)
    layout = Layout(
        order=order,
        rank=rank,
        counts=tuple(counts),
        species=species[order],
        rows=((0, len(species), slots),),
        place=None,
        sender=own.clone(),
        receiver=own,
        slot=own[:0],
    )
    return Recording(
        species, weights, slots, layout, torch.zeros((len(own), 3), dtype=dtype, device=own.device)
    )


def _rank(species: torch.Tensor) -> torch.Tensor:
    """(A,) the index of each atom when they are sorted by element."""
    return torch.argsort(torch.argsort(species, stable=True))


def _numbered(receiver: torch.Tensor, atoms: int) -> tuple[torch.Tensor, int]:
    """(E,) number of each edge among those of its receiver, and the largest number of edges of an atom."""
    by_receiver = torch.argsort(receiver, stable=True)
    degree = torch.zeros(atoms, dtype=torch.int64, device=receiver.device)
    degree.index_add_(0, receiver, torch.ones_like(receiver))
    first = degree.cumsum(0) - degree
    within = torch.empty_like(receiver)
    within[by_receiver] = torch.arange(len(receiver), device=receiver.device) - first[receiver[by_receiver]]
    return within, int(degree.max())


def _filled(recording: Recording, graph: EdgeGraph, within: torch.Tensor) -> Layout:
    """The layout of a recording with the edges of a graph in its slots."""
    layout = recording.layout
    slot = layout.rank[graph.receiver] * recording.slots + within
    layout.sender.copy_(layout.receiver).index_copy_(0, slot, layout.rank[graph.sender])
    return replace(layout, slot=slot)
