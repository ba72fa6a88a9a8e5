"""Fine-tuning against training from random weights, at equal labels, and whether members disagree honestly.

    python benchmarks/fine_tuning.py --folder /tmp/fine --labels 20 --seeds 1 2

A foundation model (16 channels, GFN2-xTB, MD of methane, ethane, methanol, water and dimethyl ether at 300 … 900 K) is
trained once. Then each choice trains a committee on ethanol frames with GFN1-xTB labels until convergence. Errors are
those of the committee's mean force on frames of GFN1-xTB's own MD that no model has seen; rank is Spearman's
correlation of the committee's spread with the true error: of atoms, and of frames (largest spread, largest error).
Medians over the seeds, which choose frames and members. Processor seconds.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import units
from ase.build import molecule
from ase.io import read, write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from tblite.ase import TBLite

from aims_pax import seeds
from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.models.base import MemberData
from aims_pax.models.mace import fine_tuning
from aims_pax.models.mace.ensemble import Ensemble
from aims_pax.models.mace.foundation_ensemble import ensemble_from_foundation
from aims_pax.report.calibration import calibrate
from aims_pax.settings.foundation import FoundationSettings, recipe_training
from aims_pax.settings.mace import (
    ArchitectureSettings,
    GeneralSettings,
    MaceMiscSettings,
    MaceSettings,
    TrainingSettings,
)

TEACHER = ("CH4", "C2H6", "CH3OH", "H2O", "CH3OCH3")
SMALL = {"num_channels": 16, "max_L": 1, "correlation": 2, "r_max": 4.0, "radial_MLP": (32, 32, 32)}
BOTH, DATA, READOUT = ("data", "readout"), ("data",), ("readout",)
CHOICES: dict[str, dict[str, Any]] = {
    "from scratch": {"scratch": True},
    "naive": {},
    "frozen": {"recipe": "frozen"},
    "replay": {"recipe": "replay"},
    "lr 0.0003": {"lr": 3e-4},
    "lr 0.001": {"lr": 1e-3},
    "lr 0.005": {"lr": 5e-3},
    "weights 1:100": {"forces_weight": 100.0},
    "weights 10:10": {"energy_weight": 10.0, "forces_weight": 10.0},
    "differ by data": {"differ_by": DATA},
    "differ by readout": {"differ_by": READOUT},
    "readout 0.3": {"perturbation": 0.3},
    "readout 0.6": {"perturbation": 0.6},
    "readout new": {"perturbation": "new"},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("fine_tuning"), help="data and foundation model, made once"
    )
    parser.add_argument("--labels", type=int, nargs="+", default=[20])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument(
        "--choices", nargs="+", default=["from scratch", "naive", "frozen", "replay"], choices=CHOICES
    )
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    prepare(given.folder)
    rows: dict[tuple[str, int], list[dict[str, float]]] = {}
    for labels in given.labels:
        for choice in given.choices:
            for seed in given.seeds:
                row = one(given.folder, CHOICES[choice], labels, seed, given.members)
                rows.setdefault((choice, labels), []).append(row)
                print(choice, labels, seed, json.dumps({k: round(v, 3) for k, v in row.items()}), flush=True)
    print("\n| choice | labels | force MAE 500 K / 900 K, meV/Å | 95 % of the largest error 900 K | rank of atoms "
          "500 K | rank of frames 500 K / both | error : spread | CPU s |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    for (choice, labels), runs in rows.items():
        m = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        print(
            f"| {choice} | {labels} | {m['mae']:.1f} / {m['hot']:.1f} | {m['tail']:.0f} | {m['atoms']:.2f} | "
            f"{m['frames']:.2f} / {m['pooled']:.2f} | {m['ratio']:.1f} | {m['seconds']:.0f} |"
        )


def settings(choice: dict[str, Any], folder: Path, seed: int) -> MaceSettings:
    """mace.yaml with the keys of this choice."""
    written = {k: v for k, v in choice.items() if k in TrainingSettings.model_fields}
    foundation = None
    if not choice.get("scratch"):
        foundation = FoundationSettings(
            model=str(folder / "foundation.model"), recipe=choice.get("recipe", "naive"),
            differ_by=list(choice.get("differ_by", BOTH)), replay_data=str(folder / "foundation.xyz"),
        )  # fmt: skip
    training = TrainingSettings(compile="never", **written)
    return MaceSettings(
        general=GeneralSettings(name_exp="member", seed=seed),
        architecture=ArchitectureSettings(**SMALL) if foundation is None else ArchitectureSettings(),
        training=recipe_training(foundation, training),
        misc=MaceMiscSettings(),
        foundation=foundation,
    )


def one(folder: Path, choice: dict[str, Any], labels: int, seed: int, members: int) -> dict[str, float]:
    """Train a committee on `labels` frames and test it."""
    frames = load(folder / "train.xyz")
    order = seeds.rng("choice", seed).permutation(len(frames))[:labels]
    n_valid = max(1, round(0.1 * labels))
    train, valid = [frames[k] for k in order[n_valid:]], [frames[k] for k in order[:n_valid]]
    own, numbers = settings(choice, folder, seed), seeds.member_seeds(seed, members)
    begin = time.process_time()
    if own.foundation is None:
        ensemble = Ensemble.build(own, numbers, (1, 6, 8))
    else:
        ensemble = _begun(own, numbers, choice.get("perturbation"))
    converge(ensemble, MemberData(train, valid))
    seconds = time.process_time() - begin
    cold, hot = (errors(ensemble, load(folder / f"test_{T}.xyz")) for T in (500, 900))
    both = {key: np.concatenate([cold[key], hot[key]]) for key in cold}
    return {
        "mae": 1000 * float(cold["absolute"].mean()), "hot": 1000 * float(hot["absolute"].mean()),
        "tail": 1000 * float(np.percentile(hot["largest"], 95)),
        "atoms": calibrate(cold["sd"], cold["error"]).rank,
        "frames": calibrate(cold["largest_sd"], cold["largest"]).rank,
        "pooled": calibrate(both["largest_sd"], both["largest"]).rank,
        "ratio": calibrate(cold["sd"], cold["error"]).ratio, "seconds": seconds,
    }  # fmt: skip


def _begun(own: MaceSettings, numbers: Sequence[int], perturbation: Any) -> Ensemble:
    """Members from the foundation model; perturbation: another strength, or `new` readouts."""
    usual, by_module = fine_tuning.perturb_readouts, ensemble_from_foundation.__globals__
    if perturbation == "new":
        by_module["perturb_readouts"] = _new_readouts
    elif perturbation is not None:
        by_module["perturb_readouts"] = lambda model, seed: usual(model, seed, perturbation)
    try:
        return ensemble_from_foundation(own, numbers, (1, 6, 8))
    finally:
        by_module["perturb_readouts"] = usual


def _new_readouts(model: Any, seed: int) -> None:
    import torch

    rng = seeds.rng("readouts", seed)
    with torch.no_grad():
        for p in model.readouts.parameters():
            p.copy_(torch.from_numpy(rng.standard_normal(tuple(p.shape))).to(p.dtype))


def converge(
    ensemble: Ensemble, data: MemberData, patience: int = 40, most: int = 250, margin: float = 0.0
) -> None:
    """As the stage of convergence: each member until its validation loss stops improving, then its best weights."""
    ensemble.begin_convergence()
    for m in range(len(ensemble)):
        best, last, kept = np.inf, 0, None
        for epoch in range(1, most + 1):
            (result,) = ensemble.train({m: data}, 1, words=("converge", m, epoch))
            if result.valid_loss < best - margin:
                best, last, kept = result.valid_loss, epoch, dict(ensemble.inference_arrays(m))
            if epoch - last >= patience:
                break
        if kept is not None:
            ensemble.set_inference_arrays(m, kept)
        ensemble.finish_convergence({m: data})


def errors(ensemble: Ensemble, frames: Sequence[LabelledFrame]) -> dict[str, np.ndarray]:
    """Of the mean force: absolute errors of components, e and σ of each atom, the largest of each frame; eV/Å."""
    forces = ensemble.potential().evaluate([f.frame for f in frames]).forces.cpu().numpy()  # (M, A, 3)
    true = np.concatenate([f.label.forces for f in frames])
    wrong = forces.mean(0) - true
    sd = np.sqrt(((forces - forces.mean(0)) ** 2).mean((0, 2)))
    error = np.sqrt((wrong**2).mean(1))
    ends = np.cumsum([len(f.frame) for f in frames])[:-1]
    return {
        "absolute": np.abs(wrong).ravel(), "sd": sd, "error": error,
        "largest": np.array([np.abs(w).max() for w in np.split(wrong, ends)]),
        "largest_sd": np.array([s.max() for s in np.split(sd, ends)]),
    }  # fmt: skip


# ---------------------------------------------------------------- data, made once


def prepare(folder: Path) -> None:
    """Frames and labels of both methods, and the foundation model."""
    for name, T, n in (("train", 500, 80), ("test_500", 500, 100), ("test_900", 900, 100)):
        if not (folder / f"{name}.xyz").exists():
            seed = {"train": 1, "test_500": 2, "test_900": 3}[name]
            write(folder / f"{name}.xyz", list(dynamics("CH3CH2OH", "GFN1-xTB", (T,), n, seed)))
    if not (folder / "foundation.xyz").exists():
        temperatures = (300, 500, 700, 900)
        frames = [a for k, m in enumerate(TEACHER) for a in dynamics(m, "GFN2-xTB", temperatures, 60, 10 + k)]
        write(folder / "foundation.xyz", frames)
    if not (folder / "foundation.model").exists():
        begin = time.process_time()
        frames = load(folder / "foundation.xyz")
        valid, train = frames[::10], [f for k, f in enumerate(frames) if k % 10]
        own = settings({"scratch": True}, folder, 0)
        ensemble = Ensemble.build(own, (0,), (1, 6, 8))
        converge(ensemble, MemberData(train, valid), patience=12, most=50)
        ensemble.save(0, folder / "foundation.model")
        error = errors(ensemble, valid)["absolute"].mean()
        print(f"foundation model: {len(train)} frames, validation force MAE {1000 * error:.1f} meV/Å, "
              f"{time.process_time() - begin:.0f} CPU s", flush=True)  # fmt: skip


def dynamics(formula: str, method: str, temperatures: Sequence[int], n: int, seed: int) -> Iterator[Any]:
    """n frames of Langevin dynamics, 15 fs apart, in equal parts at each temperature."""
    atoms = molecule(formula)
    atoms.calc = TBLite(method=method, verbosity=0, accuracy=0.01)
    rng = np.random.default_rng(seed)
    for T in temperatures:
        MaxwellBoltzmannDistribution(atoms, temperature_K=T, rng=rng)
        moving = Langevin(
            atoms, 0.5 * units.fs, temperature_K=T, friction=0.02 / units.fs, rng=rng, fixcm=False
        )
        moving.run(150)
        for _ in range(n // len(temperatures)):
            moving.run(30)
            copy = atoms.copy()
            copy.info = {"REF_energy": atoms.get_potential_energy()}
            copy.arrays["REF_forces"] = atoms.get_forces()
            yield copy


def load(path: Path) -> list[LabelledFrame]:
    """The labelled frames of a file."""
    return [
        LabelledFrame(Frame.from_atoms(a), Label(a.info["REF_energy"], a.arrays["REF_forces"]))
        for a in read(path, ":")
    ]


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    main()
