"""Asking the reference for labels, without ever paying twice.

    with Labeller.from_settings(settings, folder) as labeller:
        future = labeller.submit(frame)          # -> Label, or LabelError / SetupError
        label = future.result()

A frame whose label is in the store costs nothing; a frame that is being computed is not computed again.
The worker itself writes the label, the moment it exists. Only `LabelError` concerns one frame; any other
exception of a future ends the run.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from aims_pax.errors import Crashed, Insane, LabelError, SetupError
from aims_pax.frames import Frame, Label
from aims_pax.labelling.executor import Executor, WorkerDied
from aims_pax.labelling.store import LabelStore, method_hash
from aims_pax.labelling.validation import check_geometry, check_label
from aims_pax.potential import Bound

if TYPE_CHECKING:
    from aims_pax.settings import Settings

log = logging.getLogger(__name__)

FIRST_FAILURES = 5  # the first calls all fail alike: nothing will ever work
DEATHS = 2  # workers a frame may be lost with
CRASHES_IN_A_ROW = 20  # later: a program that worked has stopped working


class Reference(Protocol):
    """A program that labels frames. Travels to workers by value."""

    @property
    def quick(self) -> bool:
        """Threads of the driver serve."""
        ...

    def describe(self) -> dict[str, Any]:
        """Everything that determines a label."""
        ...

    def check(self) -> None:
        """Raise SetupError or SettingsError for what can be known before the first call."""
        ...

    def label(self, frame: Frame) -> Label:
        """Raise LabelError for this frame's failure, SetupError for everybody's."""
        ...

    def stop(self) -> None:
        """End what this process has running."""
        ...


@dataclass(frozen=True)
class Task:
    """All a worker needs, by value and by path. unwanted: a file that says nobody waits any more."""

    frame: Frame
    reference: Reference
    store: LabelStore
    unwanted: Path


@dataclass(frozen=True)
class Answer:
    """What comes back: a label, or why there is none. Failures of the reference travel as values."""

    label: Label | None = None
    error: LabelError | SetupError | None = None
    seconds: float = 0.0
    dropped: bool = False


@dataclass(frozen=True)
class Calls:
    """What the reference was asked. begun = finished + failed + running; seconds: summed over calls.

    reused: answered from the store. refused: not worth a call. failed: {class name: how many}.
    """

    begun: int = 0
    finished: int = 0
    reused: int = 0
    refused: int = 0
    seconds: float = 0.0
    failed: dict[str, int] = field(default_factory=dict)


def label_frame(task: Task) -> Label:
    """Compute one label, check it, and write it into the store before anybody else sees it.

    Runs wherever the executor runs it. Raises LabelError or SetupError.
    """
    begun = time.monotonic()
    label = task.reference.label(task.frame)
    check_label(task.frame, label)
    task.store.put(task.frame.id, label, time.monotonic() - begun)
    return label


def answer(task: Task) -> Answer:
    """`label_frame` unless the label exists already or nobody wants it any more; failures become values."""
    if _taken_back(task):
        return Answer(dropped=True)
    begun = time.monotonic()
    known = task.store.read(task.frame.id)
    if known is not None:
        return Answer(known.label, seconds=known.seconds)
    try:
        return Answer(label_frame(task), seconds=time.monotonic() - begun)
    except (LabelError, SetupError) as error:
        return Answer(error=error, seconds=time.monotonic() - begun)


@dataclass(eq=False)
class _Job:
    """A frame on its way. asked: how many wait for it; at 0 it is dropped, and may be asked for again.

    deaths: how many workers it has been lost with; a frame that kills its worker twice is to blame.
    """

    frame: Frame
    unwanted: Path
    future: Future[Label]
    asked: int = 1
    deaths: int = 0


class Labeller:
    """One reference method, one store, one executor. Use as a context manager; call from one thread."""

    def __init__(self, reference: Reference, folder: Path, executor: Executor) -> None:
        description = reference.describe()
        self.reference = reference
        self.method = method_hash(description)
        self.store = LabelStore(folder, self.method)
        self._description = description
        self._executor = executor
        self._jobs: dict[str, _Job] = {}
        self._calls = Calls()
        self._streak: list[LabelError] = []  # failures since the last success
        self._broken: SetupError | None = None
        self._lock = threading.RLock()  # executors answer from their own threads
        self._tickets = itertools.count()
        self._closing = False

    @classmethod
    def from_settings(cls, settings: Settings, folder: Path) -> Self:
        """The labeller a user's settings describe; labels go to `folder/labels`."""
        from aims_pax.labelling.choose import executor_of, reference_of

        reference = reference_of(settings)
        reference.check()
        return cls(reference, Path(folder), executor_of(settings, reference))

    def __enter__(self) -> Self:
        self.store.describe(self._description)
        self._executor.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._closing = True
        for frame_id, job in list(self._jobs.items()):
            job.asked = min(job.asked, 1)
            self.drop(frame_id)
        self.reference.stop()
        self._executor.__exit__(*exception)
        for job in self._jobs.values():
            job.unwanted.unlink(missing_ok=True)

    @property
    def capacity(self) -> int:
        """Jobs worth handing out at once."""
        return self._executor.capacity

    @property
    def calls(self) -> Calls:
        """What was asked so far."""
        with self._lock:
            return replace(self._calls, failed=dict(self._calls.failed))

    def submit(self, frame: Frame) -> Future[Label]:
        """Ask for a label. The future gives a Label, a LabelError (this frame), or what must end the run."""
        if not _numbers(frame):  # before its id: a hash of NaN means nothing
            return self._refuse(
                Insane("not calculated: the structure holds NaN, infinity or absurdly large numbers")
            )
        with self._lock:
            if self._broken is not None:
                return _failed(self._broken)
            job = self._jobs.get(frame.id)
            if job is not None:
                if job.asked == 0:
                    self._want_again(job)
                job.asked += 1
                return job.future
        known = self.store.get(frame.id)
        if known is not None:
            self._count(reused=1)
            return _done(known)
        try:
            check_geometry(frame)
        except LabelError as error:
            return self._refuse(error)
        unwanted = self.store.folder / f".{frame.id}.{os.getpid()}.{next(self._tickets)}.unwanted"
        job = _Job(frame, unwanted, Future())
        with self._lock:
            self._jobs[frame.id] = job
        self._start(job)
        return job.future

    def drop(self, frame_id: str) -> None:
        """One less waits for this label. When nobody does: forgotten if not begun, else stored when done."""
        with self._lock:
            job = self._jobs.get(frame_id)
            if job is None or job.asked == 0:
                return
            job.asked -= 1
            if job.asked:
                return
            job.future.cancel()
            job.unwanted.parent.mkdir(parents=True, exist_ok=True)
            job.unwanted.touch()

    def potential(self) -> ReferencePotential:
        """The reference as a potential: every force through `submit`, for ab initio MD."""
        return ReferencePotential(self)

    def _start(self, job: _Job) -> None:
        self._count(begun=1)
        task = Task(job.frame, self.reference, self.store, job.unwanted)
        try:
            given = self._executor.submit(answer, task)
        except BaseException:  # Ctrl-C in an inline calculation: as if never asked
            with self._lock:
                self._count(begun=-1)
                self._forget(job)
            raise
        given.add_done_callback(lambda done: self._returned(job, done))

    def _want_again(self, job: _Job) -> None:
        """Asked for again after it was dropped. Under the lock."""
        job.future = Future()
        job.unwanted.unlink(missing_ok=True)  # too late if the worker took it: then its answer says so

    def _returned(self, job: _Job, done: Future[Answer]) -> None:
        """The executor's answer, in whatever thread brings it. Must not raise: nobody would hear it."""
        try:
            outcome = self._outcome(job, done)
        except BaseException as error:
            outcome = error
        if outcome is None or not job.future.set_running_or_notify_cancel():
            return  # dropped; if it ran, its label is in the store
        if isinstance(outcome, Label):
            job.future.set_result(outcome)
        else:
            job.future.set_exception(outcome)

    def _outcome(self, job: _Job, done: Future[Answer]) -> Label | BaseException | None:
        with self._lock:
            if done.cancelled() or (done.exception() is None and done.result().dropped):
                self._count(begun=-1)
                if job.asked and not self._closing:
                    self._start(job)
                else:
                    self._forget(job)
                return None
            error = done.exception()
            if isinstance(error, WorkerDied):
                job.deaths += 1
                if job.deaths < DEATHS and job.asked and not self._closing:
                    self._count(begun=-1)
                    self._start(job)
                    return None
            self._forget(job)
            if isinstance(error, WorkerDied):
                return self._judge(Answer(error=Crashed(f"its worker died {job.deaths} times: {error}")))
            if isinstance(error, SetupError):
                self._broken = error
            return self._judge(done.result()) if error is None else error

    def _judge(self, given: Answer) -> Label | BaseException:
        """Count an answer; many failures alike mean that everything is wrong. Under the lock."""
        if given.label is not None:
            self._streak.clear()
            self._count(finished=1, seconds=given.seconds)
            return given.label
        error = given.error
        assert error is not None
        failed = dict(self._calls.failed)
        failed[type(error).__name__] = failed.get(type(error).__name__, 0) + 1
        self._calls = replace(self._calls, failed=failed, seconds=self._calls.seconds + given.seconds)
        if isinstance(error, LabelError):
            self._streak.append(error)
            error = _systematic(self._streak, self._calls.finished) or error
        if isinstance(error, SetupError):
            self._broken = error
        return error

    def _forget(self, job: _Job) -> None:
        job.unwanted.unlink(missing_ok=True)
        if self._jobs.get(job.frame.id) is job:
            del self._jobs[job.frame.id]

    def _refuse(self, error: LabelError) -> Future[Label]:
        self._count(refused=1)
        return _failed(error)

    def _count(self, **more: float) -> None:
        with self._lock:
            now = {name: getattr(self._calls, name) + n for name, n in more.items()}
            self._calls = replace(self._calls, **now)


@dataclass(frozen=True)
class ReferencePotential:
    """The reference as a `Potential`. All frames of a step are asked for at once."""

    labeller: Labeller

    def labels(self, frames: Sequence[Frame]) -> list[Label]:
        """Raises the LabelError of the first frame that has none."""
        return [future.result() for future in [self.labeller.submit(f) for f in frames]]

    def bind(self, frames: Sequence[Frame]) -> Bound:
        """Fix the structures; only positions and cells move."""
        from aims_pax.potential import LabelsBound

        return LabelsBound(self.labels, frames)


def _systematic(streak: Sequence[LabelError], finished: int) -> SetupError | None:
    """One error for all when the last failures are of one class and nothing speaks for the reference."""
    last = streak[-1]
    enough = FIRST_FAILURES if finished == 0 else CRASHES_IN_A_ROW
    alike = len(streak) >= enough and all(type(error) is type(last) for error in streak[-enough:])
    if not alike or (finished and not isinstance(last, Crashed)):
        return None
    since = "no reference calculation has worked" if finished == 0 else "the reference has stopped working"
    where = f" Its files: {last.folder}." if last.folder else ""
    return SetupError(
        f"{since}: the last {enough} failed alike ({type(last).__name__}). The last reason: {last.reason}."
        f"{where} {_advice[type(last).__name__]}"
    )


_advice = {
    "NotConverged": "Loosen or help the SCF cycle (mixing, smearing, more iterations), then run again.",
    "Crashed": "Run one calculation by hand to check the program, its command and its input, then run again.",
    "TimedOut": "Raise CLUSTER.job_time_limit or give a calculation more cores, then run again.",
    "Truncated": "Check memory, disk quota and walltime of the reference, then run again.",
    "WrongShape": "Make the reference give forces (and stress where asked), then run again.",
    "NotFinite": "Check the reference's settings on one geometry by hand, then run again.",
    "Insane": "Check the starting geometry and its units (Å), then run again.",
}


def _taken_back(task: Task) -> bool:
    """Whether the label was dropped; removing the file decides between worker and driver."""
    try:
        task.unwanted.unlink()
    except FileNotFoundError:
        return False
    return True


def _numbers(frame: Frame) -> bool:
    return bool((abs(frame.positions) < 1e9).all() and (abs(frame.cell) < 1e9).all())


def _done(label: Label) -> Future[Label]:
    future: Future[Label] = Future()
    future.set_result(label)
    return future


def _failed(error: Exception) -> Future[Label]:
    future: Future[Label] = Future()
    future.set_exception(error)
    return future
