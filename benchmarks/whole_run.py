"""A whole run of ethanol: wall and processor seconds with this package and with an older one.

    python benchmarks/whole_run.py [--channels 128] [--against CHECKOUT] [--rounds 3] [--train 30]

`aims-PAX` in a new folder: two members, two trajectories, 20 epochs of the initial dataset, active learning until
there are --train training structures, no convergence; GFN1-xTB labels (15 ms), GFN2-xTB makes the first structures.
The models have --channels channels (128 is the default of mace.yaml) and else the defaults of mace.yaml. With
--against, the package in another checkout does the same in turn. Processor time is that of all processes of the run.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
ETHANOL = ROOT / "benchmarks" / "ethanol"


def xtb(method: str) -> dict[str, Any]:
    return {"factory": "tblite.ase:TBLite", "kwargs": {"method": method, "accuracy": 0.01, "verbosity": 0}}


def write(folder: Path, channels: int, train: int) -> None:
    """The folder of a run."""
    settings = yaml.safe_load((ETHANOL / "aimsPAX.yaml").read_text())
    settings["REFERENCE"] = {"type": "calculator", **xtb("GFN1-xTB")}
    settings["INITIAL_DATASET_GENERATION"] |= {
        "initial_sampling": "calculator",
        "initial_calculator": xtb("GFN2-xTB"),
        "n_points_per_sampling_step_idg": 5,
        "max_initial_epochs": 20,
    }
    settings["ACTIVE_LEARNING"] = {
        "num_trajectories": 2, "ensemble_size": 2, "skip_step_mlff": 20, "c_x": 0.1, "epochs_per_worker": 2,
        "max_train_set_size": train, "converge_al": False, "converge_best": False,
    }  # fmt: skip
    settings["MISC"] |= {"report": False}
    mace = {
        "GENERAL": {"name_exp": "ethanol", "seed": 42},
        "ARCHITECTURE": {"num_channels": channels},
        "TRAINING": {"batch_size": 5},
    }
    folder.mkdir(parents=True)
    (folder / "aimsPAX.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    (folder / "mace.yaml").write_text(yaml.safe_dump(mace, sort_keys=False))
    shutil.copy(ETHANOL / "geometry.in", folder)


def run(folder: Path, package: Path) -> dict[str, float]:
    """Seconds and labels of one run with the package in this checkout."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    with open(folder / "out.log", "w") as out:
        done = subprocess.run(
            [sys.executable, "-c", "from aims_pax.cli import main; main()"],
            cwd=folder, stdout=out, stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{folder}: {(folder / 'out.log').read_text()[-800:]}")
    labels = [p for p in folder.glob("data/labels/*/*.json") if p.name != "method.json"]
    return {
        "wall": wall,
        "cpu": after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime,
        "labels": float(len(labels)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--channels", type=int, default=128)
    parser.add_argument("--train", type=int, default=30)
    parser.add_argument("--against", type=Path, help="another checkout of this package")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    packages = {"this": ROOT} | ({"other": options.against.absolute()} if options.against else {})
    found: dict[str, list[dict[str, float]]] = {name: [] for name in packages}
    with tempfile.TemporaryDirectory() as scratch:
        for k in range(options.rounds):
            for name, package in packages.items():
                folder = Path(scratch) / f"{name}_{k}"
                write(folder, options.channels, options.train)
                found[name].append(run(folder, package))
                print(f"{datetime.now():%H:%M:%S} {name}: {found[name][-1]}", flush=True)
    for name, rounds in found.items():
        middle = {key: statistics.median(r[key] for r in rounds) for key in ("wall", "cpu", "labels")}
        print(
            f"{name}: {middle['wall']:.0f} s wall, {middle['cpu']:.0f} s processor, {middle['labels']:.0f} labels"
        )


if __name__ == "__main__":
    main()
