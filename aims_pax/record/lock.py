"""One run per folder: a lock file that names the process working there, on this machine or on another one.

The file holds process, host and scheduler job; a thread updates its modification time every 20 s while the run is
alive. A lock is stale when its process has ended (same host), or has not updated it for ten minutes (another host,
network file system). Ages are differences of two file times on one file system, so clocks that disagree do not matter.

A scheduler job cannot ask a person to start it again. So if its folder is locked from another host, for example by the
same job before it was requeued, it watches the lock for a while and takes it if the lock is not updated.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from aims_pax.errors import Busy, SetupError
from aims_pax.processes import process_started
from aims_pax.record.files import move
from aims_pax.schedulers.registry import own_job

log = logging.getLogger(__name__)

STALE_AFTER = 600.0  # s without an update from another host
BEAT_EVERY = 20.0  # s
LOOK_EVERY = 1.0  # s
QUIET = 70.0  # s without an update after which the holder counts as dead: three updates were due
TAKEOVER = ".takeover"  # file next to the lock, locked by the process that removes a stale lock
STARTING = "starting"  # file next to the lock: the process about to take it (loading torch takes seconds)


class Lock:
    """The lock of one folder, held and regularly updated inside `with lock.held():`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._beaten = time.monotonic()
        self.lost: dict[str, Any] | None = None  # another holder that took it while this process was alive
        self._mine = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started": _created(os.getpid()),
            "process": process_started(os.getpid()),
            "job": own_job(),
        }

    @contextlib.contextmanager
    def held(self, check: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Take the lock and release it at the end. Raises Busy naming the process that holds it.

        check: called regularly while waiting for a sign of life of another holder; may raise.
        """
        self._take(check)
        self._arrived()
        over = threading.Event()
        thread = threading.Thread(target=self._renew, args=(over,), name="lock", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            if _read(self.path) == self._mine:
                self.path.unlink(missing_ok=True)

    def _renew(self, over: threading.Event) -> None:
        while not over.wait(BEAT_EVERY):
            holder = _read(self.path)
            if holder and holder != self._mine:
                self.lost = holder
                return
            with contextlib.suppress(OSError):  # a brief failure of the file server must not end a run
                os.utime(self.path)

    @contextlib.contextmanager
    def announced(self) -> Iterator[None]:
        """Write in a run's folder that this process is about to continue it; this is not a lock."""
        path = self.path.with_name(STARTING)
        if path.parent.is_dir():
            with contextlib.suppress(OSError):  # taking the lock will report the error
                path.write_text(json.dumps(self._mine), encoding="utf-8")
        try:
            yield
        finally:
            self._arrived()

    def _arrived(self) -> None:
        """Remove the file that announced this process."""
        path = self.path.with_name(STARTING)
        with contextlib.suppress(OSError):
            if _read(path) == self._mine:
                path.unlink()

    def holder(self) -> dict[str, Any] | None:
        """The process that holds the lock (pid, host, started), for callers that do not; None when there is none."""
        holder = _read(self.path)
        if not holder:
            return None
        try:
            return holder if self._alive(holder) else None
        except OSError:  # a read-only folder: the file system's clock cannot be read
            return holder

    def refuse_second(self) -> None:
        """Raise Busy when another run holds the folder. Does not take the lock: a check before slow imports.

        Does not raise when the holder may be this job before it was requeued: `held` then waits for a sign of life.
        """
        holder = self.holder()
        if holder is not None and not self._may_go_quiet(holder):
            raise self._busy(holder)

    def _busy(self, holder: dict[str, Any]) -> Busy:
        return Busy(
            f"{self.path.parent.parent}: another aims-PAX works in this folder ({_who(holder)}); wait for it or "
            f"stop it, or use another folder. If you are sure that it has ended, remove {self.path}"
        )

    def heartbeat(self) -> None:
        """Update the lock, at most every 20 s; cheap enough to call at every MD step.

        Raises Busy when another run has taken the lock.
        """
        if self.lost is not None:
            raise Busy(
                f"{self.path}: taken by {_who(self.lost)} while this run continued; it ends here, so that two runs do "
                "not mix. Check the clock and the file server of this machine"
            )
        now = time.monotonic()
        if now - self._beaten > BEAT_EVERY:
            self._beaten = now
            with contextlib.suppress(OSError):  # a brief failure of the file server must not end a run
                os.utime(self.path)

    def _take(self, check: Callable[[], None]) -> None:
        """Create the file exclusively. A stale one is removed first, by one process at a time."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            for _ in range(3):
                try:
                    self._create()
                    return
                except FileExistsError:
                    self._remove_if_stale(check)
        except OSError as error:
            raise SetupError(
                f"cannot write {self.path}: {error.strerror}; fix the permissions of the folder"
            ) from error
        raise Busy(f"{self.path}: could not be taken, because another aims-PAX took it first")

    def _create(self) -> None:
        """Create the file with its content atomically: write under another name, then link; fails if it exists."""
        temporary = self.path.with_name(f".lock.{self._mine['host']}.{self._mine['pid']}")
        temporary.write_text(json.dumps(self._mine), encoding="utf-8")
        try:
            os.link(temporary, self.path)
        finally:
            temporary.unlink(missing_ok=True)

    def _remove_if_stale(self, check: Callable[[], None]) -> None:
        holder = _read(self.path)
        if holder is None:
            return  # removed in the meantime
        if self._alive(holder) and not self._goes_quiet(holder, check):
            raise self._busy(holder)
        temporary = self.path.with_name(f".stale.{self._mine['host']}.{self._mine['pid']}")
        with self._alone(), contextlib.suppress(FileNotFoundError):
            if _read(self.path) != holder:
                return  # another process was faster, or the holder came back
            move(self.path, temporary)
            if _read(temporary) != holder:  # without flock: the lock of a faster process was moved
                with contextlib.suppress(FileExistsError):
                    os.link(temporary, self.path)
            temporary.unlink()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Only one process at a time is inside, where the file system has flock."""
        path = self.path.with_name(TAKEOVER)
        while True:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            with contextlib.suppress(OSError):  # a file system without flock
                fcntl.flock(file, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):  # removed by the process that was inside
                if os.path.samestat(os.fstat(file), path.stat()):
                    break
            os.close(file)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            os.close(file)

    def _goes_quiet(self, holder: dict[str, Any], check: Callable[[], None]) -> bool:
        """Whether the holder on another host no longer updates the lock; only a scheduler job waits to find out."""
        if not self._may_go_quiet(holder):
            return False
        same = "this job before it was requeued" if holder.get("job") == self._mine["job"] else "another host"
        log.warning(
            "%s: locked from %s (%s); waiting up to %.0f s for a sign of life",
            self.path,
            same,
            _who(holder),
            QUIET,
        )
        renews = "process" in holder  # otherwise an earlier version, which updated its lock irregularly
        last, since = self._time(), time.monotonic()
        while time.monotonic() - since < (QUIET if renews else STALE_AFTER):
            check()
            time.sleep(LOOK_EVERY)
            if _read(self.path) != holder:  # reading also refreshes a network file system's cache
                return True
            if self._time() != last:
                return False
        return True

    def _may_go_quiet(self, holder: dict[str, Any]) -> bool:
        """Whether this is a scheduler job and the holder, on another host, may be this job before it was requeued."""
        return self._mine["job"] is not None and holder.get("host") != self._mine["host"]

    def _time(self) -> float | None:
        with contextlib.suppress(FileNotFoundError):
            return self.path.stat().st_mtime
        return None

    def _alive(self, holder: dict[str, Any]) -> bool:
        if holder.get("host") == self._mine["host"]:
            return runs(holder)
        return self._age() < STALE_AFTER

    def _age(self) -> float:
        """Seconds since the last update, by the file system's own clock."""
        probe = self.path.with_name(f".now.{self._mine['host']}.{self._mine['pid']}")
        probe.touch()
        try:
            return probe.stat().st_mtime - self.path.stat().st_mtime
        except FileNotFoundError:
            return 0.0
        finally:
            probe.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any] | None:
    """The holder; {} when the file is not readable; None when there is no file."""
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return holder if isinstance(holder, dict) else {}
    except FileNotFoundError:
        return None
    except ValueError:
        return {}


def runs(holder: dict[str, Any]) -> bool:
    """Whether the process that a lock names runs on this machine; a reused pid does not count."""
    pid = holder.get("pid")
    if not isinstance(pid, int):
        return False
    if "process" in holder:
        return process_started(pid) is not None and process_started(pid) == holder["process"]
    created, written = _created(pid), holder.get("started")  # written by an earlier version
    return created is not None and created == written


def _who(holder: dict[str, Any]) -> str:
    job = f", job {holder['job']}" if holder.get("job") else ""
    return f"pid {holder.get('pid')} on {holder.get('host')}{job}"


def _created(pid: int) -> float | None:
    """When a process of this machine was created (s since 1970, by its current clock); None if it does not run."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else round(process.create_time(), 1)
    except psutil.Error:
        return None
