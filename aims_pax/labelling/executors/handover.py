"""The files by which a driver, its blocks and the next driver find each other, in the folder that is locked for a run.

    runs.json      what each run may have left behind: the token in its jobs' names, its interchange
    driver.json    for blocks that start: how to reach the driver of today; renewed while it lives
    tasks          labels that were still wanted when the last driver was stopped by the scheduler or the walltime

A block reads them when it starts, and again when its driver has gone: a place in the queue serves whichever driver
is there then. What is unpickled was written by a run whose key the block was submitted with.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import pickle
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aims_pax.record.files import write_bytes, write_text

log = logging.getLogger(__name__)

RENEW_EVERY = 20.0  # s
STALE_AFTER = 120.0  # s without renewal after which a driver is no more, by the clock of the file system
KEY = "AIMS_PAX_TASKS_KEY"  # in the environment of a block


@dataclass(frozen=True)
class Driver:
    """A driver as its blocks see it. pools: arguments of `pool` by the name of the block.

    free: seconds at the end of a block's walltime in which no calculation may begin.
    """

    token: str
    pools: Mapping[str, Sequence[str]]
    free: float


class Handover:
    """These files in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.driver_path = self.folder / "driver.json"
        self.runs_path = self.folder / "runs.json"
        self.tasks_path = self.folder / "tasks"
        self._renewed = 0.0

    def probe(self, name: str) -> Path:
        """A file by which somebody asks the file system for the time."""
        return self.folder / f".block.{name}"

    def clear(self) -> None:
        """Nothing is left to anybody."""
        self.forget_driver()
        self.forget_tasks()
        for probe in self.folder.glob(".block.*"):
            probe.unlink(missing_ok=True)

    # ------------------------------------------------------------ runs

    def runs(self) -> list[dict[str, Any]]:
        """What earlier runs may have left behind; [] when there is nothing readable."""
        try:
            runs = json.loads(self.runs_path.read_text())
            return [r for r in runs if isinstance(r, dict) and isinstance(r.get("token"), str)]
        except (OSError, ValueError, TypeError):
            return []

    def write_runs(self, runs: Sequence[Mapping[str, Any]]) -> None:
        """Raises SetupError."""
        if runs:
            write_text(self.runs_path, json.dumps(list(runs)))
            self.runs_path.chmod(0o600)  # it holds the keys
        else:
            self.runs_path.unlink(missing_ok=True)

    # ------------------------------------------------------------ the driver of today

    def write_driver(self, driver: Driver) -> None:
        """Raises SetupError."""
        said = {
            "token": driver.token,
            "pools": {k: list(v) for k, v in driver.pools.items()},
            "free": driver.free,
        }
        write_text(self.driver_path, json.dumps(said))

    def renew(self) -> None:
        """A sign of life, when one is due."""
        if time.monotonic() - self._renewed > RENEW_EVERY:
            self._renewed = time.monotonic()
            with suppress(OSError):  # no driver.json yet, or a file server that hiccups
                os.utime(self.driver_path)

    def forget_driver(self) -> None:
        """From now on no block looks for us."""
        self.driver_path.unlink(missing_ok=True)

    def driver(self, probe: Path) -> Driver | None:
        """The driver that lives, or None. probe: a file of ours in that folder, for the clock of the file system."""
        try:
            probe.touch()
            if probe.stat().st_mtime - self.driver_path.stat().st_mtime > STALE_AFTER:
                return None
            said = json.loads(self.driver_path.read_text())
            pools = {str(k): [str(a) for a in v] for k, v in said["pools"].items()}
            return Driver(str(said["token"]), pools, float(said["free"]))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    # ------------------------------------------------------------ tasks

    def leave_tasks(self, tasks: Sequence[Any], keys: Sequence[str]) -> None:
        """Tasks for blocks that start while no driver lives. keys: of the runs whose blocks may. Raises SetupError."""
        self.forget_tasks()
        if not tasks:
            return
        content = pickle.dumps(list(tasks))
        signatures = json.dumps([_signature(key, content) for key in keys])
        write_bytes(self.tasks_path, signatures.encode() + b"\n" + content)

    def forget_tasks(self) -> None:
        self.tasks_path.unlink(missing_ok=True)

    def stamp(self) -> int | None:
        """Which list of tasks lies there: its time; None when there is none."""
        try:
            return self.tasks_path.stat().st_mtime_ns
        except OSError:
            return None

    def tasks(self, key: str) -> list[Any]:
        """What was left, when it was written by a run that knows this key; else nothing is unpickled."""
        try:
            signatures, _, content = self.tasks_path.read_bytes().partition(b"\n")
            known = json.loads(signatures)
        except (OSError, ValueError):
            return []
        if not key or not isinstance(known, list):
            return []
        own = _signature(key, content).encode()
        if not any(hmac.compare_digest(own, str(s).encode()) for s in known):
            return []
        tasks = pickle.loads(content)
        return tasks if isinstance(tasks, list) else []


def _signature(key: str, content: bytes) -> str:
    return hmac.new(key.encode(), content, hashlib.sha256).hexdigest()
