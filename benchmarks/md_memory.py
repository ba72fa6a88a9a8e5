"""Memory of molecular dynamics against its limit: 100 trajectories of a 500-atom crystal on one CPU.

    python benchmarks/md_memory.py [--trajectories 100] [--few 8] [--limit 1.0] [--channels 16]

Each row is a process of its own. `limit` is what the evaluations may take (MISC.memory_limit), `peak` what the process
took beyond the models it had loaded, by the kernel's count (VmHWM). Without a limit few trajectories are moved: they
fit, and time and forces are compared there. 2 members, random weights, r_max 5 Å, float32, one thread.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import ctypes
import itertools
import json
import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

A = 4.0  # Å, argon: 42 neighbours each


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trajectories", type=int, default=100)
    parser.add_argument("--few", type=int, default=8, help="as many as fit without a limit")
    parser.add_argument("--limit", type=float, default=1.0, help="GB")
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=5, help="cubic cells along each axis, four atoms each")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.row:
        print(json.dumps(row(args, **json.loads(args.row))))
        return
    print(
        "| evaluated by | trajectories | limit (GB) | peak (GB) | s/step and trajectory | force difference (eV/Å) |"
    )
    print("|---|---|---|---|---|---|")
    for inference in ("torch", "native"):
        reference = None
        for n, limit in ((args.few, math.inf), (args.few, args.limit), (args.trajectories, args.limit)):
            found = other_process(args, inference=inference, n=n, limit=limit)
            reference = reference or found["forces"]
            difference = np.abs(np.subtract(found["forces"], reference)).max()
            print(
                f"| {inference} | {n} | {'none' if math.isinf(limit) else limit} | {found['peak']:.2f} | "
                f"{found['seconds']:.3f} | {difference:.0e} |",
                flush=True,
            )


def other_process(args: argparse.Namespace, **asked: object) -> dict:
    own = [sys.executable, __file__, "--channels", str(args.channels), "--steps", str(args.steps)]
    own += ["--repeat", str(args.repeat)]
    done = subprocess.run([*own, "--row", json.dumps(asked)], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def row(args: argparse.Namespace, inference: str, n: int, limit: float) -> dict:
    from aims_pax.md import MDState, advance
    from aims_pax.models import memory_budget
    from aims_pax.settings.md import MDSettings

    built = ensemble(args.channels, inference)
    potential = built.potential()
    md = MDSettings(stat_ensemble="NVT", thermostat="Langevin", temperature=80.0, timestep=2.0, friction=0.01)
    potential.labels([crystal(2, 0)])  # loads what has to be loaded
    states = [MDState.start(crystal(args.repeat, k), 80.0, k) for k in range(n)]
    memory_budget.allow(limit * memory_budget.GB, written=True)
    before = clear_peak()
    began = time.perf_counter()
    moved = advance(states, potential, args.steps, [md] * n)
    seconds = time.perf_counter() - began
    forces = moved[0].evaluation.forces[0][:20].ravel().tolist()
    return {
        "peak": (status("VmHWM") - before) / memory_budget.GB,
        "seconds": seconds / args.steps / n,
        "forces": forces,
    }


def ensemble(channels: int, inference: str):
    from aims_pax.models.mace import Ensemble
    from aims_pax.models.mace.statistics import Statistics
    from aims_pax.settings.mace import (
        ArchitectureSettings,
        GeneralSettings,
        MaceMiscSettings,
        MaceSettings,
        TrainingSettings,
    )

    settings = MaceSettings(
        general=GeneralSettings(name_exp="memory"),
        architecture=ArchitectureSettings(num_channels=channels, max_L=0, r_max=5.0),
        training=TrainingSettings(),
        misc=MaceMiscSettings(inference=inference),
    )
    built = Ensemble.build(settings, (1, 2), (18,))
    for member in built.members:
        member.freeze(Statistics(np.array([-14.0]), 42.0, 1.0, 0.0, "given", 1))
    return built


def crystal(repeat: int, seed: int):
    from aims_pax.frames import Frame

    base = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    cells = np.array(list(itertools.product(range(repeat), repeat=3)))
    positions = (base[None] + cells[:, None]).reshape(-1, 3) * A
    positions = positions + np.random.default_rng(seed).normal(0, 0.05, positions.shape)
    return Frame([18] * len(positions), positions, np.eye(3) * A * repeat, True)


def clear_peak() -> float:
    """Bytes this process has now; its peak counts from here."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


if __name__ == "__main__":
    main()
