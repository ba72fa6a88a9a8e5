"""Which process computes which frame: a worker claims a frame before it starts and releases the claim at the end.

    {folder}/labels/{method}/{frame_id}.claim      host, process and its start time, its job and scheduler, deadline
    {folder}/labels/{method}/{frame_id}.failure    why a claimed calculation failed, until a driver has read it

A worker on a cluster may outlive its driver. The next driver finds the worker's claims: it waits for the frames whose
worker is alive, and computes the others again. A claim is written atomically and never overwrites another one (a hard
link does not replace a file), also on a shared file system. The worker renews the time stamp of the file while it
computes; a claim from another machine that is no longer renewed has expired, whether or not a scheduler can be asked.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from aims_pax.errors import LabelError, SetupError, failure_class, failure_name
from aims_pax.processes import process_started
from aims_pax.record.files import write_text
from aims_pax.schedulers.base import Scheduler
from aims_pax.schedulers.registry import find_scheduler, own_scheduler

log = logging.getLogger(__name__)

GRACE = (
    660.0  # s after a deadline: clocks differ, and an unreachable scheduler may delay the start of a program
)
ANSWER_AGE = 15.0  # s for which an answer of a scheduler is reused
RENEW_EVERY = 30.0  # s
STALE_AFTER = 600.0  # s without renewal, by the clock of the file system
_serial = itertools.count()


@dataclass(frozen=True)
class Claim:
    """A process that computes a frame. job: the job it runs in; deadline: the latest time it can end (s, epoch)."""

    host: str
    pid: int
    started: str | None
    job: str | None = None
    deadline: float | None = None
    run: str = ""  # the run of the driver that asked
    renewed: bool = False  # whether its worker renews the file
    scheduler: str | None = None  # of the job; None: written by a version that did not store it

    @classmethod
    def parse(cls, table: dict[str, Any]) -> Claim:
        """The claim in a file; unknown fields (of a later version) are ignored. Raises TypeError, AttributeError."""
        return cls(**{f.name: table[f.name] for f in fields(cls) if f.name in table})

    @classmethod
    def mine(cls, run: str, limit: float | None) -> Claim:
        """A claim of this process. limit: seconds the calculation may take."""
        ends = [float(e) for e in [os.environ.get("AIMS_PAX_BLOCK_END")] if e]
        if limit is not None:
            ends.append(time.time() + limit)
        pid, scheduler = os.getpid(), own_scheduler()
        job, name = (None, None) if scheduler is None else (scheduler.own_job(), scheduler.name)
        return cls(
            socket.gethostname(), pid, process_started(pid), job, min(ends, default=None), run, True, name
        )


class Claims:
    """The claims of one method, in the folder of its labels."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # (scheduler, job) → time of the query, whether the job exists
        self._jobs: dict[tuple[str, str], tuple[float, bool]] = {}
        self._said: set[str] = set()  # frames with a warning: their worker cannot be queried from here

    def path(self, frame_id: str) -> Path:
        return self.folder / f"{frame_id}.claim"

    def take(self, frame_id: str, claim: Claim) -> bool:
        """Claim a frame, unless a worker that may be alive holds it. The claim of a dead local worker is replaced."""
        path = self.path(frame_id)
        for _ in range(5):
            if _appear(path, json.dumps(asdict(claim))):
                return True
            other = self.read(frame_id)
            if other is not None and (other.host != claim.host or _lives(other)):
                return other == claim
            path.unlink(missing_ok=True)
        return False

    def release(self, frame_id: str, claim: Claim) -> None:
        """Remove our claim; a claim that another process has taken over stays."""
        if self.read(frame_id) == claim:
            self.path(frame_id).unlink(missing_ok=True)

    def forget(self, frame_id: str) -> None:
        """Remove the claim of a worker that is known to have ended."""
        self.path(frame_id).unlink(missing_ok=True)

    def read(self, frame_id: str) -> Claim | None:
        try:
            found = Claim.parse(json.loads(self.path(frame_id).read_bytes()))
            int(found.pid), float(found.deadline or 0)
        except (OSError, ValueError, TypeError):
            return None
        return found

    def ids(self) -> list[str]:
        """The claimed frames."""
        return sorted(p.stem for p in self.folder.glob("*.claim")) if self.folder.is_dir() else []

    def alive(self, frame_id: str) -> Claim | None:
        """The claim on a frame if its worker may be alive; the claim of a dead worker is removed."""
        claim = self.read(frame_id)
        if claim is not None and self._alive(frame_id, claim):
            return claim
        if claim is not None:
            log.info("frame %s: its worker (process %d on %s) is gone", frame_id[:6], claim.pid, claim.host)
        self.forget(frame_id)
        return None

    @contextmanager
    def renewed(self, frame_id: str) -> Iterator[None]:
        """Renew a claim of this process regularly inside the `with` block."""
        over = threading.Event()

        def renew() -> None:
            while not over.wait(RENEW_EVERY):
                with suppress(OSError):  # the file server did not respond; the next renewal may succeed
                    os.utime(self.path(frame_id))

        thread = threading.Thread(target=renew, name="claim", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _alive(self, frame_id: str, claim: Claim) -> bool:
        if claim.host == socket.gethostname():
            return _lives(claim)
        if claim.deadline is not None and time.time() > claim.deadline + GRACE:
            return False
        # without a job it ran on the driver's machine and ended with the driver, which has ended: we hold the lock
        scheduler = find_scheduler(claim.scheduler)
        if claim.job is None or (scheduler is not None and not self._job_lives(scheduler, claim.job)):
            return False
        if self._age(frame_id) < STALE_AFTER:
            self._say(frame_id, claim, scheduler)
            return True
        # a claim of an old version is never renewed: only its job shows whether the worker is alive
        return not claim.renewed and scheduler is not None and scheduler.available()

    def _say(self, frame_id: str, claim: Claim, scheduler: Scheduler | None) -> None:
        """Warn once for each frame whose worker cannot be queried from this machine."""
        if frame_id in self._said or (scheduler is not None and scheduler.available()):
            return
        self._said.add(frame_id)
        title, query = (
            (claim.scheduler, claim.scheduler) if scheduler is None else (scheduler.title, scheduler.query)
        )
        log.warning(
            "frame %s: claimed by process %d of %s job %s on %s, and %s is not available here to query it; the frame "
            "is computed again %.0f min after the process last renewed its claim. If the process has ended, remove %s",
            frame_id[:6], claim.pid, title, claim.job, claim.host, query, STALE_AFTER / 60, self.path(frame_id),
        )  # fmt: skip

    def _age(self, frame_id: str) -> float:
        """Seconds since a claim was renewed; both times are from the file system's clock."""
        probe = self.folder / f".now.{socket.gethostname()}.{os.getpid()}.{next(_serial)}"
        try:
            probe.touch()
            return probe.stat().st_mtime - self.path(frame_id).stat().st_mtime
        except OSError:  # removed meanwhile, or a read-only folder
            return 0.0
        finally:
            with suppress(OSError):
                probe.unlink()

    def _job_lives(self, scheduler: Scheduler, job: str) -> bool:
        key = (scheduler.name, job)
        asked, there = self._jobs.get(key, (-1e9, False))
        if time.monotonic() - asked > ANSWER_AGE:
            there = bool(scheduler.alive([job]))
            self._jobs[key] = (time.monotonic(), there)
        return there

    # ------------------------------------------------------------ failures that no driver has read

    def note_failure(self, frame_id: str, error: LabelError) -> None:
        """Write a failure for a later driver. Errors of the file system are ignored."""
        with suppress(SetupError):
            note = {"class": failure_name(error), "reason": error.reason, "folder": error.folder}
            write_text(self.folder / f"{frame_id}.failure", json.dumps(note))

    def has_failed(self, frame_id: str) -> bool:
        """Whether a failure is stored that no driver has read."""
        return (self.folder / f"{frame_id}.failure").exists()

    def take_failure(self, frame_id: str) -> LabelError | None:
        """Return the stored failure of a frame and remove it; None where there is none."""
        path = self.folder / f"{frame_id}.failure"
        try:
            note = json.loads(path.read_bytes())
            failure = failure_class(note["class"])(note["reason"], note["folder"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, LookupError):
            failure = None
        path.unlink(missing_ok=True)
        return failure


def _lives(claim: Claim) -> bool:
    """Whether a process of this machine still runs (the same process, not another one with its id)."""
    if claim.started is not None:
        return process_started(claim.pid) == claim.started
    try:  # no /proc
        os.kill(claim.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _appear(path: Path, text: str) -> bool:
    """Create a file with this content unless it exists. Raises SetupError when the file system refuses."""
    part = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.{next(_serial)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text)
        try:
            os.link(part, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            with suppress(FileExistsError), open(path, "x") as file:
                file.write(text)
                return True
            return False
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise SetupError(f"cannot write {path}: {error.strerror or error}") from error
    return True
