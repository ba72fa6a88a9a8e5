"""Convergence: train each chosen member on the full set until it stops improving, then restore its best weights.

TRAIN  -- improved by more than the margin -->  TRAIN   (these weights are the best so far)
TRAIN  -- patience or epochs used up -------->  done    (the best weights are restored)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from aims_pax.core.rules import ConvergeRules
from aims_pax.core.work import (
    Effect,
    Event,
    IllegalEvent,
    KeepBest,
    LogMessage,
    RestoreBest,
    RunTraining,
    Trained,
    Work,
)

NAME = "converge"


@dataclass(frozen=True)
class MemberProgress:
    """The progress of one member."""

    member: int
    visit: int = 0
    epochs: int = 0
    best: float = math.inf  # validation loss
    best_epoch: int = 0
    best_mae: float = math.nan  # eV/Å
    done: bool = False


@dataclass(frozen=True)
class State:
    """Everything that decides how convergence continues."""

    members: tuple[MemberProgress, ...]
    stopped: str | None = None


def begin(rules: ConvergeRules) -> State:
    """The state before training."""
    return State(tuple(MemberProgress(m) for m in rules.members))


def reopen(state: State, rules: ConvergeRules) -> State:
    """The state after a change of settings: members that had used up their epochs continue if the limit was raised."""
    again = tuple(
        replace(p, done=False)
        if p.done and p.epochs < rules.max_epochs and p.epochs - p.best_epoch < rules.patience
        else p
        for p in state.members
    )
    return state if again == state.members else State(again)


def outstanding(state: State, rules: ConvergeRules) -> tuple[Work, ...]:
    """One visit for each member that is not done."""
    return tuple(
        RunTraining(p.visit, int(min(rules.epochs_per_visit, rules.max_epochs - p.epochs)), p.member)
        for p in state.members
        if not p.done
    )


def step(state: State, event: Event, rules: ConvergeRules) -> tuple[State, tuple[Effect, ...]]:
    """The consequences of a visit. Raises IllegalEvent when its work is not outstanding."""
    if not isinstance(event, Trained) or event.work not in outstanding(state, rules):
        raise IllegalEvent(f"{event} while outstanding is {outstanding(state, rules)}")
    i = next(i for i, p in enumerate(state.members) if p.member == event.work.member)
    p = state.members[i]
    p = replace(p, visit=p.visit + 1, epochs=p.epochs + event.work.epochs)
    effects: list[Effect] = []
    (loss,), (mae,) = event.valid_loss, event.force_mae
    if math.isfinite(loss) and (math.isinf(p.best) or p.best - loss > rules.margin):
        p = replace(p, best=loss, best_epoch=p.epochs, best_mae=mae)
        effects.append(KeepBest(p.member))
    if p.epochs >= rules.max_epochs or p.epochs - p.best_epoch >= rules.patience:
        p = replace(p, done=True)
        why = "patience" if p.epochs < rules.max_epochs else "epochs"
        more = f"; still improving, raise {rules.key} for more" if p.epochs - p.best_epoch < 2 else ""
        effects.append(RestoreBest(p.member))
        effects.append(
            LogMessage(
                f"member {p.member} · {why} used up after {p.epochs} epochs · best: epoch {p.best_epoch}, "
                f"force MAE {1000 * p.best_mae:.1f} meV/Å{more}"
            )
        )
    state = replace(state, members=(*state.members[:i], p, *state.members[i + 1 :]))
    if all(q.done for q in state.members):
        patient = all(q.epochs - q.best_epoch >= rules.patience for q in state.members)
        why = "converged" if patient else f"{rules.key}: {max(q.epochs for q in state.members)} epochs"
        state = replace(state, stopped=why)
    return state, tuple(effects)
