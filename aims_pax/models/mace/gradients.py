"""How many structures of a batch are evaluated at once: all that the memory limit (`budget`) allows, else in pieces.

A batch that may be too large has its need measured on one structure first. A `Room` also learns from every failure and
remembers: a piece that did not fit is halved, and later batches are cut so from the start. The answers are the same. A
loss is that of the whole batch: its derivatives with respect to the predictions P are taken first, and the gradient is
gathered piece by piece with a second evaluation,

    ∂L/∂w = Σ_pieces ∂L/∂P · ∂P/∂w
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import TypeVar

import torch

from aims_pax.errors import SettingsError
from aims_pax.models import memory_budget
from aims_pax.models.mace.fast_forward import evaluate, fast
from aims_pax.models.mace.graphs import Batch, Graph, collate
from aims_pax.models.mace.losses import Loss, Prediction, edge_batch, predict, predict_by_modules
from aims_pax.models.mace.member import Member

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")
WORDS = (  # how allocators of torch, CUDA and its libraries put it
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "ALLOC_FAILED",
)
CURE = "a smaller r_max, num_channels or max_L, default_dtype float32, or a machine with more memory"


class Room:
    """What fits into memory at once, in edges, for one kind of work. what: for the log."""

    def __init__(self, what: str, device: str = "cpu", limit: float = math.inf) -> None:
        self.what, self.device, self.limit = what, device, limit

    def each(self, sizes: Sequence[int], work: Callable[[int, int], Answer]) -> list[Answer]:
        """work(first, end) for consecutive structures, as many at once as fit; its answers in order.

        sizes: edges of each structure. `work` must leave nothing behind when it fails.
        Raises SettingsError for a structure that does not fit by itself.
        """
        answers: list[Answer] = []
        before, start = self.limit, 0
        while start < len(sizes):
            end = reach(sizes, start, self.limit)
            failed = None
            try:
                answers.append(work(start, end))
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                failed = str(error).splitlines()[0][:120] if str(error) else "MemoryError"
            if failed is None:
                start = end
            else:  # outside of the handler: the error holds on to all that was allocated
                self._shrink(sizes[start:end], failed)
        if self.limit < before:
            log.warning(
                "%s: %d structures (%d edges) at once do not fit into the memory of %s; from now on at most %d "
                "edges at a time, with the same results",
                self.what, len(sizes), sum(sizes), self.device, self.limit,
            )  # fmt: skip
        return answers

    def _shrink(self, sizes: Sequence[int], reason: str) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()
        if len(sizes) == 1:
            raise SettingsError(
                f"{self.what}: one structure with {sizes[0]} edges does not fit into the memory of {self.device} "
                f"({reason}); in mace.yaml: {CURE}"
            )
        self.limit = sum(sizes) // 2


@cache
def room(what: str, device: str) -> Room:
    """The room this process has for one kind of work."""
    return Room(what, device)


def out_of_memory(error: BaseException) -> bool:
    """Whether this is how memory runs out, on CPU or GPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in WORDS)


def reach(sizes: Sequence[int], start: int, limit: float) -> int:
    """Where the piece that begins at `start` ends: as many as stay within the limit, at least one."""
    end, total = start + 1, sizes[start]
    while end < len(sizes) and total + sizes[end] <= limit:
        total += sizes[end]
        end += 1
    return end


def predicted(member: Member, graphs: Sequence[Graph], batch: Batch, *, stress: bool) -> Prediction:
    """What the model says of a batch, not to be differentiated. batch: of these graphs."""

    def work(first: int, end: int) -> Prediction:
        part = batch if end - first == len(graphs) else _collated(member, graphs[first:end])
        return _detached(predict(member.model, part, training=False, stress=stress))

    parts = _room("validation", member, graphs, training=False).each(_sizes(graphs), work)
    if len(parts) == 1:
        return parts[0]
    return Prediction(
        torch.cat([p.energy for p in parts]),
        torch.cat([p.forces for p in parts]),
        torch.cat([p.stress for p in parts if p.stress is not None]) if stress else None,
    )


def backward(member: Member, graphs: Sequence[Graph], loss: Loss) -> torch.Tensor:
    """The loss () of these graphs as one batch; its gradient becomes that of the member's weights."""
    batch = _collated(member, graphs)
    slopes: list[tuple[torch.Tensor, Prediction]] = []  # the loss and ∂L/∂P, once a piece needs them

    def work(first: int, end: int) -> torch.Tensor:
        if first == 0:
            member.optimiser.zero_grad(set_to_none=True)
        if end - first == len(graphs):
            value = loss(batch, predict(member.model, batch, training=True, stress=loss.stress))
            value.backward()
            return value.detach()
        if not slopes:
            slopes.append(_slopes(loss, batch, predicted(member, graphs, batch, stress=loss.stress)))
        part = _collated(member, graphs[first:end])
        own = predict(member.model, part, training=True, stress=loss.stress)
        value, whole = slopes[0]
        atoms = slice(int(batch.ptr[first]), int(batch.ptr[end]))
        outputs, given = [own.energy, own.forces], [whole.energy[first:end], whole.forces[atoms]]
        if own.stress is not None and whole.stress is not None:
            outputs.append(own.stress)
            given.append(whole.stress[first:end])
        _add(member, torch.autograd.grad(outputs, member.weights, given, allow_unused=True))
        return value

    return _room("training", member, graphs, training=True).each(_sizes(graphs), work)[-1]


def _slopes(loss: Loss, batch: Batch, said: Prediction) -> tuple[torch.Tensor, Prediction]:
    """The loss and its derivatives with respect to the prediction."""
    leaf = Prediction(*(None if t is None else t.requires_grad_(True) for t in _parts(said)))  # type: ignore[arg-type]
    value = loss(batch, leaf)
    inputs = [t for t in _parts(leaf) if t is not None]
    found = torch.autograd.grad(value, inputs, allow_unused=True, materialize_grads=True)
    return value.detach(), Prediction(found[0], found[1], found[2] if len(found) > 2 else None)


def _add(member: Member, gradients: Sequence[torch.Tensor | None]) -> None:
    for weight, gradient in zip(member.weights, gradients, strict=True):
        if gradient is not None:
            weight.grad = gradient if weight.grad is None else weight.grad + gradient


def _detached(said: Prediction) -> Prediction:
    return Prediction(*(None if t is None else t.detach() for t in _parts(said)))  # type: ignore[arg-type]


def _parts(said: Prediction) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    return said.energy, said.forces, said.stress


def _collated(member: Member, graphs: Sequence[Graph]) -> Batch:
    assert member.statistics is not None
    return collate(graphs, member.statistics.E0, member.device)


def _room(what: str, member: Member, graphs: Sequence[Graph], *, training: bool) -> Room:
    own = room(f"{what} of {member.settings.general.name_exp}", str(member.device))
    limit = memory_budget.limit(own.device)
    if math.isinf(own.limit) and _at_most(member, graphs, training) > limit:
        own.limit = limit / _bytes_an_edge(member, graphs, training)
        if sum(_sizes(graphs)) > own.limit:
            log.info(
                "%s: at most %d edges at a time, with the same results: the memory limit is %.1f GB",
                own.what, own.limit, limit / memory_budget.GB,
            )  # fmt: skip
    return own


def _at_most(member: Member, graphs: Sequence[Graph], training: bool) -> float:
    """Bytes, from above and at no cost; `pieces` says the same of dynamics."""
    size = int(member.model.interactions[-1].target_irreps.dim)
    numbers = 12 * sum(_sizes(graphs)) + 120 * sum(map(len, graphs))
    return 8 * size * numbers * (4 if training else 1)


def _bytes_an_edge(member: Member, graphs: Sequence[Graph], training: bool) -> float:
    """Bytes an evaluation takes for each edge, with the share of the atoms, measured on the smallest structure."""
    smallest = min(graphs, key=lambda graph: graph.edges.shape[1])
    batch, quick = _collated(member, [smallest]), fast(member.model)

    def work() -> None:
        if quick is None:
            said = predict_by_modules(member.model, batch, training=training, stress=True)
            energy, forces = said.energy, said.forces
        else:
            energy, forces, _ = evaluate(quick, edge_batch(batch), training=training, strain=True)
        if training:
            value = energy.sum() + forces.square().sum()
            torch.autograd.grad(value, member.weights, allow_unused=True)

    work()  # what is made once
    return (
        memory_budget.FOUND * memory_budget.peak(work, str(member.device)) / max(1, smallest.edges.shape[1])
    )


def _sizes(graphs: Sequence[Graph]) -> list[int]:
    return [graph.edges.shape[1] for graph in graphs]
