"""The process that works in a run's folder, found without writing anything there."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aims_pax.record.lock import STALE_AFTER, STARTING, runs
from aims_pax.report.tolerant_readers import float_or_nan, json_file


@dataclass(frozen=True)
class RunningProcess:
    """A process and its lock.

    lock: contents of the lock, also of a process that is gone. holder: those of the process that works here or is about
    to take the lock; {} when there is none. locked: whether the holder has the lock.
    """

    lock: dict[str, Any]
    holder: dict[str, Any]
    locked: bool

    @property
    def began(self) -> float:
        """When the process of the lock began, running or not; NaN when unknown."""
        return float_or_nan((self.holder or self.lock).get("started"))

    def has_written(self, heard: float) -> bool:
        """Whether it has left anything since it began. heard: time of the last sign of any process."""
        return heard >= self.began and (self.locked or not self.holder)

    def ended_early(self, heard: float) -> bool:
        """Whether the last process ended before it left anything."""
        return bool(self.lock) and not self.holder and heard < self.began


def running_process(restart: Path) -> RunningProcess:
    """The process that works in a folder, or worked there last. restart: the folder of its lock."""
    locked = _holder(restart / "lock")
    return RunningProcess(json_file(restart / "lock"), locked or _holder(restart / STARTING), bool(locked))


def _holder(path: Path) -> dict[str, Any]:
    holder = json_file(path)
    if not holder:
        return {}
    if holder.get("host") != socket.gethostname():
        try:
            return holder if time.time() - path.stat().st_mtime < STALE_AFTER else {}
        except OSError:
            return {}
    return holder if runs(holder) else {}
