"""The one shell that drives every stage: start what is outstanding, wait for an event, let the core decide.

    while wanted := outstanding(state):
        cancel what is in flight and no longer wanted; hand out labels, and training where it has its own devices
        take the next event: what finished elsewhere, else a turn on the device, else sleep
        state, effects = step(state, event); apply the effects; write it down

A restart is the same line with nothing in flight. Labels are handed out only after the snapshot that leads to
them is on the disk (commit before you pay), unless they are cheaper than the snapshot.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from types import ModuleType
from typing import Any, Protocol

from aims_pax.core.work import (
    Advanced,
    Effect,
    Event,
    LabelDropped,
    LabelFailed,
    Labelled,
    LogMessage,
    RequestLabel,
    RunMD,
    RunSampler,
    RunTraining,
    UncertaintyCheck,
    Work,
)
from aims_pax.engine.interrupts import InterruptMonitor
from aims_pax.errors import Abandoned, LabelError, failure_name
from aims_pax.record.journal import Journal
from aims_pax.report.time_left import DOING
from aims_pax.wire_names import name_in_files

log = logging.getLogger(__name__)

SNAPSHOT_SECONDS = 60.0  # at the latest

Turn = Sequence[Work]


class Environment(Protocol):
    """What the shell needs of the world of a stage."""

    name: str  # of the stage in this run, in the journal
    capacity: int
    trains_beside: (
        bool  # whether training has devices or processes of its own, beside the one that moves atoms
    )

    def submit(self, work: RequestLabel) -> Future[Any]: ...
    def drop(self, work: RequestLabel) -> None: ...
    def begin_training(self, work: RunTraining) -> Future[Any]: ...
    def finish_training(self, work: RunTraining, future: Future[Any]) -> Event | None: ...  # None: once more
    def drop_training(self, work: RunTraining) -> None: ...
    def keep(self, work: RequestLabel, label: Any) -> str | None: ...  # the set that holds the frame already
    def turn(self, works: Turn, stop: Callable[[], bool]) -> Iterable[Event]: ...
    def apply(self, effect: Effect) -> None: ...
    def commit(self, state: Any) -> None: ...
    def label_seconds(self) -> float: ...
    def show(self, state: Any, doing: str) -> None: ...


class EventLoop:
    """Drives one stage. `stage` is a module of `aims_pax.core` with NAME, step and outstanding."""

    def __init__(
        self,
        stage: ModuleType,
        state: Any,
        rules: Any,
        world: Environment,
        journal: Journal,
        watch: InterruptMonitor,
    ) -> None:
        self.stage = stage
        self.state = state
        self.rules = rules
        self.world = world
        self.journal = journal
        self.watch = watch
        self.in_flight: dict[RequestLabel, Future[Any]] = {}
        self.training: dict[RunTraining, Future[Any]] = {}  # beside the device
        self.seconds = {"moving": 0.0, "training": 0.0, "sampling": 0.0, "waiting": 0.0, "saving": 0.0}
        self._paused_before = watch.paused_seconds  # s this process was paused before this stage
        self._committed = -1e9  # time of the last snapshot
        self._snapshot_cost = 0.0
        self._dirty = True
        self._whole = True  # no event is half taken in: the state and the world fit together

    def run(self) -> Any:
        """Go on until nothing is outstanding; returns the final state. Raises RunInterrupted after a signal."""
        began = time.monotonic()
        self.journal.write(self.world.name, "going", {})  # what came before was no work of this stage
        self._commit()
        try:
            while wanted := self.stage.outstanding(self.state, self.rules):
                self.watch.raise_if_stopped()
                self._cancel(wanted)
                self._hand_out(wanted)
                self._begin_training(wanted)
                events = self._next_events(wanted)
                self._note_pauses()
                self._handle_all(events)
                if time.monotonic() - self._committed > SNAPSHOT_SECONDS:
                    self._commit()
        finally:
            self._cancel(())
            self._note_pauses()
            if self._whole:
                self._commit()
            self._account(max(time.monotonic() - began, 1e-9))
        return self.state

    # ------------------------------------------------------------ labels

    def _cancel(self, wanted: Sequence[Work]) -> None:
        for work in [w for w in self.in_flight if w not in wanted]:
            self.world.drop(work)
            del self.in_flight[work]
        for visit in [w for w in self.training if w not in wanted]:
            self.world.drop_training(visit)
            del self.training[visit]

    def _hand_out(self, wanted: Sequence[Work]) -> None:
        """Give labels to the executor while it has room for them; the rest waits with us."""
        queue = [w for w in wanted if isinstance(w, RequestLabel) and w not in self.in_flight]
        if self.state.stopped:  # labels not paid for are given up; what has been paid for is awaited and kept
            self._handle_all([LabelDropped(work) for work in queue])
            return
        room = self.world.capacity + 1 - len(self.in_flight)
        if queue and room > 0 and self._dirty and self.world.label_seconds() > self._snapshot_cost:
            self._commit()
        for work in queue[: max(room, 0)]:
            self.in_flight[work] = self.world.submit(work)

    def _begin_training(self, wanted: Sequence[Work]) -> None:
        if self.world.trains_beside:
            for work in wanted:
                if isinstance(work, RunTraining) and work not in self.training:
                    self.training[work] = self.world.begin_training(work)

    def _answers(self) -> list[Event]:
        """What finished elsewhere: labels in the order they were asked for, then training."""
        events: list[Event] = []
        for work in [w for w, future in self.in_flight.items() if future.done()]:
            future = self.in_flight.pop(work)
            try:
                events.append(Labelled(work, self.world.keep(work, future.result())))
            except LabelError as error:
                self.watch.raise_if_stopped()  # a scheduler signals its programs, too: no failure of this frame
                events.append(LabelFailed(work, failure_name(error), error.reason))
        for visit in [w for w, future in self.training.items() if future.done()]:
            future = self.training.pop(visit)
            if future.exception() is None:
                self._whole = False  # weights change here, the state when the event is taken
            trained = self.world.finish_training(visit, future)
            events += [] if trained is None else [trained]
        return events

    # ------------------------------------------------------------ events

    def _next_events(self, wanted: Sequence[Work]) -> Iterable[Event]:
        if answers := self._answers():
            return answers
        if works := self._next_turn(wanted):
            doing = {RunMD: "moving", RunTraining: "training", RunSampler: "sampling"}[type(works[0])]
            self.world.show(self.state, doing)
            with self._timed(doing):
                try:
                    return list(self.world.turn(works, self.watch.stop))
                except Abandoned:
                    return []
        doing = "training" if self.training and not self.in_flight else "waiting"
        self.world.show(self.state, doing)
        with self._timed(doing):
            elsewhere = [*self.in_flight.values(), *self.training.values()]
            wait(elsewhere, timeout=1, return_when=FIRST_COMPLETED)
        return self._answers()

    def _next_turn(self, wanted: Sequence[Work]) -> Turn:
        """The first kind of device work: all trajectories in one turn, or one visit of training."""
        elsewhere = (
            (RequestLabel, RunTraining) if self.world.trains_beside else RequestLabel
        )  # a lost visit, too
        device = [w for w in wanted if not isinstance(w, elsewhere) and w not in self.training]
        if not device or not isinstance(device[0], RunMD):
            return device[:1]
        return [w for w in device if isinstance(w, RunMD)]

    def _handle_all(self, events: Iterable[Event]) -> None:
        """Events that belong together; snapshots are only written between such groups."""
        self._whole = False
        for event in events:
            self._handle(event)
        self._whole = True

    def _handle(self, event: Event) -> None:
        if event.work not in self.stage.outstanding(self.state, self.rules):
            self.journal.write(self.world.name, "late", event)  # its work was cancelled meanwhile
            return
        self.state, effects = self.stage.step(self.state, event, self.rules)
        more: dict[str, Any] = {"check": None} if isinstance(event, Advanced) else {}
        for effect in effects:
            if isinstance(effect, LogMessage):
                log.log(logging.WARNING if effect.level == "warning" else logging.INFO, effect.text)
            elif isinstance(effect, UncertaintyCheck):
                more["check"] = effect
            else:
                self.world.apply(effect)
        self.journal.write(self.world.name, name_in_files(type(event)), event, **more)
        self._dirty = True

    # ------------------------------------------------------------ keeping

    def _commit(self) -> None:
        if not self._dirty:
            return
        with self._timed("saving"):
            began = time.monotonic()
            self.world.commit(self.state)
            self._snapshot_cost = time.monotonic() - began
        self._committed = time.monotonic()
        self._dirty = False

    def _timed(self, what: str) -> _Timer:
        return _Timer(self.seconds, what, self.watch)

    def _note_pauses(self) -> None:
        """Into the journal: when this process rested."""
        while self.watch.pauses:
            began, ended = self.watch.pauses.pop(0)
            content = {"began": round(began, 3), "ended": round(ended, 3)}
            self.journal.write(self.world.name, "paused", content)

    def _account(self, total: float) -> None:
        """Where the time went. A pause is no work: it is told apart and no share of it."""
        paused = self.watch.paused_seconds - self._paused_before
        work = max(total - paused, 1e-9)
        shares = {**self.seconds, "other": max(work - sum(self.seconds.values()), 0.0)}
        parts = [f"{DOING[k]} {100 * v / work:.0f} %" for k, v in shares.items() if v > 0.005 * work]
        parts += [f"paused for {paused:.0f} s besides"] if paused else []
        log.info("time of this stage since this start: %.1f s at work · %s", work, " · ".join(parts))
        self.journal.write(self.world.name, "time", {k: round(v, 3) for k, v in shares.items()})


class _Timer:
    """Adds the time spent inside to one entry of a ledger, less the pauses."""

    def __init__(self, ledger: dict[str, float], what: str, watch: InterruptMonitor) -> None:
        self.ledger, self.what, self.watch = ledger, what, watch

    def __enter__(self) -> None:
        self.began = time.monotonic() - self.watch.paused_seconds

    def __exit__(self, *_: object) -> None:
        self.ledger[self.what] += time.monotonic() - self.watch.paused_seconds - self.began
