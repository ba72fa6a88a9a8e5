"""One visit: a member is trained for some epochs on its frames, and validated.

    for each epoch:   shuffle (seeded by the visit's name, the member and the epoch) → batches → steps → average
    each valid_skip:  energy offsets (on a sample) → loss and errors of the averaged weights → learning rate,
                      progress, perhaps a new optimiser
    at the end:       energy offsets again; if weights are not finite, those before the visit are restored

A visit is a function of (member state, graphs, plan); `visit_arrays` is the same with arrays as input and output, for
another process.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace

import torch

from aims_pax.errors import Abandoned
from aims_pax.models.base import EpochResult, MemberResult
from aims_pax.models.mace import compile_cache
from aims_pax.models.mace.energy_offsets import SAMPLE, refit
from aims_pax.models.mace.fine_tuning import epoch_graphs, weighted_graphs
from aims_pax.models.mace.gradients import backward, predicted
from aims_pax.models.mace.graphs import EdgeBatch, LabelledGraph, collate
from aims_pax.models.mace.losses import Loss, edge_batch
from aims_pax.models.mace.member import Member, Validation
from aims_pax.models.mace.optimiser import Arrays

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingPlan:
    """The parameters of a visit.

    epochs: their number. words: the visit's name, which seeds the shuffles.
    valid_skip: validate every so many epochs, counted over all visits. schedule: whether the learning rate changes.
    margin: improvement means best − loss > margin, in units of the loss.
    patience: a new optimiser after more than so many validations in a row without improvement; None: never.
    compiled: whether training may be compiled, see `compile_policy`.
    """

    epochs: int
    words: tuple[str | int, ...]
    valid_skip: int = 1
    schedule: bool = True
    margin: float = 0.0
    patience: int | None = None
    compiled: compile_cache.CompileMode = "never"


def training_round(
    member: Member,
    train: Sequence[LabelledGraph],
    valid: Sequence[LabelledGraph],
    plan: TrainingPlan,
    loss: Loss,
    stop: Callable[[], bool] = lambda: False,
    copies: Sequence[LabelledGraph] = (),
) -> MemberResult:
    """Train in place. Raises Abandoned when `stop()` returns True; the member must then be restored by the caller.

    copies: trained on besides `train`, but they do not count for the energy offsets.
    """
    before = member.arrays()
    own = weighted_graphs(member, [*train, *copies])
    _compile(member, train, plan, loss)
    member.schedule.apply(member.optimiser)
    history: list[EpochResult] = []
    kicked, skipped = False, 0
    for epoch in range(plan.epochs):
        graphs = epoch_graphs(member, own, (*plan.words, member.seed, epoch))
        mean, bad = _epoch(member, graphs, loss, stop)
        skipped += bad
        member.epochs += 1
        looked: tuple[float, float, float, float | None] | tuple[()] = ()
        look = bool(valid) and member.epochs % plan.valid_skip == 0
        if look or epoch == plan.epochs - 1:
            refit(member, train, SAMPLE)
        if look:
            member.seen = validate(member, valid, loss)
            kicked |= _take_in(member, len(valid), plan)
            looked = astuple(member.seen)
        if plan.schedule:
            member.schedule.after_epoch()
        member.schedule.apply(member.optimiser)
        history.append(EpochResult(member.epochs, mean, *looked))
    restored = not member.finite()
    if restored:
        log.warning(
            "%s: weights are not finite after training; restored those before this visit", member.name
        )
        member.load(before)
        member.fresh_optimiser()
    return MemberResult(
        name=member.name,
        epochs=len(history),
        train_loss=history[-1].train_loss if history else math.nan,
        valid_loss=member.seen.loss,
        energy_mae=member.seen.energy_mae,
        force_mae=member.seen.force_mae,
        stress_mae=member.seen.stress_mae,
        history=tuple(history),
        kicked=kicked,
        skipped=skipped,
        restored=restored,
    )


def visit_arrays(
    member: Member,
    state: Arrays,
    train: Sequence[LabelledGraph],
    valid: Sequence[LabelledGraph],
    plan: TrainingPlan,
    stop: Callable[[], bool] = lambda: False,
    copies: Sequence[LabelledGraph] = (),
) -> tuple[Arrays, MemberResult]:
    """New state from old state. member: any member of the same architecture; it is overwritten."""
    member.load(state)
    result = training_round(member, train, valid, plan, Loss(member.settings), stop, copies)
    return member.arrays(), result


def copy_graphs(graphs: Sequence[LabelledGraph], weight: float) -> list[LabelledGraph]:
    """Graphs with labels of a surrogate, whose share of the loss is `weight` times that of a label."""
    return [replace(graph, weight=weight * graph.weight) for graph in graphs]


def validate(member: Member, graphs: Sequence[LabelledGraph], loss: Loss) -> Validation:
    """Loss and mean absolute errors of the averaged weights."""
    assert member.statistics is not None
    size = member.settings.training.valid_batch_size
    total, energy, force, stress = 0.0, 0.0, 0.0, 0.0
    tensors = components = 0
    with member.average.in_place():
        for batch_graphs in _batches(graphs, size):
            batch = collate(batch_graphs, member.statistics.E0, member.device, member.statistics.shift)
            prediction = predicted(member, batch_graphs, batch, stress=loss.stress)
            total += float(loss(batch, prediction).detach()) * len(batch_graphs)
            atoms = (batch.ptr[1:] - batch.ptr[:-1]).to(batch.energy.dtype)
            energy += float(((prediction.energy - batch.energy).detach().abs() / atoms).double().sum())
            force += float((prediction.forces - batch.forces).detach().abs().double().sum())
            components += batch.forces.numel()
            if prediction.stress is not None:
                stress += float((prediction.stress - batch.stress).detach().abs().double().sum())
                tensors += 9 * int(batch.has_stress.sum())
    return Validation(
        total / len(graphs), energy / len(graphs), force / components, stress / tensors if tensors else None
    )


def _compile(member: Member, graphs: Sequence[LabelledGraph], plan: TrainingPlan, loss: Loss) -> None:
    """Decide whether this visit is compiled; compiled gradients are compared on a full batch and on half of one."""

    def batches() -> list[EdgeBatch]:
        statistics, size = member.statistics, member.settings.training.batch_size
        assert statistics is not None
        sizes = {min(n, len(graphs)) for n in (max(2, size), max(1, size // 2))}
        parts = (graphs[:n] for n in sorted(sizes, reverse=True))
        return [edge_batch(collate(part, statistics.E0, member.device)) for part in parts]

    compile_cache.prepare(member.model, batches, plan.compiled, strain=loss.stress)


def _epoch(
    member: Member, graphs: Sequence[LabelledGraph], loss: Loss, stop: Callable[[], bool]
) -> tuple[float, int]:
    """(mean loss of the epoch, number of batches skipped because loss or gradient was not finite)."""
    assert member.statistics is not None
    training = member.settings.training
    total, frames, skipped = 0.0, 0, 0
    for batch_graphs in _batches(graphs, training.batch_size):
        if stop():
            raise Abandoned
        value = _gradient(member, batch_graphs, loss)
        clip = training.clip_grad if training.clip_grad is not None else math.inf
        norm = torch.nn.utils.clip_grad_norm_(member.weights, clip)
        if not (math.isfinite(float(value)) and math.isfinite(float(norm))):
            skipped += 1
            continue
        member.optimiser.step()
        member.average.update()
        total += float(value) * len(batch_graphs)
        frames += len(batch_graphs)
    member.optimiser.zero_grad(set_to_none=True)
    if skipped:
        log.warning("%s: %d batches skipped because their loss was not finite", member.name, skipped)
    return total / frames if frames else math.nan, skipped


def _gradient(member: Member, graphs: Sequence[LabelledGraph], loss: Loss) -> torch.Tensor:
    """`backward`; if a compiled step fails, which can happen at untested sizes, it is repeated uncompiled."""
    try:
        return backward(member, graphs, loss)
    except RuntimeError as error:
        if not compile_cache.given_up(member.model, error):
            raise
    return backward(member, graphs, loss)


def _take_in(member: Member, frames: int, plan: TrainingPlan) -> bool:
    """Update progress, learning rate and weight average after a validation; True if the optimiser was reset."""
    loss = member.seen.loss
    comparable = member.progress.comparable(frames)
    improved = member.progress.look(loss, frames, plan.margin)
    if plan.schedule:
        member.schedule.after_validation(loss, comparable)
    if member.settings.training.swa:
        member.swa.add(member.weights, restart=improved)
    if plan.patience is not None and member.progress.stale > plan.patience:
        log.info("%s: %d validations without improvement, new optimiser", member.name, member.progress.stale)
        member.fresh_optimiser()
        member.progress.stale = 0
        return True
    return False


def _batches(graphs: Sequence[LabelledGraph], size: int) -> list[Sequence[LabelledGraph]]:
    return [graphs[k : k + size] for k in range(0, len(graphs), size)]
