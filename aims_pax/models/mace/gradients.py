"""Predictions and gradients of a batch that may not fit into memory at once: in pieces, with the same results.

The number of structures that the memory limit (`models.memory_budget`) allows is first measured on one structure. The
loss is that of the whole batch: its derivatives with respect to the predictions P are computed first; then the gradient
is summed over the pieces with a second evaluation,

    ∂L/∂w = Σ_pieces ∂L/∂P · ∂P/∂w
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import TypeVar

import torch

from aims_pax.models import memory_budget
from aims_pax.models.batch_splitting import BatchSplitter, batch_splitter
from aims_pax.models.mace.fast_forward import evaluate_fast, fast_mace
from aims_pax.models.mace.graphs import GraphBatch, LabelledGraph, collate
from aims_pax.models.mace.losses import Loss, Prediction, edge_batch, predict, predict_by_modules
from aims_pax.models.mace.member import Member

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")


def predicted(
    member: Member, graphs: Sequence[LabelledGraph], batch: GraphBatch, *, stress: bool
) -> Prediction:
    """Predictions for a batch, without gradients. batch: the collated graphs."""

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


def backward(member: Member, graphs: Sequence[LabelledGraph], loss: Loss) -> torch.Tensor:
    """The loss () of these graphs as one batch; sets the gradients of the member's weights."""
    batch = _collated(member, graphs)
    slopes: list[tuple[torch.Tensor, Prediction]] = []  # the loss and ∂L/∂P, computed when a piece needs them

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


def _slopes(loss: Loss, batch: GraphBatch, said: Prediction) -> tuple[torch.Tensor, Prediction]:
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


def _collated(member: Member, graphs: Sequence[LabelledGraph]) -> GraphBatch:
    assert member.statistics is not None
    return collate(graphs, member.statistics.E0, member.device, member.statistics.shift)


def _room(what: str, member: Member, graphs: Sequence[LabelledGraph], *, training: bool) -> BatchSplitter:
    own = batch_splitter(f"{what} of {member.settings.general.name_exp}", str(member.device))
    limit = memory_budget.limit(own.device)
    if math.isinf(own.limit) and _at_most(member, graphs, training) > limit:
        own.limit = limit / _bytes_an_edge(member, graphs, training)
        if sum(_sizes(graphs)) > own.limit:
            log.info(
                "%s: at most %d edges at a time, with the same results: the memory limit is %.1f GB",
                own.what, own.limit, limit / memory_budget.GB,
            )  # fmt: skip
    return own


def _at_most(member: Member, graphs: Sequence[LabelledGraph], training: bool) -> float:
    """Upper bound in bytes, without measuring; `inference_pieces` has the same for dynamics."""
    size = int(member.model.interactions[-1].target_irreps.dim)
    numbers = 12 * sum(_sizes(graphs)) + 120 * sum(map(len, graphs))
    return 8 * size * numbers * (4 if training else 1)


def _bytes_an_edge(member: Member, graphs: Sequence[LabelledGraph], training: bool) -> float:
    """Bytes per edge (atoms included) of an evaluation, measured on the smallest structure."""
    smallest = min(graphs, key=lambda graph: graph.edges.shape[1])
    batch, quick = _collated(member, [smallest]), fast_mace(member.model)

    def work() -> None:
        if quick is None:
            said = predict_by_modules(member.model, batch, training=training, stress=True)
            energy, forces = said.energy, said.forces
        else:
            energy, forces, _ = evaluate_fast(quick, edge_batch(batch), training=training, strain=True)
        if training:
            value = energy.sum() + forces.square().sum()
            torch.autograd.grad(value, member.weights, allow_unused=True)

    work()  # one-time allocations
    return (
        memory_budget.FOUND * memory_budget.peak(work, str(member.device)) / max(1, smallest.edges.shape[1])
    )


def _sizes(graphs: Sequence[LabelledGraph]) -> list[int]:
    return [graph.edges.shape[1] for graph in graphs]
