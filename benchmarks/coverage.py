"""Coverage of the calibrated 90 % bound on finished runs: is the error of a new frame below it nine times of ten?

    python benchmarks/coverage.py FOLDER…

Each FOLDER is a system as `benchmarks/priors.py` leaves it: `test_T.xyz` and `test_hot.xyz`, labelled frames of the
reference's own MD at two temperatures, and runs with delivered models. The committee of each run predicts all of them.
Then labels are simulated, 40 times: frames arrive in random order; one in five labels is drawn at random, the others
are those whose spread is above (1 + c_x) × the mean of the spreads before. The coverage is counted on every frame that
arrives, with the bound that is valid before it. Three ways: at T; at T, then at the hot temperature and with another
c_x from the middle on; and at T with the threshold as it is, but with half of the labels.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
from pathlib import Path

import ase.io
import numpy as np

from aims_pax.core.error_calibration import ErrorCalibration

TIMES, SHARE = 40, 0.2
Pairs = np.ndarray  # (F, 2): spread and error of each frame, eV/Å


def measured(run: Path, frames: Path) -> Pairs:
    """Largest spread and largest force error (eV/Å) of a run's committee on labelled frames."""
    from aims_pax import calculator

    committee = calculator(str(run / "results"))
    found = []
    for atoms in ase.io.read(frames, ":"):
        true = atoms.arrays["REF_forces"]
        atoms.calc = committee
        error = np.abs(atoms.get_forces() - true).max()
        found.append((np.max(atoms.calc.results["forces_spread"]), error))
    return np.array(found)


def simulated(parts: list[tuple[Pairs, float]], labels: int, seed: int) -> list[bool]:
    """Whether the error of each arriving frame was below its bound. parts: (frames, c_x), labels shared among them."""
    rng, calibration, inside, spreads = np.random.default_rng(seed), ErrorCalibration(), [], []
    n = 0
    for k, (pairs, c_x) in enumerate(parts):
        for spread, error in pairs[rng.permutation(len(pairs))]:
            if n >= labels * (k + 1) // len(parts):
                break
            spreads.append(spread)
            calibration = calibration.seen(spread)
            if calibration.map is not None:
                inside.append(error <= calibration.map.bound(spread))
            drawn = calibration.n_audits < SHARE * n and rng.random() < 0.3
            above = len(spreads) > 5 and spread > (1 + c_x) * np.mean(spreads)
            if drawn or above:
                n += 1
                calibration = calibration.labelled(spread, error, error / 4, 20 + n, not drawn, 0.9)
    return inside


def coverage(parts: list[tuple[Pairs, float]], labels: int) -> str:
    inside = [simulated(parts, labels, seed) for seed in range(TIMES)]
    return f"{100 * np.mean(np.concatenate(inside)):5.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--runs", nargs="*", default=["*"], help="patterns of their names")
    chosen = parser.parse_args()
    print(
        "system    run                      ρ(T)   at T   T, then hot   few labels   (% of frames below the 90 % bound)"
    )
    for folder in chosen.folders:
        found = (p for name in chosen.runs for p in folder.glob(f"{name}/results/models.json"))
        for run in sorted({p.parent.parent for p in found}):
            try:
                cold, hot = (measured(run, folder / f"test_{t}.xyz") for t in ("T", "hot"))
            except (OSError, ValueError, KeyError) as error:
                print(f"{folder.name:9} {run.name:24} left out: {type(error).__name__}: {error}")
                continue
            ranks = np.corrcoef(np.argsort(np.argsort(cold, axis=0), axis=0).T)[0, 1]
            columns = (
                coverage([(cold, 0.1)], 40),
                coverage([(cold, 0.1), (hot, -0.2)], 60),
                coverage([(cold, 0.1)], 16),
            )
            print(
                f"{folder.name:9} {run.name:24} {ranks:5.2f}  {columns[0]}    {columns[1]}         {columns[2]}",
                flush=True,
            )


if __name__ == "__main__":
    main()
