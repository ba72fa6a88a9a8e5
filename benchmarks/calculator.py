"""`aims_pax.calculator` against `MACECalculator` in ASE's molecular dynamics: calls per second.

    python benchmarks/calculator.py [--rounds 5] [--steps 40]

One model and a committee of four: 32×0e + 32×1o, correlation 3, r_max 5 Å, float32, random weights, one thread, read
from the same files. Langevin dynamics of ethanol and of 64 copper atoms. The contestants take turns in every round; the
median over the rounds counts, and the ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.md.langevin import Langevin

import aims_pax
from aims_pax.models.mace import Ensemble
from aims_pax.models.mace.mace_import import quiet
from aims_pax.models.mace.statistics import Statistics
from aims_pax.settings.mace import (
    ArchitectureSettings,
    GeneralSettings,
    MaceMiscSettings,
    MaceSettings,
    TrainingSettings,
)

ELEMENTS = (1, 6, 8, 29)
SYSTEMS = {"ethanol": molecule("CH3CH2OH"), "64 Cu atoms": bulk("Cu", cubic=True).repeat((4, 2, 2))}


def files(folder: Path) -> list[Path]:
    """Four models with random weights; small forces, so that the dynamics stays where it began."""
    settings = MaceSettings(
        general=GeneralSettings(name_exp="bench"),
        architecture=ArchitectureSettings(num_channels=32, max_L=1, correlation=3, r_max=5.0),
        training=TrainingSettings(),
        misc=MaceMiscSettings(),
    )
    built = Ensemble.build(settings, (1, 2, 3, 4), ELEMENTS)
    paths = []
    for m, member in enumerate(built.members):
        member.freeze(Statistics(np.array([-13.6, -1030.0, -2042.0, -45000.0]), 12.0, 0.1, 0.0, "given", 4))
        paths.append(folder / f"{member.name}.model")
        built.save(m, paths[-1])
    return paths


def mace(paths: list[Path]) -> Any:
    with quiet():
        from mace.calculators import MACECalculator

        return MACECalculator(model_paths=[str(p) for p in paths], device="cpu", default_dtype="float32")


CONTESTANTS: dict[str, Callable[[list[Path]], Any]] = {
    "MACECalculator": mace,
    "torch": lambda paths: aims_pax.calculator(paths, "torch"),
    "native": lambda paths: aims_pax.calculator(paths, "native"),
}


def calls_per_second(calculator: Any, atoms: Atoms, steps: int) -> float:
    """Of a few steps of dynamics, after two that are not timed."""
    atoms = atoms.copy()
    atoms.calc = calculator
    dynamics = Langevin(
        atoms,
        0.5 * units.fs,
        temperature_K=300,
        friction=0.01 / units.fs,
        rng=np.random.default_rng(1),
        fixcm=False,
    )
    dynamics.run(2)
    began = time.perf_counter()
    dynamics.run(steps)
    return steps / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = files(Path(folder))
        print("| system | models | " + " | ".join(f"{name}, calls/s" for name in CONTESTANTS) + " |")
        print("|" + "---|" * (2 + len(CONTESTANTS)))
        for name, atoms in SYSTEMS.items():
            for m in (1, 4):
                made = {who: make(paths[:m]) for who, make in CONTESTANTS.items()}
                rounds = [
                    {
                        who: calls_per_second(calculator, atoms, given.steps)
                        for who, calculator in made.items()
                    }
                    for _ in range(given.rounds)
                ]
                cells = []
                for who in made:
                    rate = statistics.median(r[who] for r in rounds)
                    ratio = statistics.median(r[who] / r["MACECalculator"] for r in rounds)
                    cells.append(f"{rate:.3g}" + ("" if who == "MACECalculator" else f" (**{ratio:.1f}×**)"))
                print(f"| {name} | {m} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
