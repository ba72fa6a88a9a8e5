"""Uncertainty-biased dynamics against plain dynamics, at equal labels in all.

    python benchmarks/bias.py [--seeds 1 2] [--arms off "hal 1" …] [--labels 44] --folder FOLDER

Ethanol at 500 K, GFN1-xTB as the reference, two members of 16 channels (benchmarks/ethanol). Half of the labels are
frames of cheap MD (GFN2-xTB), the same for all arms of a seed; the other half is asked for by active learning, with
`ACTIVE_LEARNING.bias` of the arm. Errors are those of forces (meV/Å) on frames of the reference's own MD at 500 and
900 K: mean, and the 95th percentile of the largest error of a frame. Structures of `benchmarks/priors.py` are used if
FOLDER has them, and runs that are there already are not repeated.

    python benchmarks/bias.py --committee RESULTS --folder FOLDER

moves four trajectories with the committee of one run (its `results/`) for 600 steps with each arm, and compares what
they see: spread and true error of the largest force of a frame (eV/Å), energy of the reference above the mean of the
test set at 500 K in its standard deviations, and the time of the MD.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.priors import Bench, run, write

ARMS: dict[str, dict[str, Any] | None] = {
    "off": None,
    "hal 1": {"kind": "hal", "strength": 1.0},
    "hal 2": {"kind": "hal", "strength": 2.0},
    "udd 2": {"kind": "udd", "strength": 2.0},
    "udd 4": {"kind": "udd", "strength": 4.0},
}
KEYS = ("MAE T", "tail T", "MAE hot", "tail hot", "labels", "impossible", "mean energy", "seconds")


class BiasBench(Bench):
    """Runs of ethanol that differ in the bias only."""

    def project_of(self, mine: Path, bias: dict[str, Any] | None, n: int, seed: int) -> None:
        settings, mace = self.settings(seed), self.mace(seed)
        settings["INITIAL_DATASET_GENERATION"] = self.first_labels(n)
        active = settings["ACTIVE_LEARNING"]
        active |= {"max_labels": n - self.n_first(n)} | ({} if bias is None else {"bias": bias})
        active.pop("max_train_set_size", None)
        write(mine, settings, mace, {"start.xyz": [self.start()]})

    def result(self, arm: str, n: int, seed: int) -> dict[str, Any]:
        mine = self.folder / f"bias_{arm.replace(' ', '')}_{n}_{seed}"
        path, shared = mine / "measured.json", self.folder / f"bias_begin_{n}_{seed}"
        if path.exists():
            return dict(json.loads(path.read_text()))
        shutil.rmtree(mine, ignore_errors=True)
        if not shared.exists():  # the initial dataset and its models, the same for all arms
            self.project_of(shared, None, n, seed)
            run("aims-PAX-initial-ds", shared)
        shutil.copytree(shared, mine)
        self.project_of(mine, ARMS[arm], n, seed)
        began = time.time()
        run("aims-PAX", mine)
        found = {"labels": self.paid(mine), "seconds": round(time.time() - began), **self.errors(mine)}
        found |= self.exploration(mine)
        path.write_text(json.dumps(found))
        return found

    def exploration(self, mine: Path) -> dict[str, float]:
        """Returns of impossible frames, and the mean energy of the frames labelled in active learning (eV above the
        minimum; of a harmonic molecule in equilibrium at 500 K: 0.52)."""
        import ase.io

        frames = ase.io.read(mine / "results" / "training.xyz", index=":")
        asked = [f for f in frames if f.info.get("stage") == "active learning"]
        energies = [f.info.get("REF_energy", np.nan) for f in asked]
        minimum = self.lowest()
        log = (mine / "logs" / "active_learning.log").read_text()
        return {
            "impossible": log.count("impossible"),
            "mean energy": round(float(np.mean(energies)) - minimum, 3),
        }

    def lowest(self) -> float:
        from benchmarks.priors import calculator

        atoms = self.start()
        atoms.calc = calculator(self.system.reference)
        return float(atoms.get_potential_energy())


def seen(bench: BiasBench, results: Path, arm: str, steps: int = 600, n: int = 4) -> dict[str, float]:
    """What n trajectories of a committee see with the bias of an arm."""
    from aims_pax.core.uncertainty import atomic_spread
    from aims_pax.frames import Frame
    from aims_pax.md import MDState, advance
    from aims_pax.md.bias import UncertaintyBias
    from aims_pax.models.mace.load_committee import load_committee
    from aims_pax.settings.md import MDSettings
    from benchmarks.priors import labelled

    committee = load_committee([*results.glob("*.model"), *results.glob("committee/*.model")])
    md = MDSettings(stat_ensemble="NVT", temperature=500, friction=0.01, timestep=0.5)  # type: ignore[call-arg]
    wanted, frame = ARMS[arm], Frame.from_atoms(bench.start())
    bias = None if wanted is None else [UncertaintyBias(**wanted)] * n
    states = [MDState.start(frame, 500.0, k) for k in range(n)]
    began = time.process_time()
    moved = advance(states, committee, steps, [md] * n, bias=bias, observe_every=40)
    cpu = time.process_time() - began
    frames = [state.frame() for m in moved for state in m.observed[3:]]
    said = committee.evaluate(frames)
    parts = np.split(said.forces.numpy(), len(frames), axis=1)
    true = labelled([f.to_atoms() for f in frames], bench.system.reference)
    thermal = [f.info["REF_energy"] for f in bench.tests()["T"]]
    spread = [atomic_spread(p).max() for p in parts]
    error = [
        np.linalg.norm(p.mean(0) - t.arrays["REF_forces"], axis=1).max()
        for p, t in zip(parts, true, strict=True)
    ]
    above = (np.array([t.info["REF_energy"] for t in true]) - np.mean(thermal)) / np.std(thermal)
    return {
        "spread": round(float(np.mean(spread)), 3), "largest error": round(float(np.mean(error)), 3),
        "95 %": round(float(np.quantile(error, 0.95)), 2), "energy": round(float(np.median(above)), 1),
        "energy 95 %": round(float(np.quantile(above, 0.95)), 1), "impossible": sum(m.fault is not None for m in moved),
        "CPU s": round(cpu, 2),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--labels", type=int, default=44)
    parser.add_argument("--folder", type=Path, required=True, help="where the runs are kept")
    parser.add_argument(
        "--committee", type=Path, help="results/ of a run: only what biased trajectories of it see"
    )
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    bench, rows = BiasBench("ethanol", given.folder.absolute()), {}
    if given.committee:
        for arm in given.arms:
            print(f"{arm}: {seen(bench, given.committee, arm)}", flush=True)
        return
    for seed in given.seeds:
        for arm in given.arms:
            found = bench.result(arm, given.labels, seed)
            rows.setdefault(arm, []).append(found)
            print(f"{arm} · seed {seed}: {found}", flush=True)
    print("| bias | " + " | ".join(KEYS) + " |" + "\n|---" + "|---" * len(KEYS) + "|")
    for arm, each in rows.items():
        cells = ["; ".join(f"{f.get(k, float('nan')):g}" for f in each) for k in KEYS]
        print(f"| {arm} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
