"""The files by which a driver, its blocks and the next driver find each other, in the run's locked folder.

    runs.json      what each run may have left running: the token in its jobs' names, its folder, its interchange
    driver.json    for blocks that start: how to reach the current driver; renewed while it runs
    tasks          labels still requested when the last driver was stopped by the scheduler or the walltime

A block reads them when it starts, and again when its driver has ended, so that it can work for the driver that runs
then. Tasks are unpickled only when they are signed with the key that the block was submitted with.
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
STALE_AFTER = 120.0  # s without renewal (by the file system's clock) after which a driver counts as ended
KEY = "AIMS_PAX_TASKS_KEY"  # in the environment of a block


@dataclass(frozen=True)
class Driver:
    """The content of driver.json. pools: arguments of `parsl_pool` for each block name.

    free: seconds at the end of a block's walltime in which no calculation may begin.
    """

    token: str
    pools: Mapping[str, Sequence[str]]
    free: float


class Handover:
    """The handover files in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.driver_path = self.folder / "driver.json"
        self.runs_path = self.folder / "runs.json"
        self.tasks_path = self.folder / "tasks"
        self._renewed = 0.0

    def probe(self, name: str) -> Path:
        """A file that a block touches to read the file system's clock."""
        return self.folder / f".block.{name}"

    def clear(self) -> None:
        """Remove driver.json, tasks and the blocks' probe files."""
        self.forget_driver()
        self.forget_tasks()
        for probe in self.folder.glob(".block.*"):
            probe.unlink(missing_ok=True)

    # ------------------------------------------------------------ runs

    def runs(self) -> list[dict[str, Any]]:
        """What earlier runs of this folder may have left running; [] when there is no readable file."""
        try:
            runs = json.loads(self.runs_path.read_text())
            known = [r for r in runs if isinstance(r, dict) and isinstance(r.get("token"), str)]
        except (OSError, ValueError, TypeError):
            return []
        return [r for r in known if not self._copied(r)]

    def _copied(self, run: Mapping[str, Any]) -> bool:
        """Whether this folder is a copy of that of the run, whose jobs work for the original and must stay.

        Not by path: one folder may be mounted at several. After a move there is no original.
        """
        try:
            original = Path(run["folder"]) / self.runs_path.name
            if original.stat().st_ino == self.runs_path.stat().st_ino:
                return False
            return any(r["token"] == run["token"] for r in json.loads(original.read_text()))
        except (OSError, ValueError, TypeError, KeyError):
            return False

    def write_runs(self, runs: Sequence[Mapping[str, Any]]) -> None:
        """Raises SetupError."""
        if runs:
            write_text(self.runs_path, json.dumps(list(runs)))
            self.runs_path.chmod(0o600)  # it holds the keys
        else:
            self.runs_path.unlink(missing_ok=True)

    # ------------------------------------------------------------ the current driver

    def write_driver(self, driver: Driver) -> None:
        """Raises SetupError."""
        said = {
            "token": driver.token,
            "pools": {k: list(v) for k, v in driver.pools.items()},
            "free": driver.free,
        }
        write_text(self.driver_path, json.dumps(said))

    def renew(self) -> None:
        """Renew the time stamp of driver.json if the last renewal is old enough."""
        if time.monotonic() - self._renewed > RENEW_EVERY:
            self._renewed = time.monotonic()
            with suppress(OSError):  # no driver.json yet, or the file server did not respond
                os.utime(self.driver_path)

    def forget_driver(self) -> None:
        """Remove driver.json: from now on blocks do not connect to this driver."""
        self.driver_path.unlink(missing_ok=True)

    def driver(self, probe: Path) -> Driver | None:
        """The running driver, or None. probe: a file in that folder, for the file system's clock."""
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
        """Write tasks that blocks compute while no driver runs. keys: of the runs whose blocks may."""
        self.forget_tasks()
        if not tasks:
            return
        content = pickle.dumps(list(tasks))
        signatures = json.dumps([_signature(key, content) for key in keys])
        write_bytes(self.tasks_path, signatures.encode() + b"\n" + content)

    def forget_tasks(self) -> None:
        self.tasks_path.unlink(missing_ok=True)

    def stamp(self) -> int | None:
        """The time stamp of the task list; None when there is none."""
        try:
            return self.tasks_path.stat().st_mtime_ns
        except OSError:
            return None

    def tasks(self, key: str) -> list[Any]:
        """The tasks, if they are signed with this key; else [], and nothing is unpickled."""
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
