"""One run a folder: a lock file that tells who works here, on this machine or on another one.

The file names process, host and the process's start time, and its age is renewed while the run lives. A lock is
stale when its process is gone (same host) or has not renewed it for ten minutes (another host, a network file
system). Ages are differences of two file times of one file system, so clocks that disagree do not matter.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aims_pax.errors import Busy, SetupError

STALE_AFTER = 600.0  # s without a sign of life from another host
BEAT_EVERY = 20.0  # s
STARTING = "starting"  # beside the lock: who is on the way to take it, torch takes seconds to load


class Lock:
    """The lock of one folder, held inside `with lock.held():` and renewed by `beat()`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._beaten = time.monotonic()
        self._mine = {"pid": os.getpid(), "host": socket.gethostname(), "started": _started(os.getpid())}

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Take the lock, give it back at the end. Raises Busy naming the one who has it."""
        self._take()
        self._arrived()
        try:
            yield
        finally:
            if _read(self.path) == self._mine:
                self.path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def announced(self) -> Iterator[None]:
        """Say in a folder where a run was begun that it is about to go on; nothing is locked by that."""
        path = self.path.with_name(STARTING)
        if path.parent.is_dir():
            with contextlib.suppress(OSError):  # taking the lock will say it
                path.write_text(json.dumps(self._mine), encoding="utf-8")
        try:
            yield
        finally:
            self._arrived()

    def _arrived(self) -> None:
        """What was announced is over."""
        path = self.path.with_name(STARTING)
        with contextlib.suppress(OSError):
            if _read(path) == self._mine:
                path.unlink()

    def holder(self) -> dict[str, Any] | None:
        """Who works in the folder, for somebody who does not: pid, host, started; None when nobody does."""
        holder = _read(self.path)
        if not holder:
            return None
        try:
            return holder if self._alive(holder) else None
        except OSError:  # a folder that may only be read has no clock of its own
            return holder

    def refuse_second(self) -> None:
        """Raise Busy when somebody works in the folder. Nothing is taken: a look before anything slow is loaded."""
        if (holder := self.holder()) is not None:
            raise self._busy(holder)

    def _busy(self, holder: dict[str, Any]) -> Busy:
        who = f"pid {holder.get('pid')} on {holder.get('host')}"
        return Busy(
            f"{self.path.parent.parent}: another aims-PAX works in this folder ({who}); wait for it or stop it, or "
            f"use another folder. If you are sure that it is dead, remove {self.path}"
        )

    def beat(self) -> None:
        """A sign of life, at most every 20 s; cheap enough for every MD step."""
        now = time.monotonic()
        if now - self._beaten > BEAT_EVERY:
            self._beaten = now
            with contextlib.suppress(OSError):  # a file server that hiccups is no reason to end a run
                os.utime(self.path)

    def _take(self) -> None:
        """Create the file exclusively; a stale one is first moved aside, which only one process can do."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            for _ in range(3):
                try:
                    self._create()
                    return
                except FileExistsError:
                    self._remove_if_stale()
        except OSError as error:
            raise SetupError(
                f"cannot write {self.path}: {error.strerror}; fix the permissions of the folder"
            ) from error
        raise Busy(f"{self.path}: could not be taken; another aims-PAX was quicker")

    def _create(self) -> None:
        """A complete file appears at once: written aside, then linked to its name, which fails if that exists."""
        aside = self.path.with_name(f".lock.{self._mine['host']}.{self._mine['pid']}")
        aside.write_text(json.dumps(self._mine), encoding="utf-8")
        try:
            os.link(aside, self.path)
        finally:
            aside.unlink(missing_ok=True)

    def _remove_if_stale(self) -> None:
        holder = _read(self.path)
        if holder is None:
            return  # gone meanwhile
        if self._alive(holder):
            raise self._busy(holder)
        aside = self.path.with_name(f".stale.{self._mine['host']}.{self._mine['pid']}")
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.path, aside)
            aside.unlink()

    def _alive(self, holder: dict[str, Any]) -> bool:
        if holder.get("host") == self._mine["host"]:
            pid, started = holder.get("pid"), holder.get("started")
            return isinstance(pid, int) and _started(pid) is not None and _started(pid) == started
        return self._age() < STALE_AFTER

    def _age(self) -> float:
        """Seconds since the last sign of life, measured by the file system's own clock."""
        probe = self.path.with_name(f".now.{self._mine['host']}.{self._mine['pid']}")
        probe.touch()
        try:
            return probe.stat().st_mtime - self.path.stat().st_mtime
        except FileNotFoundError:
            return 0.0
        finally:
            probe.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any] | None:
    """The holder; {} when the file says nothing readable; None when there is no file."""
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return holder if isinstance(holder, dict) else {}
    except FileNotFoundError:
        return None
    except ValueError:
        return {}


def _started(pid: int) -> float | None:
    """When a process of this machine was started; None when it does not run. Tells a reused pid from the old one."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else round(process.create_time(), 1)
    except psutil.Error:
        return None
