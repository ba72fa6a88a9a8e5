"""Pre-training: structures with free labels, before the first label of the reference. Training on them is convergence.

    SAMPLE  -- structures made and labelled by the cheap potential -->  SAMPLE, until there are enough

Free labels are in a dataset of their own. Every k-th structure is for validation, so that the sets do not depend on the
sizes of the batches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from aims_pax.core.rules import PretrainingRules
from aims_pax.core.work import (
    AddToDataset,
    Effect,
    Event,
    IllegalEvent,
    LogMessage,
    RunSampler,
    Sampled,
    Work,
)

NAME = "pretrain-sample"
MAX_EMPTY = 3  # batches in a row without a label, after which the stage stops


@dataclass(frozen=True)
class State:
    """frames: labelled so far. visit: batches so far. empty: batches in a row without a label."""

    frames: int = 0
    visit: int = 0
    empty: int = 0
    stopped: str | None = None


def begin(rules: PretrainingRules) -> State:
    """The state before sampling."""
    return State()


def reopen(state: State, rules: PretrainingRules) -> State:
    """The state after a change of settings: it continues if more structures are wanted, ends with enough."""
    if state.frames >= rules.n_frames:
        return replace(state, stopped=state.stopped or f"n_frames: {state.frames} structures")
    if state.stopped is None:
        return state
    return replace(state, stopped=None, empty=0)


def outstanding(state: State, rules: PretrainingRules) -> tuple[Work, ...]:
    """The next batch."""
    if state.stopped:
        return ()
    missing = math.ceil((rules.n_frames - state.frames) / len(rules.systems))
    return (RunSampler(state.visit, max(1, min(rules.batch, missing))),)


def step(state: State, event: Event, rules: PretrainingRules) -> tuple[State, tuple[Effect, ...]]:
    """The consequences of a batch. Raises IllegalEvent when its work is not outstanding."""
    if not isinstance(event, Sampled) or event.work not in outstanding(state, rules):
        raise IllegalEvent(f"{event} while outstanding is {outstanding(state, rules)}")
    frames = list(dict.fromkeys(frame for _, frame in event.frames))[: rules.n_frames - state.frames]
    effects: list[Effect] = [
        AddToDataset(frame, "valid" if is_validation(state.frames + k, rules.valid_ratio) else "train")
        for k, frame in enumerate(frames)
    ]
    state = replace(
        state,
        frames=state.frames + len(frames),
        visit=state.visit + 1,
        empty=0 if frames else state.empty + 1,
    )
    if state.frames >= rules.n_frames:
        state = replace(state, stopped=f"n_frames: {state.frames} structures")
        effects.append(LogMessage(f"pre-training: {state.frames} structures with free labels"))
    elif state.empty >= MAX_EMPTY:
        state = replace(state, stopped=f"no structure could be labelled in {MAX_EMPTY} batches")
    return state, tuple(effects)


def is_validation(index: int, ratio: float) -> bool:
    """Whether the structure of this index (from 0) is for validation: evenly spaced, the first one is for training."""
    return math.floor((index + 1) * ratio + 1e-9) > math.floor(index * ratio + 1e-9)
