"""Δ-learning against learning from scratch, with the same labels: ethanol, reference GFN2-xTB, baseline GFN1-xTB.

    python benchmarks/delta_learning.py [--seeds 1 2] [--labels 10 20] [--epochs 1000]

Frames are drawn from 500 K dynamics of the baseline, which is free; a fifth of them, at least two, are for validation
and count as labels. Both contestants are `aims-PAX-al` with the settings that `aims-PAX init delta` writes (two members
of 16 channels), learn from the same files and differ in REFERENCE.baseline only. Force MAE of the delivered model on
100 unseen frames of the reference's own dynamics at 500 K and 900 K. Last: the cost of the baseline per MD step.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from ase import units
from ase.build import molecule
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from tblite.ase import TBLite

import aims_pax
from aims_pax.commands.init import starter_files
from aims_pax.frames import Frame, LabelledFrame
from aims_pax.md import advance
from aims_pax.md.state import MDState
from aims_pax.models.kinds import kind_of_file
from aims_pax.potential import calculate
from aims_pax.settings.md import MDSettings

REFERENCE = {"method": "GFN2-xTB", "accuracy": 0.01, "verbosity": 0}
BASELINE = {"method": "GFN1-xTB", "verbosity": 0}
COMMAND = "import sys; sys.argv = ['aims-PAX-al']; from aims_pax.cli import main_al; main_al()"


def dynamics(kwargs: dict[str, Any], temperature: float, n: int, seed: int, every: int = 40) -> list[Frame]:
    """Frames of Langevin dynamics, after 1 ps."""
    rng, atoms = np.random.default_rng(seed), molecule("CH3CH2OH")
    atoms.calc = TBLite(**kwargs)
    MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=rng)
    moving = Langevin(
        atoms, 0.5 * units.fs, temperature_K=temperature, friction=0.01 / units.fs, rng=rng, fixcm=False
    )
    moving.run(2000)
    frames = []
    for _ in range(n):
        moving.run(every)
        frames.append(Frame(atoms.numbers, atoms.positions))
    return frames


def labelled(frames: list[Frame]) -> list[LabelledFrame]:
    return [LabelledFrame(f, calculate(f, TBLite(**REFERENCE))) for f in frames]


def contestant(folder: Path, frames: list[LabelledFrame], baseline: bool, seed: int, epochs: int) -> Path:
    """Train on these frames as a user does; returns the delivered model."""
    for name, text in starter_files("delta").items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    project = yaml.safe_load((folder / "aimsPAX.yaml").read_text())
    mace = yaml.safe_load((folder / "mace.yaml").read_text())
    if not baseline:
        del project["REFERENCE"]["baseline"]
    del project["INITIAL_DATASET_GENERATION"]
    project["ACTIVE_LEARNING"] |= {
        "initial_train_dataset": "train.xyz", "initial_valid_dataset": "valid.xyz", "num_trajectories": 1,
        "max_MD_steps": 20, "n_test": 0, "max_convergence_epochs": epochs, "convergence_patience": epochs // 4,
    }  # fmt: skip
    project["MISC"] |= {"check_given_data": 0, "report": False}
    project["CLUSTER"] |= {"executor": "inline"}
    mace["GENERAL"]["seed"] = seed
    (folder / "aimsPAX.yaml").write_text(yaml.safe_dump(project))
    (folder / "mace.yaml").write_text(yaml.safe_dump(mace))
    n_valid = max(2, len(frames) // 5)
    aims_pax.write_extxyz(folder / "train.xyz", frames[n_valid:])
    aims_pax.write_extxyz(folder / "valid.xyz", frames[:n_valid])
    done = subprocess.run([sys.executable, "-c", COMMAND], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (folder / "results").glob("*.model")
    return path


def error(model: Path, test: list[LabelledFrame]) -> float:
    """Force MAE, meV/Å."""
    calculator = aims_pax.calculator(model)
    said = [calculate(f.frame, calculator).forces for f in test]
    return 1000 * float(np.mean([np.abs(s - f.label.forces).mean() for s, f in zip(said, test, strict=True)]))


def cost(delta: Path, plain: Path, frame: Frame, n: int = 4, steps: int = 50) -> tuple[float, float]:
    """Milliseconds per trajectory and MD step of one model, with and without the baseline."""
    md = [
        MDSettings(stat_ensemble="NVT", thermostat="Langevin", temperature=500, friction=0.01, timestep=0.5)
    ] * n
    found = []
    for path in (delta, plain):
        potential = kind_of_file(path).load_fast([path], "cpu", None, "auto")
        states = [MDState.start(frame, 500.0, k) for k in range(n)]
        advance(states, potential, 5, md)
        rounds = []
        for _ in range(5):
            began = time.perf_counter()
            advance(states, potential, steps, md)
            rounds.append(1000 * (time.perf_counter() - began) / n / steps)
        found.append(statistics.median(rounds))
    return found[0], found[1]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--labels", type=int, nargs="+", default=[10, 20])
    parser.add_argument("--epochs", type=int, default=1000)
    given = parser.parse_args()
    tests = {T: labelled(dynamics(REFERENCE, T, 100, 99)) for T in (500, 900)}
    for T, frames in tests.items():
        off = [np.abs(calculate(f.frame, TBLite(**BASELINE)).forces - f.label.forces).mean() for f in frames]
        print(f"{T} K: the baseline alone differs by {1000 * np.mean(off):.1f} meV/Å", flush=True)
    print("| labels | seed | | 500 K | 900 K | s |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as top:
        made: dict[bool, Path] = {}
        for seed in given.seeds:
            pool = labelled(dynamics(BASELINE, 500, max(given.labels), seed))
            order = np.random.default_rng(seed).permutation(len(pool))
            for n in given.labels:
                for baseline in (False, True):
                    began = time.perf_counter()
                    folder = Path(top) / f"{seed}-{n}-{baseline}"
                    made[baseline] = contestant(
                        folder, [pool[k] for k in order[:n]], baseline, seed, given.epochs
                    )
                    took = time.perf_counter() - began
                    errors = [f"{error(made[baseline], frames):.1f}" for frames in tests.values()]
                    who = "Δ on GFN1" if baseline else "from scratch"
                    print(f"| {n} | {seed} | {who} | {' | '.join(errors)} | {took:.0f} |", flush=True)
        both, alone = cost(made[True], made[False], tests[500][0].frame)
    print(
        f"MD of four trajectories, one model: {both:.2f} ms per trajectory and step, without baseline {alone:.2f} ms"
    )


if __name__ == "__main__":
    main()
