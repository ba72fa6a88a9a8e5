"""What one more label costs when there are 100, 1 000 and 5 000 of them already.

    python benchmarks/label_cost.py

The cost is everything that follows from an answer of the reference: the dataset grows, the members train their
visit on it, the weights go into MD, a snapshot is written. It is taken from the stage's own environment on a real
folder, for both `replay_strategy`s, in interleaved repetitions; the reference and the MD are not in it.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import ase.build
import ase.io
import numpy as np
import yaml
from rich.console import Console

from aims_pax.commands.run import _opened
from aims_pax.core import active_learning as stage
from aims_pax.core.rules import ActiveLearningRules
from aims_pax.core.work import AddToDataset, RunTraining
from aims_pax.dataset import write_extxyz
from aims_pax.engine.candidates import Candidate
from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.settings import read_settings
from aims_pax.stages.active_learning import ActiveLearningEnvironment
from aims_pax.stages.given_sets import begin_from_data
from aims_pax.systems import deal

warnings.filterwarnings("ignore")  # e3nn and MACE speak of how they load their files

MACE = {
    "GENERAL": {"name_exp": "cost"},
    "ARCHITECTURE": {"num_channels": 16, "max_L": 1, "r_max": 4.0, "radial_MLP": [32, 32]},
}


def labelled(rng: np.random.Generator, k: int) -> LabelledFrame:
    atoms = ase.build.molecule("CH3CH2OH")
    frame = Frame.from_atoms(atoms)
    moved = frame.moved(frame.positions + 0.05 * rng.normal(size=(9, 3)), frame.cell)
    return LabelledFrame(moved, Label(float(rng.normal()), rng.normal(size=(9, 3))), {"system": "geometry"})


def folder_with(n: int, strategy: str, root: Path) -> Path:
    folder = root / f"{strategy}-{n}"
    folder.mkdir()
    rng = np.random.default_rng(1)
    write_extxyz(folder / "given.xyz", [labelled(rng, k) for k in range(n)])
    write_extxyz(folder / "valid.xyz", [labelled(rng, k) for k in range(max(n // 10, 10))])
    ase.io.write(folder / "geometry.in", ase.build.molecule("CH3CH2OH"), format="aims")
    (folder / "mace.yaml").write_text(yaml.safe_dump(MACE))
    project = {
        "REFERENCE": {"type": "calculator", "factory": "ase.calculators.emt:EMT"},
        "CLUSTER": {"type": "local", "executor": "inline"},
        "ACTIVE_LEARNING": {
            "num_trajectories": 4, "ensemble_size": 4, "max_train_set_size": 10**6,
            "initial_train_dataset": "given.xyz", "initial_valid_dataset": "valid.xyz",
            "replay_strategy": strategy,
        },
        "MD": {"stat_ensemble": "NVT", "temperature": 300},
        "MISC": {"check_given_data": 0},
    }  # fmt: skip
    (folder / "aimsPAX.yaml").write_text(yaml.safe_dump(project))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--frames", type=int, nargs="+", default=[100, 1000, 5000])
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--strategies", nargs="+", default=["random_subset", "full_dataset"])
    options = parser.parse_args()
    cells = [(s, n) for s in options.strategies for n in options.frames]
    with tempfile.TemporaryDirectory() as root:
        environments = {}
        for strategy, n in cells:
            folder = folder_with(n, strategy, Path(root))
            opened = _opened(read_settings(folder, "aimsPAX.yaml", "mace.yaml"), Console(quiet=True))
            run = opened.__enter__()
            begin_from_data(run)
            dealt = deal(run.systems, 4)
            environment = ActiveLearningEnvironment(run, dealt)
            environment.rules = ActiveLearningRules.read(run.settings.active_learning, 4, 1)
            state = stage.begin(tuple(s.name for s in dealt), environment.rules, n, {"geometry": 10})
            environments[strategy, n] = opened, environment, state
        rng, seconds = np.random.default_rng(2), {cell: [] for cell in cells}
        for repetition in range(-1, options.repetitions):  # the first builds graphs and statistics
            for cell in cells:
                if cell[0] == "full_dataset" and cell[1] > 1000 and repetition > 0:
                    continue  # minutes each; two are enough
                _, environment, state = environments[cell]
                new = labelled(rng, repetition)
                began = time.perf_counter()
                environment.add_candidate(Candidate(new.frame, new.origin, label=new.label))
                environment.apply(AddToDataset(new.id, "train"))
                environment.train(RunTraining(repetition + 1, 1), lambda: False)
                environment.run.ensemble.potential()
                environment.commit(state)
                if repetition >= 0:
                    seconds[cell].append(time.perf_counter() - began)
        for opened, _, _ in environments.values():
            opened.__exit__(None, None, None)
    print(f"{'frames':>8} " + " ".join(f"{s:>16}" for s in options.strategies) + "   seconds a label, median")
    for n in options.frames:
        print(f"{n:8d} " + " ".join(f"{statistics.median(seconds[s, n]):16.2f}" for s in options.strategies))
    for s in options.strategies:
        first, last = (statistics.median(seconds[s, n]) for n in (options.frames[0], options.frames[-1]))
        print(f"{s}: {options.frames[-1]} frames against {options.frames[0]}: {last / first:.2f}")


if __name__ == "__main__":
    main()
