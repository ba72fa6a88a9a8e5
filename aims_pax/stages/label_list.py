"""Labels a list of structures in the working folder, without models or dynamics.

    with open_reference(settings, console, "recalculate.log") as context:
        failed = label_all(context, wanted, "recalculate-7f3a")
        label = context.labeller.known(frame)

Lock, log, signals, walltime, journal and snapshots work as in a full run.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aims_pax.core import relabel as stage
from aims_pax.core.relabel import Failure, RecalculateRules
from aims_pax.core.work import Effect, Event, RequestLabel, RunTraining
from aims_pax.engine.event_loop import EventLoop
from aims_pax.engine.interrupts import InterruptMonitor, remaining_walltime
from aims_pax.engine.outcome import describe_os_error, log_outcome
from aims_pax.engine.run_context import LabellingContext
from aims_pax.errors import SetupError
from aims_pax.frames import Frame
from aims_pax.record.checkpoint import Checkpoint, discard, from_plain
from aims_pax.record.folder import RunFolder
from aims_pax.record.journal import Journal
from aims_pax.record.lock import Lock
from aims_pax.record.log import to_console, to_file
from aims_pax.record.run_requests import RequestFile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from aims_pax.settings import LabellingSettings

log = logging.getLogger(__name__)

CONCERNED = re.compile(r"\b(CLUSTER|REFERENCE|MISC|species_dir)\b")  # settings warnings about labelling


@dataclass(frozen=True)
class LabelRequest:
    """A structure to label. name: for messages; system, atom: see `Labeller.submit`."""

    frame: Frame
    name: str
    system: str | None = None
    atom: bool = False


@contextlib.contextmanager
def open_reference(
    settings: LabellingSettings, console: Console, log_file: str, frames: Sequence[Frame] | None = None
) -> Iterator[LabellingContext]:
    """Lock the folder and open the reference. Raises SetupError, Busy, SettingsError, RunInterrupted.

    frames: structures that will be labelled; None: the geometries of the settings.
    """
    from aims_pax.labelling import Labeller

    folder = RunFolder(settings)
    lock = Lock(folder.restart / "lock")
    watch = InterruptMonitor(
        remaining_walltime(settings.misc.max_walltime), lock.heartbeat, RequestFile(folder.restart)
    )
    try:
        with (
            to_console(console, settings.model.log_level),
            watch.listening(),
            lock.held(watch.raise_if_signalled),
            to_file(folder.logs / log_file),
            log_outcome(),
        ):
            for warning in filter(CONCERNED.search, settings.warnings):
                log.warning("%s", warning)
            with Labeller.from_settings(settings, folder.data, frames, watch.raise_if_stopped) as labeller:
                yield LabellingContext(
                    settings=settings, folder=folder, labeller=labeller, journal=Journal(folder), watch=watch
                )
    except OSError as error:
        raise SetupError(describe_os_error(error)) from error


def label_all(
    context: LabellingContext, wanted: Sequence[LabelRequest], name: str | None = None
) -> tuple[Failure, ...]:
    """Label these structures, each once; returns those that failed. The label store then contains all others.

    name: of the snapshots, in which a stopped run records the failed structures; None: no snapshots.
    """
    once = {w.frame.id: w for w in wanted}
    capacity = context.labeller.capacity
    # one extra, so that no worker is idle; with one worker, each label is stored before the next starts
    at_once = capacity + (capacity > 1)
    rules = RecalculateRules(tuple(once), tuple(w.name for w in once.values()), at_once)
    restartable = context.settings.misc.create_restart and name is not None
    environment = LabelOnlyEnvironment(
        context, once, Checkpoint(context.folder, str(name)) if restartable else None
    )
    state = stage.reopen(environment.restore() or stage.begin(rules), rules)
    try:
        state = EventLoop(stage, state, rules, environment, context.journal, context.watch).run()
    except SetupError:
        forget_list(context, name)  # the failures have the same cause, so the structures are tried again
        raise
    return tuple(state.failed)


def forget_list(context: LabellingContext, name: str | None) -> None:
    """Remove the snapshots: the next run with this name tries failed structures again."""
    if name is not None and (path := context.folder.restart / name).is_dir():
        discard(context.folder, name)
        with contextlib.suppress(OSError):  # the folder contains other files
            path.rmdir()


class LabelOnlyEnvironment:
    """The environment of the stage `recalculate`: labels only, written to the label store."""

    name = "recalculate"
    trains_in_background = False

    def __init__(
        self, context: LabellingContext, wanted: Mapping[str, LabelRequest], checkpoint: Checkpoint | None
    ) -> None:
        self.labeller = context.labeller
        self.capacity = context.labeller.capacity
        self.wanted = wanted
        self.checkpoint = checkpoint

    def submit(self, work: RequestLabel) -> Future[Any]:
        one = self.wanted[work.frame]
        return self.labeller.submit(one.frame, one.system, one.atom)

    def drop(self, work: RequestLabel) -> None:
        self.labeller.drop(work.frame)

    def keep(self, work: RequestLabel, label: Any) -> None:
        """Nothing to do: the label is already in the store."""

    def error_of(self, work: RequestLabel) -> None:
        """Nothing was predicted."""

    def turn(self, works: Sequence[Any], stop: Callable[[], bool]) -> Iterable[Event]:
        raise _no(works[0])

    def begin_training(self, work: RunTraining) -> Future[Any]:
        raise _no(work)

    def finish_training(self, work: RunTraining, result: Any) -> Event:
        raise _no(work)

    def drop_training(self, work: RunTraining) -> None:
        raise _no(work)

    def apply(self, effect: Effect) -> None:
        raise _no(effect)

    def commit(self, state: stage.State) -> None:
        if self.checkpoint is not None:
            self.checkpoint.write(state, {}, 0, dict, {})

    def restore(self) -> stage.State | None:
        """The state of the newest snapshot; unfinished labels are requested again."""
        snapshot = None if self.checkpoint is None else self.checkpoint.read()
        return None if snapshot is None else from_plain(stage.State, snapshot.state)

    def label_seconds(self) -> float:
        """Mean over all labels, including those from the store, which take no time and need no snapshot."""
        calls = self.labeller.calls
        answers = calls.finished + calls.reused + sum(calls.failed.values())
        return calls.seconds / answers if answers else 1.0

    def show(self, state: Any, doing: str) -> None:
        """No live view: the log lines are enough."""


def _no(what: Any) -> TypeError:
    return TypeError(f"{what} has no meaning in a recalculation")
