"""The last training: from the weights of active learning, from fresh weights, or between; at equal numbers of epochs.

    python benchmarks/final_training.py --folder FOLDER [--systems ethanol glycine] [--seeds 1 2] [--runs RUN …]

Each run of `benchmarks/priors.py` with active learning from random weights (64 labels, 16 channels, two members) is
made in FOLDER if it is not there; `--runs` takes folders of other runs of the first system instead. Its state at the
end of active learning is loaded, and one member is trained on all data in each of these ways:

    continued        from the present weights, with a new optimiser
    fresh            from the random weights of its seed, with energy offsets and force scale of all data
    fresh+150        the same, with a new optimiser and average after 150 epochs, from the best weights until then
    shrink_perturb   from halfway between the two (after Ash and Adams 2020, arXiv:1910.08475)

After some numbers of epochs the best weights until then, by the loss and by the force MAE of validation frames, are
measured on frames of the reference's own MD: mean error of forces (meV/Å) at the temperature of the run and on the hot
set, and the 95th percentile of the largest error of a frame. Training has no patience here, so that all arms have the
same number of epochs.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from priors import Bench

from aims_pax.dataset import Dataset, read_extxyz
from aims_pax.frames import LabelledFrame
from aims_pax.models.base import MemberData
from aims_pax.models.mace.ensemble import Ensemble
from aims_pax.record.checkpoint import Checkpoint
from aims_pax.record.folder import RunFolder
from aims_pax.settings import read_settings
from aims_pax.systems import elements

ARMS = ("continued", "fresh", "shrink_perturb", "continued+150", "fresh+150")
CRITERIA = ("loss", "force_mae")  # as convergence_criterion
N_LABELS = 64


class Explored:
    """A run at the end of active learning: its members and all its data."""

    def __init__(self, folder: Path) -> None:
        self.settings = read_settings(folder)
        snapshot = Checkpoint(RunFolder(self.settings), "explore").read()
        assert snapshot is not None, f"{folder} has no snapshot of active learning"
        self.weights = snapshot.weights
        self.seeds = [int(str(name).rsplit("_", 1)[1]) for name in self.weights["names"]]
        data = Dataset(RunFolder(self.settings).data)
        self.data = MemberData(data.union("train"), data.union("valid"))

    def untrained(self) -> Ensemble:
        return Ensemble.build(self.settings.mace, self.seeds, elements(f.frame for f in self.data.train))

    def ensemble(self, arm: str, member: int) -> Ensemble:
        """The members, one of them ready for its last training."""
        ensemble = self.untrained()
        ensemble.restore(self.weights)
        if arm in ("fresh", "shrink_perturb"):
            ensemble.begin_again(self.untrained(), [member], 0.5 if arm == "shrink_perturb" else 0.0)
        ensemble.begin_convergence([member])
        return ensemble


def errors(ensemble: Ensemble, member: int, frames: list[LabelledFrame]) -> tuple[float, int]:
    """(mean error of forces, 95th percentile of the largest error of a frame), meV/Å."""
    labels = ensemble.potential([member]).labels([f.frame for f in frames])
    each = [1000 * np.abs(a.forces - f.label.forces) for a, f in zip(labels, frames, strict=True)]
    return round(float(np.mean([e.mean() for e in each])), 1), round(
        np.quantile([e.max() for e in each], 0.95)
    )


def train(
    explored: Explored, arm: str, member: int, marks: list[int], tests: dict[str, list[LabelledFrame]]
) -> Iterator[dict[str, Any]]:
    """After each of these numbers of epochs the errors of the best weights until then, by loss and by force MAE."""
    arm, _, restart = arm.partition("+")
    ensemble, data = explored.ensemble(arm, member), {member: explored.data}
    best: dict[str, tuple[float, int, Any]] = {name: (np.inf, 0, None) for name in CRITERIA}
    began = time.process_time()
    for epoch in range(1, max(marks) + 1):
        if restart and epoch == int(restart) + 1:
            ensemble.set_inference_arrays(member, best["force_mae"][2])
            ensemble.begin_convergence([member])
        (result,) = ensemble.train(data, 1, words=("train", "converge", epoch))
        for name, error in zip(CRITERIA, (result.valid_loss, result.force_mae), strict=True):
            if error < best[name][0]:
                best[name] = error, epoch, ensemble.inference_arrays(member)
        if epoch in marks:
            present, seconds = ensemble.member_arrays(member), round(time.process_time() - began)
            for name, (error, chosen, weights) in best.items():
                ensemble.set_inference_arrays(member, weights)
                row = {
                    "epochs": epoch,
                    "CPU s": seconds,
                    "criterion": name,
                    "best epoch": chosen,
                    "there": error,
                }
                for title, frames in {**tests, "training": list(explored.data.train)}.items():
                    row[f"MAE {title}"], row[f"tail {title}"] = errors(ensemble, member, frames)
                yield row
            ensemble.load_member(member, present)
            ensemble.version += 1


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--folder", type=Path, required=True)
    words.add_argument("--systems", nargs="+", default=["ethanol", "glycine"])
    words.add_argument("--seeds", nargs="+", type=int, default=[1])
    words.add_argument("--runs", nargs="*", type=Path, default=[])
    words.add_argument("--arms", nargs="+", default=list(ARMS[:3]))
    words.add_argument("--epochs", nargs="+", type=int, default=[100, 150, 200, 300])
    words.add_argument("--member", type=int, default=0)
    given = words.parse_args()
    warnings.filterwarnings("ignore")
    for system in given.systems:
        bench = Bench(system, given.folder)
        bench.tests()
        tests = {name: list(read_extxyz(bench.folder / f"test_{name}.xyz")) for name in ("T", "hot")}
        runs = given.runs
        if not runs:
            for seed in given.seeds:
                bench.measure("scratch, active", N_LABELS, seed, survival=False)
            runs = [bench.folder_of("scratch, active", N_LABELS, seed) for seed in given.seeds]
        for run in runs:
            explored = Explored(run)
            for arm in given.arms:
                for row in train(explored, arm, given.member, given.epochs, tests):
                    print(json.dumps({"run": run.name, "arm": arm, **row}), flush=True)


if __name__ == "__main__":
    main()
