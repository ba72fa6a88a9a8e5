"""Which structures to label: active learning against random frames, at equal total labels.

    python benchmarks/label_efficiency.py --folder FOLDER [--systems …] [--seeds 1 2 3] [--rules …] [--labels 64]

Each rule is a run of `aims-PAX` in a folder of its own, with two members of 16 channels, and is
measured by the file that it delivers. Labels are all labels of the reference: those of the initial dataset, training,
validation. Systems, references and test frames are those of `priors.py`, and

    glycol    ethylene glycol, GFN1-xTB, 500 K, hot set 900 K: rotations about three bonds, hydrogen bonds
    ammonia   the cubic crystal of ammonia, 4 molecules in a periodic cell, GFN1-xTB, 150 K, hot set 300 K

Rules: `random` (frames of the cheap potential's MD but for two; it trains in the same stages as the others), `own`
(frames of the models' own MD, not chosen by uncertainty), `seed` (the rule of arXiv:2508.12888 with all that came
later switched off, and five eighths of the labels in the initial dataset, without which it fails), `default` (the
defaults of the package), and the defaults with one part changed: `crossing`, `spread`, `geometry` (trajectories begin
at the geometry), `unlimited` (no limit of energy and spread), `at once` (no training before exploration), `fresh`
(delivered models trained from fresh weights), `own sets` (each member has initial structures of its own, half as many
for the same labels; the others have one set, `distinct_model_sets: false`), `mean` and `member` (the force that moves
the trajectories).
Errors are forces in meV/Å: mean at the temperature of the run, 95th percentile of the largest error of a frame, both
again on the hot set. Runs that are in FOLDER already are not repeated.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import priors
from ase import Atoms
from ase.spacegroup import crystal

ACTIVE = ", active"  # its labels are counted in the folder
EPOCHS = {"max_convergence_epochs": 250, "convergence_patience": 50}  # those of benchmarks/ethanol
RULES: dict[str, dict[str, Any]] = {
    "random": {},
    "own": {"selection": "random", "c_x": -1.0},
    "seed": {
        "acquisition": "crossing", "start_structures": "geometry", "energy_limit": float("inf"),
        "spread_limit": float("inf"), "epochs_before_exploration": 0,
    },
    "default": {},
    "crossing": {"acquisition": "crossing"},
    "spread": {"selection": "spread"},
    "geometry": {"start_structures": "geometry"},
    "unlimited": {"energy_limit": float("inf"), "spread_limit": float("inf")},
    "at once": {"epochs_before_exploration": 0},
    "fresh": {"final_training": "fresh"},
    "own sets": {},
    "mean": {"md_force": "mean"},
    "member": {"md_force": "member"},
}  # fmt: skip


def glycol() -> Atoms:
    """Roughly; it is relaxed before use."""
    places = [
        (0.69, 0.32, 0.05), (-0.69, -0.32, -0.05), (1.65, -0.69, 0.26), (-1.65, 0.69, -0.26), (0.92, 0.88, -0.86),
        (0.71, 1.01, 0.90), (-0.92, -0.88, 0.86), (-0.71, -1.01, -0.90), (2.52, -0.27, 0.31), (-2.52, 0.27, -0.31),
    ]  # fmt: skip
    return Atoms("C2O2H6", places)


def ammonia() -> Atoms:
    """Solid ammonia I, P2₁3, a = 5.13 Å (Boese et al., J. Phys. Chem. B 101, 5794 (1997))."""
    return crystal(
        ["N", "H"],
        [(0.2107,) * 3, (0.3689, 0.2671, 0.1159)],
        spacegroup=198,
        cellpar=[5.13, 5.13, 5.13, 90, 90, 90],
    )


priors.SYSTEMS |= {
    "glycol": priors.Benchmark(
        glycol, priors.small_molecules, 500, 900, priors.xtb("GFN1-xTB"), priors.xtb("GFN2-xTB")
    ),
    "ammonia": priors.Benchmark(
        ammonia,
        priors.small_molecules,
        150,
        300,
        priors.xtb("GFN1-xTB"),
        priors.xtb("GFN1-xTB"),
        tests=(40, 50, 400),
    ),
}


class Efficiency(priors.Bench):
    """The runs of one system; the rule instead of what a run begins from."""

    def project(self, mine: Path, rule: str, n: int, seed: int) -> str:
        rule = rule.removesuffix(ACTIVE)
        settings, mace = self.settings(seed), self.mace(seed)
        distinct = rule in ("seed", "own sets")
        first = n - 2 if rule == "random" else 5 * n // 8 if rule == "seed" else n // 3  # initial labels
        settings["INITIAL_DATASET_GENERATION"] = {
            "initial_sampling": "calculator",
            "initial_calculator": self.system.cheap,
            "ensemble_size": 2,
            "skip_step_initial": 100,
            "n_points_per_sampling_step_idg": first // 2 // (2 if distinct else 1),
            "distinct_model_sets": distinct,
            "intermediate_epochs_idg": 10,
            "max_initial_epochs": 20,
        }
        calls = 2 * (first // 2 // (2 if distinct else 1)) * (2 if distinct else 1)
        settings["ACTIVE_LEARNING"] |= {"max_labels": n - calls, **EPOCHS, **RULES[rule]}
        settings["ACTIVE_LEARNING"].pop("max_train_set_size", None)
        priors.write(mine, settings, mace, {"start.xyz": [self.start()]})
        return "aims-PAX"

    def folder_of(self, arm: str, n: int, seed: int) -> Path:
        return self.folder / f"rule_{arm.replace(' ', '_')}_{n}_{seed}"


priors.ARMS |= {rule + ACTIVE: ("nothing", ()) for rule in RULES}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--systems", nargs="+", default=["ethanol", "glycol", "copper", "ammonia"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--rules", nargs="+", default=list(RULES), choices=list(RULES))
    parser.add_argument("--labels", type=int, nargs="+", default=[64])
    parser.add_argument("--folder", type=Path, required=True, help="where the runs are kept")
    parser.add_argument("--survival", action="store_true", help="also 4 × 10 ps of MD at 1.5 × T")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    rows: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for name in given.systems:
        bench = Efficiency(name, given.folder.absolute())
        for seed in given.seeds:
            for rule in given.rules:
                for n in given.labels:
                    found = bench.measure(rule + ACTIVE, n, seed, given.survival)
                    rows.setdefault((name, rule, n), []).append(found)
                    print(f"{name} · {rule} · {n} labels · seed {seed}: {found}", flush=True)
    table(rows)


def table(rows: dict[tuple[str, str, int], list[dict[str, Any]]]) -> None:
    """Medians over the seeds, and the ratio to random frames, median of the seeds' ratios."""
    keys = ("MAE T", "tail T", "MAE hot", "tail hot", "labels", "seconds")
    print(
        "| system | rule | labels | "
        + " | ".join(keys)
        + " | over random: MAE T, tail T, MAE hot, tail hot |"
    )
    print("|---" * (4 + len(keys)) + "|")
    for (name, rule, n), each in rows.items():
        middle = [f"{np.median([f.get(k, np.nan) for f in each]):g}" for k in keys]
        base = rows.get((name, "random", n), [])
        ratios = [
            f"{np.median([a[k] / b[k] for a, b in zip(each, base, strict=False)]):.2f}" if base else ""
            for k in keys[:4]
        ]
        print(f"| {name} | {rule} | {n} | " + " | ".join(middle) + " | " + ", ".join(ratios) + " |")


if __name__ == "__main__":
    main()
