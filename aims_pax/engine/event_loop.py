"""The event loop of every stage: start outstanding work, wait for an event, let the core decide.

    while wanted := outstanding(state):
        cancel work that is no longer wanted; submit labels, and training if it has its own devices
        take the next event: a finished label or training, else a turn on the device, else sleep
        state, effects = step(state, event); apply the effects; write the event to the journal

A restart runs the same loop with no work in flight. Labels are submitted only after the snapshot that requests
them is on disk, unless labels are cheaper than snapshots.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, Protocol

from aims_pax.core.work import (
    Advanced,
    Effect,
    Event,
    LabelDropped,
    LabelFailed,
    Labelled,
    LogMessage,
    MeasuredError,
    RequestLabel,
    RunMD,
    RunSampler,
    RunTraining,
    SelectFrames,
    StageModule,
    UncertaintyCheck,
    Work,
)
from aims_pax.engine.interrupts import InterruptMonitor
from aims_pax.errors import Abandoned, LabelError, failure_name
from aims_pax.record.journal import Journal
from aims_pax.report.time_left import DOING
from aims_pax.wire_names import name_in_files

log = logging.getLogger(__name__)

DOING_WORK = {RunMD: "moving", RunTraining: "training", RunSampler: "sampling", SelectFrames: "moving"}
SNAPSHOT_SECONDS = 60.0  # longest time between two snapshots

Turn = Sequence[Work]


class Environment(Protocol):
    """What the event loop needs from a stage: labels, training, device turns, snapshots."""

    name: str  # of the stage, in the journal
    capacity: int
    trains_in_background: (
        bool  # whether training runs in its own process or on its own devices, in parallel with MD
    )

    def submit(self, work: RequestLabel) -> Future[Any]: ...
    def drop(self, work: RequestLabel) -> None: ...
    def begin_training(self, work: RunTraining) -> Future[Any]: ...
    def finish_training(self, work: RunTraining, future: Future[Any]) -> Event | None:
        """Its event, or None: the training has to be repeated."""

    def drop_training(self, work: RunTraining) -> None: ...
    def keep(self, work: RequestLabel, label: Any) -> str | None:
        """Store a label; returns the set that already contains the frame, None: it is new."""

    def error_of(self, work: RequestLabel) -> MeasuredError | None:
        """After `keep`: the error of what was predicted of the frame, None: nothing was."""

    def turn(self, works: Turn, stop: Callable[[], bool]) -> Iterable[Event]: ...
    def apply(self, effect: Effect) -> None: ...
    def commit(self, state: Any) -> None: ...
    def label_seconds(self) -> float: ...
    def show(self, state: Any, doing: str) -> None: ...


class EventLoop:
    """Drives one stage: a module of `aims_pax.core`, from this state, by these rules."""

    def __init__(
        self,
        stage: StageModule[Any, Any],
        state: Any,
        rules: Any,
        environment: Environment,
        journal: Journal,
        watch: InterruptMonitor,
    ) -> None:
        self.stage = stage
        self.state = state
        self.rules = rules
        self.environment = environment
        self.journal = journal
        self.watch = watch
        self.in_flight: dict[RequestLabel, Future[Any]] = {}
        self.training: dict[RunTraining, Future[Any]] = {}  # in other processes
        self.seconds = {"moving": 0.0, "training": 0.0, "sampling": 0.0, "waiting": 0.0, "saving": 0.0}
        self._paused_before = watch.paused_seconds  # s this process was paused before this stage
        self._committed = -1e9  # time of the last snapshot
        self._snapshot_cost = 0.0
        self._dirty = True
        self._whole = True  # no event is half applied: state and environment are consistent

    def run(self) -> Any:
        """Run until no work is outstanding; returns the final state. Raises RunInterrupted after a signal."""
        began = time.monotonic()
        # time before this line is not work of this stage
        self.journal.write(self.environment.name, "going", {})
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
            self.environment.drop(work)
            del self.in_flight[work]
        for visit in [w for w in self.training if w not in wanted]:
            self.environment.drop_training(visit)
            del self.training[visit]

    def _hand_out(self, wanted: Sequence[Work]) -> None:
        """Submit labels up to the executor's capacity; the others stay in this queue."""
        queue = [w for w in wanted if isinstance(w, RequestLabel) and w not in self.in_flight]
        if self.state.stopped:  # drop labels not yet submitted; wait for the submitted ones and store them
            self._handle_all([LabelDropped(work) for work in queue])
            return
        room = self.environment.capacity + 1 - len(self.in_flight)
        if queue and room > 0 and self._dirty and self.environment.label_seconds() > self._snapshot_cost:
            self._commit()
        for work in queue[: max(room, 0)]:
            self.in_flight[work] = self.environment.submit(work)

    def _begin_training(self, wanted: Sequence[Work]) -> None:
        if self.environment.trains_in_background:
            for work in wanted:
                if isinstance(work, RunTraining) and work not in self.training:
                    self.training[work] = self.environment.begin_training(work)

    def _answers(self) -> list[Event]:
        """Events of finished labels, in the order of submission, then of finished training."""
        events: list[Event] = []
        for work in [w for w, future in self.in_flight.items() if future.done()]:
            future = self.in_flight.pop(work)
            try:
                present = self.environment.keep(work, future.result())
                events.append(Labelled(work, present, self.environment.error_of(work)))
            except LabelError as error:
                self.watch.raise_if_stopped()  # the scheduler signals FHI-aims too: not a failure of the frame
                events.append(LabelFailed(work, failure_name(error), error.reason))
        for visit in [w for w, future in self.training.items() if future.done()]:
            future = self.training.pop(visit)
            if future.exception() is None:
                self._whole = False  # weights change now, the state only when the event is handled
            trained = self.environment.finish_training(visit, future)
            events += [] if trained is None else [trained]
        return events

    # ------------------------------------------------------------ events

    def _next_events(self, wanted: Sequence[Work]) -> Iterable[Event]:
        if answers := self._answers():
            return answers
        if works := self._next_turn(wanted):
            doing = DOING_WORK[type(works[0])]
            self.environment.show(self.state, doing)
            with self._timed(doing):
                try:
                    return list(self.environment.turn(works, self.watch.stop))
                except Abandoned:
                    return []
        doing = "training" if self.training and not self.in_flight else "waiting"
        self.environment.show(self.state, doing)
        with self._timed(doing):
            elsewhere = [*self.in_flight.values(), *self.training.values()]
            wait(elsewhere, timeout=1, return_when=FIRST_COMPLETED)
        return self._answers()

    def _next_turn(self, wanted: Sequence[Work]) -> Turn:
        """Work for the device, of the kind that comes first: MD of all trajectories, or one visit of training."""
        # including a training visit that has to be repeated
        elsewhere = (RequestLabel, RunTraining) if self.environment.trains_in_background else RequestLabel
        device = [w for w in wanted if not isinstance(w, elsewhere) and w not in self.training]
        if not device or not isinstance(device[0], RunMD):
            return device[:1]
        return [w for w in device if isinstance(w, RunMD)]

    def _handle_all(self, events: Iterable[Event]) -> None:
        """Handle events that belong together; snapshots are written only between such groups."""
        self._whole = False
        for event in events:
            self._handle(event)
        self._whole = True

    def _handle(self, event: Event) -> None:
        if event.work not in self.stage.outstanding(self.state, self.rules):
            self.journal.write(self.environment.name, "late", event)  # its work has been cancelled
            return
        self.state, effects = self.stage.step(self.state, event, self.rules)
        more: dict[str, Any] = {"check": None} if isinstance(event, Advanced) else {}
        for effect in effects:
            if isinstance(effect, LogMessage):
                log.log(logging.WARNING if effect.level == "warning" else logging.INFO, effect.text)
            elif isinstance(effect, UncertaintyCheck):
                more["check"] = effect
            else:
                self.environment.apply(effect)
        self.journal.write(self.environment.name, name_in_files(type(event)), event, **more)
        self._dirty = True

    # ------------------------------------------------------------ snapshots and times

    def _commit(self) -> None:
        if not self._dirty:
            return
        with self._timed("saving"):
            began = time.monotonic()
            self.environment.commit(self.state)
            self._snapshot_cost = time.monotonic() - began
        self._committed = time.monotonic()
        self._dirty = False

    def _timed(self, what: str) -> _Timer:
        return _Timer(self.seconds, what, self.watch)

    def _note_pauses(self) -> None:
        """Write the pauses of this process to the journal."""
        while self.watch.pauses:
            began, ended = self.watch.pauses.pop(0)
            content = {"began": round(began, 3), "ended": round(ended, 3)}
            self.journal.write(self.environment.name, "paused", content)

    def _account(self, total: float) -> None:
        """Log the share of each activity in the working time. Pauses are listed separately and not counted."""
        paused = self.watch.paused_seconds - self._paused_before
        work = max(total - paused, 1e-9)
        shares = {**self.seconds, "other": max(work - sum(self.seconds.values()), 0.0)}
        parts = [f"{DOING[k]} {100 * v / work:.0f} %" for k, v in shares.items() if v > 0.005 * work]
        parts += [f"also paused for {paused:.0f} s"] if paused else []
        log.info("time of this stage since this start: %.1f s of work · %s", work, " · ".join(parts))
        self.journal.write(self.environment.name, "time", {k: round(v, 3) for k, v in shares.items()})


class _Timer:
    """Context manager: adds its time, without pauses, to one entry of a ledger."""

    def __init__(self, ledger: dict[str, float], what: str, watch: InterruptMonitor) -> None:
        self.ledger, self.what, self.watch = ledger, what, watch

    def __enter__(self) -> None:
        self.began = time.monotonic() - self.watch.paused_seconds

    def __exit__(self, *_: object) -> None:
        self.ledger[self.what] += time.monotonic() - self.watch.paused_seconds - self.began
