"""The learning rate of pre-training: constant, or falling linearly to zero over the epochs.

    python benchmarks/pretraining_schedule.py RUN [--arms constant:0.02:50 to_zero:0.03:30] [--seeds 903 184]

RUN is the folder of a run with PRETRAINING by an ASE calculator (the quickstart's, once its free labels are made). A
member of its architecture is trained on its free labels from fresh weights; an arm is HOW:LR:EPOCHS. Errors are those
of forces (meV/Å) on the free validation frames and on 60 frames of other dynamics of the same potential.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from priors import dynamics, labelled

from aims_pax.core.pretraining import is_validation
from aims_pax.core.rules import ConvergeRules
from aims_pax.dataset import read_extxyz
from aims_pax.frames import Frame, LabelledFrame
from aims_pax.models.base import MemberData
from aims_pax.models.mace.ensemble import Ensemble
from aims_pax.settings import Settings, read_settings
from aims_pax.settings.geometries import read_geometries
from aims_pax.systems import elements

N_TEST, EVERY, SEED = 60, 40, 7


def test_frames(settings: Settings) -> tuple[list[Frame], list[np.ndarray]]:
    """(frames, their forces in eV/Å) of dynamics with the potential of PRETRAINING, at the temperature of MD."""
    assert settings.pretraining is not None
    spec = dict(settings.pretraining.potential)
    (system,) = read_geometries(settings)
    atoms = dynamics(
        system.frame.to_atoms(), spec, float(settings.md.temperature), N_TEST, EVERY, settings.md.timestep, SEED
    )  # fmt: skip
    found = labelled(atoms, spec)
    return [system.frame.moved(a.positions) for a in found], [a.arrays["REF_forces"] for a in found]


def force_mae(ensemble: Ensemble, frames: Sequence[Frame], forces: Sequence[np.ndarray]) -> float:
    """meV/Å, of the first member."""
    labels = ensemble.potential([0]).labels(frames)
    return 1000 * float(np.mean([np.abs(a.forces - f).mean() for a, f in zip(labels, forces, strict=True)]))


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("run", type=Path)
    words.add_argument("--arms", nargs="+", default=["constant:0.02:50", "to_zero:0.03:30"])
    words.add_argument("--seeds", nargs="+", type=int, default=[903, 184])
    given = words.parse_args()
    warnings.filterwarnings("ignore")
    settings = read_settings(given.run)
    assert settings.pretraining is not None
    free: list[LabelledFrame] = list(read_extxyz(given.run / "data/pretraining/labelled.xyz"))
    valid = [is_validation(k, settings.pretraining.valid_ratio) for k in range(len(free))]
    data = MemberData(
        [f for f, aside in zip(free, valid, strict=True) if not aside],
        [f for f, aside in zip(free, valid, strict=True) if aside],
    )
    tests = test_frames(settings)
    for seed in given.seeds:
        for arm in given.arms:
            how, lr, epochs = arm.split(":")
            rules = ConvergeRules((0,), int(epochs), 0.0, int(epochs), lr_to_zero=how == "to_zero")
            mace = settings.with_training(lr=float(lr)).mace
            ensemble = Ensemble.build(mace, [seed], elements(f.frame for f in free))
            began = time.process_time()
            for k in range(int(epochs)):
                (result,) = ensemble.train({0: data}, 1, words=("pre", k), lr_factor=rules.lr_factor(k))
            row = {
                "arm": arm, "seed": seed, "CPU s": round(time.process_time() - began),
                "validation": round(1000 * result.force_mae, 1), "test": round(force_mae(ensemble, *tests), 1),
            }  # fmt: skip
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
