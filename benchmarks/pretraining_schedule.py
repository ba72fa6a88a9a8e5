"""The learning rate of pre-training: constant, as it is, or falling linearly to zero over the epochs.

    python benchmarks/pretraining_schedule.py RUN [--arms constant:0.02:50 to_zero:0.03:50] [--seeds 903 184]

RUN is the folder of a finished run with PRETRAINING (the quickstart's). A member of its architecture is trained on its
free labels from fresh weights (an arm is HOW:LR:EPOCHS) and then, from the best of these weights, for 90 epochs on the
paid labels that the run ended with; the epoch is chosen on the paid validation frames. Errors are those of forces
(meV/Å): on the free validation frames, and on 60 frames of dynamics of the reference.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from priors import dynamics, labelled

from aims_pax.core.pretraining import is_validation
from aims_pax.dataset import Dataset, read_extxyz
from aims_pax.frames import Frame
from aims_pax.models.base import MemberData
from aims_pax.models.mace.ensemble import Ensemble
from aims_pax.record.folder import RunFolder
from aims_pax.settings import Settings, read_settings
from aims_pax.settings.geometries import read_geometries
from aims_pax.settings.pretraining import LR_AFTER

N_TEST, EVERY, SEED, EPOCHS = 60, 40, 7, 90


def test_frames(settings: Settings) -> tuple[list[Frame], list[np.ndarray]]:
    """(frames, their forces in eV/Å) of dynamics with the reference at the temperature of MD."""
    (system,), asked = read_geometries(settings), settings.reference
    spec = {"factory": asked.factory, "kwargs": dict(asked.kwargs)}
    atoms = dynamics(
        system.frame.to_atoms(), spec, float(settings.md.temperature), N_TEST, EVERY, settings.md.timestep, SEED
    )  # fmt: skip
    found = labelled(atoms, spec)
    return [system.frame.moved(a.positions) for a in found], [a.arrays["REF_forces"] for a in found]


def force_mae(ensemble: Ensemble, frames: Sequence[Frame], forces: Sequence[np.ndarray]) -> float:
    """meV/Å, of the first member."""
    labels = ensemble.potential([0]).labels(frames)
    return 1000 * float(np.mean([np.abs(a.forces - f).mean() for a, f in zip(labels, forces, strict=True)]))


def train(
    ensemble: Ensemble, data: MemberData, epochs: int, lr: Callable[[int], float] | None = None
) -> float:
    """Train, end with the best weights, and return their force MAE on the validation frames. lr: of each epoch."""
    best, weights = np.inf, ensemble.inference_arrays(0)
    for k in range(epochs):
        if lr is not None:
            ensemble.members[0].schedule.lr = lr(k)
        (result,) = ensemble.train({0: data}, 1, words=("train", k), schedule=lr is None)
        if result.force_mae < best:
            best, weights = result.force_mae, ensemble.inference_arrays(0)
    ensemble.set_inference_arrays(0, weights)
    return 1000 * best


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("run", type=Path)
    words.add_argument("--arms", nargs="+", default=["constant:0.02:50", "to_zero:0.03:50"])
    words.add_argument("--seeds", nargs="+", type=int, default=[903, 184])
    given = words.parse_args()
    warnings.filterwarnings("ignore")
    settings = read_settings(given.run)
    assert settings.pretraining is not None
    dataset = Dataset(RunFolder(settings).data)
    made = list(read_extxyz(RunFolder(settings).data / "pretraining" / "labelled.xyz"))
    valid = [is_validation(k, settings.pretraining.valid_ratio) for k in range(len(made))]
    free = MemberData(
        [f for f, aside in zip(made, valid, strict=True) if not aside],
        [f for f, aside in zip(made, valid, strict=True) if aside],
    )
    paid = MemberData(dataset.union("train"), dataset.union("valid"))
    elements = sorted({int(z) for f in made for z in f.frame.numbers})
    tests = test_frames(settings)
    for seed in given.seeds:
        for arm in given.arms:
            how, lr, epochs = arm.split(":")
            first, n = float(lr), int(epochs)
            began = time.process_time()
            before = Ensemble.build(settings.with_training(lr=first).mace, [seed], elements)
            falling = (lambda k, first=first, n=n: first * (1 - k / n)) if how == "to_zero" else None
            row = {"arm": arm, "seed": seed, "free": round(train(before, free, n, falling), 1)}
            row["CPU s"] = round(time.process_time() - began)
            ensemble = Ensemble.build(settings.with_training(lr=LR_AFTER).mace, [seed], elements)
            ensemble.begin_from(before)
            ensemble.begin_convergence([0])
            row["paid"] = round(train(ensemble, paid, EPOCHS), 1)
            print(json.dumps({**row, "reference": round(force_mae(ensemble, *tests), 1)}), flush=True)


if __name__ == "__main__":
    main()
