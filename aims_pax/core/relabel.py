"""Recalculation: the reference labels each structure of a list once.

    open  -- labelled ---------->  the next structure of the list opens
    open  -- failed, recorded -->  the next structure of the list opens
    none open, none left ------->  stopped

Only as many structures are open as can run at once, so that the cost of an event does not grow with the list.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from aims_pax.core.work import (
    Effect,
    Event,
    IllegalEvent,
    LabelFailed,
    Labelled,
    LogMessage,
    RequestLabel,
    Work,
)

NAME = "recalculate"
PROGRESS_LINES = 10  # at most, for the whole list


@dataclass(frozen=True)
class RecalculateRules:
    """frames: ids, each once, in order. names: as shown to the user. at_once: number requested at a time."""

    frames: tuple[str, ...]
    names: tuple[str, ...]
    at_once: int


@dataclass(frozen=True)
class Failure:
    """A structure without a label: failure class and reason."""

    frame: str
    kind: str
    reason: str


@dataclass(frozen=True)
class State:
    """opened: number of structures opened so far. open: those without an answer."""

    opened: int = 0
    open: tuple[str, ...] = ()
    failed: tuple[Failure, ...] = ()
    stopped: str | None = None


def begin(rules: RecalculateRules) -> State:
    """The state with the first structures open."""
    return reopen(State(), rules)


def reopen(state: State, rules: RecalculateRules) -> State:
    """The state with as many structures open as these rules allow."""
    room = max(0, rules.at_once - len(state.open))
    opened = min(state.opened + room, len(rules.frames))
    state = replace(state, opened=opened, open=(*state.open, *rules.frames[state.opened : opened]))
    if state.open or state.stopped:
        return state
    return replace(state, stopped=f"{len(rules.frames)} structures answered")


def outstanding(state: State, rules: RecalculateRules) -> tuple[Work, ...]:
    """A label for every open structure."""
    return tuple(RequestLabel(frame) for frame in state.open)


def step(state: State, event: Event, rules: RecalculateRules) -> tuple[State, tuple[Effect, ...]]:
    """The consequences of an answer. Raises IllegalEvent when its work is not outstanding."""
    if not isinstance(event, Labelled | LabelFailed) or event.work.frame not in state.open:
        raise IllegalEvent(f"{event} while outstanding is {outstanding(state, rules)}")
    frame, before = event.work.frame, state.opened - len(state.open)
    effects: tuple[Effect, ...] = ()
    state = replace(state, open=tuple(f for f in state.open if f != frame))
    if isinstance(event, LabelFailed):
        name = rules.names[rules.frames.index(frame)]
        effects = (LogMessage(f"{name} · {event.kind}: {event.reason}", "warning"),)
        state = replace(state, failed=(*state.failed, Failure(frame, event.kind, event.reason)))
    state = reopen(state, rules)
    line = _progress(before, state.opened - len(state.open), rules)
    return state, effects + ((LogMessage(line),) if line else ())


def _progress(before: int, now: int, rules: RecalculateRules) -> str | None:
    """A line each time another tenth of the list has been answered."""
    n = len(rules.frames)
    if n < 2 * PROGRESS_LINES or before * PROGRESS_LINES // n == now * PROGRESS_LINES // n:
        return None
    return f"{now} of {n} structures answered"
