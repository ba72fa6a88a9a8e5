"""A driver that only labels, on a batch scheduler or on this machine: quick to start, easy to kill.

python -m tests.batch.driver FOLDER        FOLDER holds plan.json; it gets driver.log and result.json
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from aims_pax.engine.interrupts import InterruptMonitor
from aims_pax.errors import LabelError, RunInterrupted, SetupError
from aims_pax.frames import Frame
from aims_pax.labelling import Labeller
from aims_pax.labelling.executors.base import Executor
from aims_pax.labelling.executors.block_request import Blocks
from aims_pax.labelling.executors.parsl_blocks import BlockExecutor
from aims_pax.labelling.factory import make_executor
from aims_pax.labelling.foreign_results import wait_for_results
from aims_pax.labelling.references.fhi_aims import AimsReference, geometry_text
from aims_pax.schedulers.base import Phase
from aims_pax.schedulers.registry import known_schedulers
from aims_pax.settings.control_in import read_control
from tests import worlds

PLAN: dict[str, Any] = {
    "scheduler": None,  # its name; None: `executor` with `jobs` workers on this machine
    "executor": "threads",  # or htex
    "frames": 4,
    "seconds": 0.0,
    "fault": "none",
    "limit": 60.0,
    "header": "",
    "worker": "",
    "jobs": 2,
    "most": 1,
    "idle": 120.0,
    "launch": "",  # in front of the stand-in
    "nodes": 1,
    "mpi": False,
    "stay": 0,  # blocks that must be given back before the driver leaves
    "patience": 5.0,  # s for which a block waits for the next driver
    "walltime": None,  # s of the driver
    "walltime_from": None,  # it counts when n calculations have begun, or a text is in the log: machines are busy
    "ports": [54000, 55000],
    "cancel": False,  # a stop cancels what runs, as aims-PAX stop --cancel
}


class Driver:
    """A driver in a process of its own.

    count: one line for each calculation begun. hit, steps: what a fault fell on, and how many steps ran at once.
    """

    hit: set[str]
    steps: int

    def __init__(self, folder: Path, **plan: Any) -> None:
        self.folder = folder
        self.count = folder / "count"
        self.plan = {**PLAN, **plan}
        self.ids = {_key(f): f.id for f in frames(self.plan["frames"])}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "plan.json").write_text(json.dumps(self.plan))
        (folder / "control.in").write_text(worlds.CONTROL)
        worlds.write_species(folder / "species")
        self.start()

    def start(self) -> None:
        (self.folder / "result.json").unlink(missing_ok=True)
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.batch.driver", str(self.folder)],
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def result(self, seconds: float = 240) -> dict[str, Any]:
        """What it wrote, after its end."""
        self.process.wait(seconds)
        return json.loads((self.folder / "result.json").read_text())  # type: ignore[no-any-return]

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def begun(self) -> list[str]:
        """The frames whose calculation has begun, in order."""
        return [frame for frame, _ in self.called()]

    def called(self) -> list[tuple[str, int]]:
        """Frame and process of each call of the program."""
        lines = self.count.read_text().split("\n")[:-1] if self.count.exists() else []
        return [(self.ids[key], int(pid)) for key, pid in map(str.split, lines)]

    def working(self) -> dict[str, int]:
        """Frame → process of the worker that has claimed it."""
        found = {}
        for path in self.folder.glob("data/labels/*/*.claim"):
            with suppress(OSError, ValueError):
                found[path.stem] = json.loads(path.read_text())["pid"]
        return found

    def labels(self) -> set[str]:
        """Frames whose label is on the disk."""
        return {p.stem for p in self.folder.glob("data/labels/*/*.json") if p.name != "method.json"}

    def jobs(self) -> dict[str, Phase]:
        """The jobs of this driver that wait or run. Raises Refused when the scheduler does not answer."""
        named = known_schedulers()[self.plan["scheduler"]].jobs_named(f"{self.folder.name}.")
        return {job: found.state.phase for job, found in named.items()}

    def log(self) -> str:
        path = self.folder / "driver.log"
        return path.read_text() if path.exists() else ""


def frames(n: int) -> list[Frame]:
    return worlds.rattled(worlds.dimer("Cu", 2.5), n, seed=11)


def _key(frame: Frame) -> str:
    """By which the stand-in counts."""
    return hashlib.sha256(geometry_text(frame).encode()).hexdigest()[:20]


def main(folder: Path) -> None:
    plan = json.loads((folder / "plan.json").read_text())
    logging.basicConfig(filename=folder / "driver.log", level=logging.INFO, format="%(asctime)s %(message)s")
    watch = InterruptMonitor(None if plan["walltime_from"] else plan["walltime"])
    if plan["walltime"] and plan["walltime_from"]:
        threading.Thread(target=_count_walltime, args=(watch, plan, folder), daemon=True).start()
    if plan["cancel"]:  # by a signal here, by a file in a whole run
        watch.raise_if_signalled = lambda: None  # type: ignore[method-assign]
        signal.signal(signal.SIGTERM, lambda *_: watch.request_stop(cancel=True))
    launch = worlds.launch("emt", plan["fault"], seconds=plan["seconds"], count=folder / "count")
    reference = AimsReference(
        control=read_control(folder / "control.in"),
        species_dir=folder / "species",
        launch=f"{plan['launch']} {launch}",
        calc_dir=folder / "calc",
        time_limit=plan["limit"],
        shared=plan["jobs"] > 1 and plan["scheduler"] is not None,
    )
    result: dict[str, Any] = {"labels": {}, "failures": {}, "error": None, "times": []}
    began = time.monotonic()
    try:
        with (
            nullcontext() if plan["cancel"] else watch.listening(),
            Labeller(
                reference, folder / "data", executor_of(plan, folder), watch.raise_if_stopped
            ) as labeller,
        ):
            futures = {f.id: labeller.submit(f) for f in frames(plan["frames"])}
            for frame_id, future in futures.items():
                try:
                    (label,) = wait_for_results([future], watch.raise_if_stopped)
                    result["labels"][frame_id] = [label.energy, label.forces.tolist()]
                    result["times"].append(time.monotonic() - began)
                except LabelError as error:
                    result["failures"][frame_id] = [type(error).__name__, error.reason]
            result["calls"] = vars(labeller.calls)
            log = folder / "driver.log"
            while plan["stay"] and log.read_text().count("cancelled by aims-PAX") < plan["stay"]:
                watch.raise_if_stopped()
                time.sleep(0.5)  # for ever: whoever started us has a deadline
    except SetupError as error:
        result["error"] = str(error)
    except RunInterrupted as stop:
        logging.info("%s", stop.reason)
        sys.exit(stop.code)
    result["seconds"] = time.monotonic() - began
    (folder / "result.json").write_text(json.dumps(result))


def _count_walltime(watch: InterruptMonitor, plan: dict[str, Any], folder: Path) -> None:
    """Give the driver its walltime as soon as there is what it is meant to interrupt."""
    begins, count, log = plan["walltime_from"], folder / "count", folder / "driver.log"

    def there() -> bool:
        if isinstance(begins, str):
            return begins in log.read_text()
        return count.exists() and count.read_text().count("\n") >= begins

    while not there():
        time.sleep(0.1)
    watch.deadline = InterruptMonitor(plan["walltime"]).deadline


def executor_of(plan: dict[str, Any], folder: Path) -> Executor:
    if plan["scheduler"] is None:
        return make_executor(plan["executor"], plan["jobs"], folder / "parsl", folder)
    scheduler = known_schedulers()[plan["scheduler"]]
    blocks = Blocks(
        scheduler, plan["header"], plan["worker"], name=folder.name, jobs=plan["jobs"], most=plan["most"],
        longest=plan["limit"], idle=plan["idle"], nodes=plan["nodes"], mpi=plan["mpi"],
        patience=plan["patience"], ports=tuple(plan["ports"]),
    )  # fmt: skip
    return BlockExecutor(blocks, folder / "parsl", folder, folder / "restart")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
