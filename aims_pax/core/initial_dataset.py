"""Initial dataset: sample, label, train, until good or large enough.

    SAMPLE  -- structures made ------------------>  LABEL
    LABEL   -- every frame answered ------------->  TRAIN    (SAMPLE again when too few labels succeeded)
    TRAIN   -- visit over, no limit reached ----->  SAMPLE
    TRAIN   -- visit over, a limit reached ------>  stopped

Every member gets its own part of each batch, or all members share one set (`InitialRules.shared`). Frames are
distributed when the whole batch has been answered, in the order of sampling, so the sets do not depend on which
calculation ended first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from aims_pax.core.rules import BELIEVED, BELIEVED_PER_SYSTEM, InitialRules
from aims_pax.core.work import (
    AddToDataset,
    Effect,
    Event,
    IllegalEvent,
    LabelDropped,
    LabelFailed,
    Labelled,
    LogMessage,
    RequestLabel,
    RunSampler,
    RunTraining,
    Sampled,
    Trained,
    Work,
)

NAME = "initial"
MAX_EMPTY = 3  # batches in a row without a new label, after which the stage stops


@dataclass(frozen=True)
class Slice:
    """Sizes of the data of one member, or of all members when they share one set."""

    n_train: int = 0
    n_valid: int = 0


@dataclass(frozen=True)
class State:
    """Everything that decides how the initial dataset continues."""

    members: tuple[Slice, ...]
    valid: tuple[tuple[str, int], ...]  # validation frames per system, over all members
    phase: Literal["sample", "label", "train"] = "sample"
    visit: int = 0
    batch: tuple[tuple[str, str], ...] = ()  # (system, frame id) of the batch being labelled
    answers: tuple[tuple[str, bool], ...] = ()  # (frame id, labelled and new?)
    last: tuple[tuple[str, str], ...] = ()  # (system, frame id) where sampling continues
    epochs: int = 0
    empty: int = 0
    force_mae: tuple[float, ...] = ()
    stopped: str | None = None


def begin(rules: InitialRules) -> State:
    """The state before sampling."""
    return State(members=(Slice(),) * rules.sets, valid=tuple((s, 0) for s in rules.systems))


def reopen(state: State, rules: InitialRules) -> State:
    """The state after a change of settings: a stop is cancelled if its limit was raised, and one that a lowered limit
    asks for comes before the next batch; new systems are sampled.
    """
    known = dict(state.valid)
    state = replace(state, valid=tuple((s, known.get(s, 0)) for s in dict.fromkeys([*known, *rules.systems])))
    if state.phase == "label":
        return state
    over = _limit_reached(state, rules)
    if state.stopped is None:
        begun = state.phase == "sample" and state.epochs > 0
        return replace(state, stopped=over) if begun else state
    mae = sum(state.force_mae) / len(state.force_mae) if state.force_mae else math.nan
    if over or (rules.desired_acc > 0 and mae <= rules.desired_acc):
        return state
    return replace(state, stopped=None, empty=0)


def outstanding(state: State, rules: InitialRules) -> tuple[Work, ...]:
    """The work that should be running now."""
    if state.phase == "label":
        answered = {frame for frame, _ in state.answers}
        return tuple(RequestLabel(f) for f in dict.fromkeys(f for _, f in state.batch) if f not in answered)
    if state.stopped:
        return ()
    if state.phase == "sample":
        return (RunSampler(state.visit, _per_system(state, rules)),)
    return (
        RunTraining(state.visit, max(0, int(min(rules.epochs_per_visit, rules.max_epochs - state.epochs)))),
    )


def step(state: State, event: Event, rules: InitialRules) -> tuple[State, tuple[Effect, ...]]:
    """The consequences of an event. Raises IllegalEvent when its work is not outstanding."""
    if event.work not in outstanding(state, rules):
        raise IllegalEvent(f"{event} while outstanding is {outstanding(state, rules)}")
    match event:
        case Sampled():
            last = dict(state.last) | dict(event.frames)  # the last of each system wins
            state = replace(state, phase="label", batch=event.frames, last=tuple(last.items()))
            return state, (
                LogMessage(f"sampling step {state.visit + 1} · {len(event.frames)} structures to label"),
            )
        case Labelled() | LabelFailed() | LabelDropped():
            ok = isinstance(event, Labelled) and event.present is None
            state = replace(state, answers=(*state.answers, (event.work.frame, ok)))
            failed = isinstance(event, LabelFailed)
            text = f"{event.work.frame[:6]} · {event.kind}: {event.reason}" if failed else ""  # type: ignore[union-attr]
            messages: tuple[Effect, ...] = (LogMessage(text, "warning"),) if failed else ()
            if isinstance(event, Labelled) and event.present is not None:
                messages = (LogMessage(f"{event.work.frame[:6]} · in the {event.present} set already"),)
            if outstanding(state, rules):
                return state, messages
            state, effects = _dealt(state, rules)
            return state, messages + effects
        case Trained():
            return _trained(state, event, rules)
        case _:
            raise IllegalEvent(f"{type(event).__name__} has no meaning in the initial dataset")


def _dealt(state: State, rules: InitialRules) -> tuple[State, tuple[Effect, ...]]:
    """Distribute the labelled frames of a finished batch to the members, system by system."""
    good = {frame for frame, ok in state.answers if ok}
    hands: list[list[tuple[str, str]]] = [[] for _ in state.members]
    turn = state.visit  # the first frame goes to another member each time, so that members stay equal
    for system in rules.systems:
        for frame in dict.fromkeys(f for s, f in state.batch if s == system and f in good):
            hands[turn % len(hands)].append((system, frame))
            turn += 1
    effects: list[Effect] = []
    members = list(state.members)
    valid = dict(state.valid)
    for m, hand in enumerate(hands):
        chosen = _validation(hand, members[m], valid, state.visit, rules)
        for k, (system, frame) in enumerate(hand):
            split = "valid" if k in chosen else "train"
            effects.append(AddToDataset(frame, split, None if rules.shared else m))
            valid[system] = valid.get(system, 0) + (split == "valid")
        members[m] = Slice(members[m].n_train + len(hand) - len(chosen), members[m].n_valid + len(chosen))
    state = replace(state, members=tuple(members), valid=tuple(valid.items()), batch=(), answers=())
    if all(m.n_train and m.n_valid for m in members):
        state = replace(state, phase="train", empty=0)
    else:
        state = replace(state, phase="sample", visit=state.visit + 1, empty=state.empty + (not good))
    if state.empty >= MAX_EMPTY:
        reason = f"no reference calculation succeeded on a new structure in {MAX_EMPTY} batches"
        state = replace(state, stopped=reason)
    n_train, n_valid = (sum(getattr(m, n) for m in members) for n in ("n_train", "n_valid"))
    effects.append(
        LogMessage(f"{len(good)} labels · {n_train} training and {n_valid} validation points in total")
    )
    return state, tuple(effects)


def _validation(
    hand: list[tuple[str, str]], have: Slice, valid: dict[str, int], visit: int, rules: InitialRules
) -> set[int]:
    """Indices of a member's new frames for validation: `valid_ratio` in total, at least one of two or more per step.

    They are from the systems with the fewest validation frames so far; within a system, from a different position in
    the batch at each step.
    """
    n = len(hand)
    if n == 0 or (n == 1 and not have.n_train):
        return set()
    total = have.n_train + have.n_valid + n
    wanted = math.floor(rules.valid_ratio * total + 0.5) - have.n_valid
    least = 1 if n > 1 or not have.n_valid else 0
    count = min(max(wanted, least), n - 1 if n > 1 else 1)
    have_valid, chosen = dict(valid), set[int]()
    for k in range(count):
        first = (visit + k * n // count) % n
        order = [i % n for i in range(first, first + n) if i % n not in chosen]
        best = min(order, key=lambda i: have_valid.get(hand[i][0], 0))  # the first of equals
        chosen.add(best)
        have_valid[hand[best][0]] = have_valid.get(hand[best][0], 0) + 1
    return chosen


def _per_system(state: State, rules: InitialRules) -> int:
    """Structures of each system in the next batch: training sets × n_points, less when they are nearly full."""
    full = rules.sets * rules.n_points
    if math.isinf(rules.max_train):
        return full
    missing = (rules.max_train - sum(m.n_train for m in state.members)) / (1 - min(rules.valid_ratio, 0.9))
    least = 1 if state.epochs else 2 * rules.sets  # the first batch must give every set training data
    return max(1, min(full, math.ceil(max(missing, least) / len(rules.systems))))


def _trained(state: State, event: Trained, rules: InitialRules) -> tuple[State, tuple[Effect, ...]]:
    mae = sum(event.force_mae) / len(event.force_mae)
    state = replace(
        state,
        phase="sample",
        visit=state.visit + 1,
        epochs=state.epochs + event.work.epochs,
        force_mae=event.force_mae,
    )
    good = rules.desired_acc > 0 and mae <= rules.desired_acc
    believed = sum(n for _, n in state.valid) >= BELIEVED and all(
        n >= BELIEVED_PER_SYSTEM for _, n in state.valid
    )
    effects: tuple[Effect, ...] = ()
    if good and not believed:
        effects = (
            LogMessage(f"force MAE {1000 * mae:.1f} meV/Å reached on too few validation frames: continuing"),
        )
    reason = _limit_reached(state, rules)
    if good and believed:
        reason = f"desired_acc × scale: force MAE {1000 * mae:.1f} meV/Å on the validation sets"
    if reason:
        state = replace(state, stopped=reason)
        effects = (*effects, LogMessage(f"stop: {reason}"))
    return state, effects


def _limit_reached(state: State, rules: InitialRules) -> str | None:
    """The reason when the epochs or the training points are as many as they may be."""
    n_train = sum(m.n_train for m in state.members)
    if state.epochs >= rules.max_epochs:
        return f"max_initial_epochs: {state.epochs}"
    if n_train >= rules.max_train:
        return f"max_initial_set_size: {n_train} training points"
    return None
