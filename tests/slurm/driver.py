"""A driver that only labels: quick to start, easy to kill.

python -m tests.slurm.driver FOLDER        FOLDER holds plan.json; it gets driver.log and result.json
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

from aims_pax.errors import LabelError, SetupError
from aims_pax.frames import Frame
from aims_pax.labelling import Labeller
from aims_pax.labelling.aims import AimsReference
from aims_pax.labelling.blocks import Blocks
from aims_pax.labelling.slurm_executor import SlurmExecutor
from aims_pax.settings.control import read_control
from tests import worlds

HEADER = "#SBATCH --time=10 --ntasks=2 --mem=400\n#SBATCH --exclude=dev4\n"
PLAN: dict[str, Any] = {
    "frames": 4,
    "seconds": 0.0,
    "fault": "none",
    "limit": 60.0,
    "header": HEADER,
    "worker": "",
    "jobs": 2,
    "most": 1,
    "idle": 120.0,
    "launch": "srun --ntasks=1",
    "nodes": 1,
    "mpi": False,
    "stay": 0.0,  # s to wait, open and idle, after the last label
}


class Driver:
    """A driver in a process of its own. count: one line for each calculation begun."""

    def __init__(self, folder: Path, **plan: Any) -> None:
        self.folder = folder
        self.count = folder / "count"
        self.plan = {**PLAN, **plan}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "plan.json").write_text(json.dumps(self.plan))
        (folder / "control.in").write_text(worlds.CONTROL)
        worlds.write_species(folder / "species")
        self.start()

    def start(self) -> None:
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.slurm.driver", str(self.folder)],
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
        """The calculations begun, by a hash of their geometry."""
        if not self.count.exists():
            return []
        return [line.split()[0] for line in self.count.read_text().splitlines()]

    def jobs(self, cluster: Any) -> dict[str, str]:
        """The Slurm jobs of this driver that wait or run."""
        lines = cluster.run("squeue", "--noheader", "--format=%A %T %j").splitlines()
        return {w[0]: w[1] for w in map(str.split, lines) if w[2].startswith(f"{self.folder.name}.")}

    def log(self) -> str:
        path = self.folder / "driver.log"
        return path.read_text() if path.exists() else ""


def frames(n: int) -> list[Frame]:
    return worlds.rattled(worlds.dimer("Cu", 2.5), n, seed=11)


def main(folder: Path) -> None:
    plan = json.loads((folder / "plan.json").read_text())
    logging.basicConfig(filename=folder / "driver.log", level=logging.INFO, format="%(asctime)s %(message)s")
    for kind in (signal.SIGTERM, signal.SIGINT):
        signal.signal(kind, lambda number, _: sys.exit(128 + number))
    launch = worlds.launch("emt", plan["fault"], seconds=plan["seconds"], count=folder / "count")
    reference = AimsReference(
        control=read_control(folder / "control.in"),
        species_dir=folder / "species",
        launch=f"{plan['launch']} {launch}",
        calc_dir=folder / "calc",
        time_limit=plan["limit"],
        shared=plan["jobs"] > 1,
    )
    blocks = Blocks(
        plan["header"], plan["worker"], name=folder.name, jobs=plan["jobs"], most=plan["most"],
        longest=plan["limit"], idle=plan["idle"], nodes=plan["nodes"], mpi=plan["mpi"],
    )  # fmt: skip
    result: dict[str, Any] = {"labels": {}, "failures": {}, "error": None, "times": []}
    began = time.monotonic()
    try:
        with Labeller(
            reference, folder / "data", SlurmExecutor(blocks, folder / "parsl", folder)
        ) as labeller:
            futures = {f.id: labeller.submit(f) for f in frames(plan["frames"])}
            for frame_id, future in futures.items():
                try:
                    label = future.result()
                    result["labels"][frame_id] = [label.energy, label.forces.tolist()]
                    result["times"].append(time.monotonic() - began)
                except LabelError as error:
                    result["failures"][frame_id] = [type(error).__name__, error.reason]
            result["calls"] = vars(labeller.calls)
            time.sleep(plan["stay"])
    except SetupError as error:
        result["error"] = str(error)
    except CancelledError:
        result["error"] = "cancelled"
    result["seconds"] = time.monotonic() - began
    (folder / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
