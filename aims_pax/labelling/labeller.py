"""Requests labels from the reference; no frame is computed twice.

    with Labeller.from_settings(settings, folder) as labeller:
        future = labeller.submit(frame)          # -> Label, or LabelError / SetupError
        label = future.result()

A stored label is returned at once; a frame that is being computed is not computed again. The worker itself
stores the label as soon as it is computed. Only `LabelError` concerns one frame; any other exception of a future
ends the run.
"""

from __future__ import annotations

import itertools
import logging
import os
import secrets
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from aims_pax.errors import Crashed, LabelError, RunInterrupted, SetupError, Unphysical, failure_name
from aims_pax.frames import Frame, Label
from aims_pax.labelling.claims import Claim, Claims
from aims_pax.labelling.executors.base import Executor, WorkerDied
from aims_pax.labelling.foreign_results import ResultPoller
from aims_pax.labelling.quarantine import Quarantine
from aims_pax.labelling.shared_files import files_here, shared_files_warning
from aims_pax.labelling.store import LabelStore, Record, method_hash
from aims_pax.labelling.systematic_failure import systematic
from aims_pax.labelling.validation import check_geometry
from aims_pax.labelling.worker import Answer, Reference, Task, label_frame, label_task, usable_record

if TYPE_CHECKING:
    from aims_pax.settings import LabellingSettings

__all__ = ["Answer", "Calls", "Labeller", "Reference", "Task", "label_frame", "label_task"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Calls:
    """Counts of reference calculations. begun = finished + failed + running; seconds: summed over calculations.

    reused: labels from the store. harvested: computed by workers of an earlier run.
    refused: invalid structures, not computed. failed: {class name: number}.
    """

    begun: int = 0
    finished: int = 0
    reused: int = 0
    harvested: int = 0
    refused: int = 0
    seconds: float = 0.0
    failed: dict[str, int] = field(default_factory=dict)


class _Method:
    """A reference with its labels and claims; each geometry with its own control.in has its own method."""

    def __init__(self, reference: Reference, folder: Path) -> None:
        self.reference = reference
        self.description = reference.describe()
        self.name = method_hash(self.description)
        self.store = LabelStore(folder, self.name)
        self.claims = Claims(self.store.folder)

    def stored(self, frame: Frame) -> Record | None:
        """The label in the store, unless an earlier version computed it with constraints in its input."""
        return usable_record(self.store.read(frame.id), frame, self.reference)

    def in_use(self) -> list[Claim]:
        """Claims whose workers may be alive."""
        return [c for c in map(self.claims.alive, self.claims.ids()) if c is not None]


@dataclass(eq=False)
class _Job:
    """A requested frame. asked: number of callers that wait for it; at 0 it is dropped, and can be requested again.

    deaths: number of workers that died while computing it. blame: the sum of their costs; at 1 the frame fails.
    A dead worker costs 0.5, a lost node 0.1.
    """

    frame: Frame
    unwanted: Path
    future: Future[Label]
    method: _Method
    asked: int = 1
    deaths: int = 0
    blame: float = 0.0


class Labeller:
    """One reference method, one store, one executor. Use as a context manager; call from one thread.

    check: called while the main thread waits for labels; raises RunInterrupted when the run should stop.
    """

    def __init__(
        self,
        reference: Reference,
        folder: Path,
        executor: Executor,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.reference = reference
        self.check = check
        if (listen := getattr(reference, "listen", None)) is not None:
            listen(check)
        self.folder = Path(folder)
        systems = getattr(reference, "controls", None) or {None: None}
        self._methods = {name: self._method_of(name) for name in systems}
        self._atoms: _Method | None = None
        first = next(iter(self._methods.values()))
        self.method = first.name
        self.store = first.store
        self._executor = executor
        self.quarantine = Quarantine(Path(folder))
        self._run = secrets.token_hex(6) if executor.outlives else None
        self._waiting: ResultPoller[_Job] = ResultPoller(self._look)
        self._jobs: dict[str, _Job] = {}
        self._calls = Calls()
        self._streak: list[LabelError] = []  # failures since the last success
        self._broken: SetupError | None = None
        self._lock = threading.RLock()  # executors call back from their own threads
        self._tickets = itertools.count()
        self._closing = False
        self._files: dict[str, int] | None = None  # in the working folder before the first label

    @classmethod
    def from_settings(
        cls,
        settings: LabellingSettings,
        folder: Path,
        frames: Iterable[Frame] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> Self:
        """The labeller that the settings describe; labels go to `folder/labels`.

        frames: the frames to be labelled; None: the geometries of the settings and frames made from them.
        check: called while waiting for a label; it may raise.
        """
        from aims_pax.labelling.factory import executor_of, reference_of, reference_remarks

        reference = reference_of(settings, frames)
        reference.check()
        for text in reference_remarks(settings):
            log.warning("%s", text)
        return cls(reference, Path(folder), executor_of(settings, reference), check)

    def __enter__(self) -> Self:
        for method in self._methods.values():
            method.store.describe(method.description)
        if not self.reference.quick and not hasattr(self.reference, "label_and_store"):
            self._files = files_here()
        self._executor.__enter__()
        alive = [claim for method in self._methods.values() for claim in method.in_use()]
        self._executor.inherit({c.job for c in alive if c.job is not None})
        return self

    def __exit__(self, *exception: Any) -> None:
        self._closing = True
        error = exception[1] if len(exception) > 1 else None
        left = self._left_to_the_next(error)
        if left is not None:
            self._executor.hand_over([self._task(job) for job in left])
        for frame_id, job in list(self._jobs.items()):
            if left is None or job not in left:
                job.asked = min(job.asked, 1)
                self.drop(frame_id)
        self._waiting.stop()
        self.reference.stop()
        self._executor.__exit__(*exception)
        for frame_id, job in self._jobs.items():
            job.unwanted.unlink(missing_ok=True)
            if self._run is not None:
                job.method.claims.alive(frame_id)  # its worker has ended with this run: remove the claim

    def _left_to_the_next(self, error: BaseException | None) -> list[_Job] | None:
        """Jobs that blocks may still begin after this process ends with this error; None: stop all, also running ones.

        Running calculations continue unless the run has finished, the reference is broken, or the user cancels.
        Calculations that have not begun are left only when the run will be restarted (exit code 75: stopped by the
        scheduler or the walltime, not by the user).
        """
        if self._run is None or error is None or self._broken is not None:
            return None
        if not isinstance(error, RunInterrupted):
            return []
        if error.cancel:
            return None
        with self._lock:
            return [job for job in self._jobs.values() if job.asked] if error.code == 75 else []

    @property
    def capacity(self) -> int:
        """Number of jobs that run at the same time."""
        return self._executor.capacity

    @property
    def calls(self) -> Calls:
        """The counts so far."""
        with self._lock:
            return replace(self._calls, failed=dict(self._calls.failed))

    @property
    def _has_worked(self) -> bool:
        """Whether a label of this reference is stored, of this run or an earlier one."""
        return any(next(method.store.ids(), None) is not None for method in self._methods.values())

    def check_elements(self, numbers: Iterable[int]) -> None:
        """Raise SetupError when the reference cannot compute these elements (atomic numbers)."""
        check = getattr(self.reference, "check_elements", None)
        if check is not None:
            check(sorted({int(z) for z in numbers}))

    def method_of(self, system: str | None = None, atom: bool = False) -> str:
        """The name (hash) of the method that `submit` would use. Raises SetupError when there is none."""
        return self._method(system, atom).name

    def known(self, frame: Frame, system: str | None = None, atom: bool = False) -> Label | None:
        """The stored label of this frame, or None. Nothing is computed."""
        record = self._method(system, atom).stored(frame)
        return None if record is None else record.label

    def submit(self, frame: Frame, system: str | None = None, atom: bool = False) -> Future[Label]:
        """Request a label. The future gives a Label, a LabelError (this frame), or an error that ends the run.

        system: the name of the geometry this frame was made from; it may have its own control.in.
        atom: an isolated atom, computed without the settings that only molecules and crystals need.
        """
        if not _numbers(frame):  # check before computing the id: a hash of NaN is meaningless
            self._count(refused=1)
            return _failed(
                Unphysical("not calculated: the structure holds NaN, infinity or absurdly large numbers")
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
        try:
            method = self._method(system, atom)
            if atom:
                method.store.describe(method.description)
        except SetupError as error:
            return _failed(error)
        known = method.stored(frame)
        if known is not None:
            self._count(reused=1)
            return _done(known.label)
        try:
            check_geometry(frame)
        except LabelError as error:
            return self.refuse(frame, error)
        unwanted = method.store.folder / f".{frame.id}.{os.getpid()}.{next(self._tickets)}.unwanted"
        job = _Job(frame, unwanted, Future(), method)
        with self._lock:
            self._jobs[frame.id] = job
        if self._run is None:
            self._start(job)
        elif not self._look(job):  # another process computes it
            log.info("frame %s: a worker of an earlier run computes it; waiting for its result", frame.id[:6])
            self._waiting.add(job)
        return job.future

    def drop(self, frame_id: str) -> None:
        """Withdraw one request. Without requests, a waiting job is cancelled; the label of a running one is stored."""
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

    def _start(self, job: _Job) -> None:
        self._count(begun=1)
        try:
            given = self._executor.submit(label_task, self._task(job))
        except BaseException:  # Ctrl-C in an inline calculation: undo the request
            with self._lock:
                self._count(begun=-1)
                self._forget(job)
            raise
        given.add_done_callback(lambda done: self._returned(job, done))

    def _task(self, job: _Job) -> Task:
        return Task(job.frame, job.method.reference, job.method.store, job.unwanted, self._run)

    def _method_of(self, system: str | None) -> _Method:
        choose = getattr(self.reference, "for_system", None)
        return _Method(self.reference if choose is None else choose(system), self.folder)

    def _of_atoms(self) -> _Method:
        """The method of isolated atoms."""
        if self._atoms is None:
            make = getattr(self.reference, "for_atoms", None)
            self._atoms = _Method(self.reference if make is None else make(), self.folder)
        return self._atoms

    def _method(self, system: str | None, atom: bool = False) -> _Method:
        """The method of a geometry. Raises SetupError when several exist and this geometry has none."""
        if atom:
            return self._of_atoms()
        if None in self._methods:
            return self._methods[None]
        return self._methods.get(system) or self._method_of(system)

    def _look(self, job: _Job) -> bool:
        """Whether waiting has ended: another process has finished the frame, or none computes it and we start it."""
        try:
            frame_id, claims = job.frame.id, job.method.claims
            busy = claims.alive(frame_id)  # first, so that a label stored meanwhile is not missed
            known = job.method.stored(job.frame)
            failure = None if busy or known else claims.take_failure(frame_id)
            with self._lock:
                if self._closing or not job.asked:
                    self._forget(job)
                    return True
                if known is None and failure is None:
                    if not busy:
                        self._start(job)
                    return not busy
                self._forget(job)
                outcome: Label | BaseException
                if known is not None:
                    self._count(harvested=1)
                    self._streak.clear()
                    outcome = known.label
                else:
                    outcome = self._judge(Answer(error=failure), job.frame)
        except Exception as error:
            outcome = error
        self._deliver(job, outcome)
        return True

    def _want_again(self, job: _Job) -> None:
        """Request a dropped job again. Call with the lock held."""
        job.future = Future()
        job.unwanted.unlink(missing_ok=True)  # if the worker was quicker, its answer has dropped=True

    def _returned(self, job: _Job, done: Future[Answer]) -> None:
        """Callback of the executor, in any thread. Must not raise: the exception would be lost."""
        try:
            outcome = self._outcome(job, done)
        except BaseException as error:
            outcome = error
        if outcome is not None:
            self._deliver(job, outcome)

    def _deliver(self, job: _Job, outcome: Label | BaseException) -> None:
        if not job.future.set_running_or_notify_cancel():
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
            if error is None and done.result().busy:
                self._count(begun=-1)
                self._waiting.add(job)
                return None
            if isinstance(error, WorkerDied) and self._died(job, error):
                return None
            self._forget(job)
            if self._run is not None:
                job.method.claims.take_failure(job.frame.id)  # reported by the answer
            if isinstance(error, WorkerDied):
                died = Crashed(f"its worker died {job.deaths} times: {_first_line(error)}")
                return self._judge(Answer(error=died), job.frame)
            if isinstance(error, SetupError):
                self._broken = error
            return self._judge(done.result(), job.frame) if error is None else error

    def _died(self, job: _Job, error: WorkerDied) -> bool:
        """Handle a dead worker. False: the frame has failed; True: it is computed again or no longer requested.

        Call with the lock held.
        """
        job.method.claims.forget(job.frame.id)
        job.deaths += 1
        job.blame += error.cost
        if job.asked and not self._closing and job.blame >= 1:
            return False
        self._count(begun=-1)
        if job.asked and not self._closing:
            log.warning("frame %s: %s; it is computed again", job.frame.id[:6], _first_line(error))
            self._start(job)
        else:
            self._forget(job)
        return True

    def _judge(self, given: Answer, frame: Frame) -> Label | BaseException:
        """Count an answer; many equal failures become one SetupError. Call with the lock held."""
        if given.label is not None:
            self._streak.clear()
            self._warn_of_shared_files()
            self._count(finished=1, seconds=given.seconds)
            return given.label
        error = given.error
        assert error is not None
        failed = dict(self._calls.failed)
        name = failure_name(error) if isinstance(error, LabelError) else type(error).__name__
        failed[name] = failed.get(name, 0) + 1
        self._calls = replace(self._calls, failed=failed, seconds=self._calls.seconds + given.seconds)
        if isinstance(error, LabelError):
            self.quarantine.add(frame, error)
            self._streak.append(error)
            error = (
                systematic(self._streak, self._calls.finished + self._calls.harvested, self._has_worked)
                or error
            )
        if isinstance(error, SetupError):
            self._broken = error
        return error

    def _warn_of_shared_files(self) -> None:
        """After the first label: warn if new files are in the working folder while several labels run at once."""
        before, self._files = self._files, None
        if before is not None and self.capacity > 1 and (new := files_here().keys() - before.keys()):
            log.warning("%s", shared_files_warning(new))

    def _forget(self, job: _Job) -> None:
        job.unwanted.unlink(missing_ok=True)
        if self._jobs.get(job.frame.id) is job:
            del self._jobs[job.frame.id]

    def refuse(self, frame: Frame, error: LabelError) -> Future[Label]:
        """Record that a frame is not computed, for this reason; the future has failed with it."""
        self._count(refused=1)
        self.quarantine.add(frame, error)
        return _failed(error)

    def _count(self, **more: float) -> None:
        with self._lock:
            now = {name: getattr(self._calls, name) + n for name, n in more.items()}
            self._calls = replace(self._calls, **now)


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]


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
