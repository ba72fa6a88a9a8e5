"""Molecular dynamics with a cheap ASE calculator, as pre-training and samplers use it, against ASE's own dynamics.

    python benchmarks/calculator_md.py [--method GFN2-xTB] [--trajectories 4] [--steps 100] [--rounds 5] [--processes 2]

Wall milliseconds per trajectory-step of Langevin dynamics with tblite, one thread a process, medians of interleaved
rounds: ASE (one trajectory after the other), ours in one process where every step begins anew (as before), where each
trajectory continues from its last density, and the same in several processes.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import molecule
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

from aims_pax.frames import Frame
from aims_pax.md import MDState, advance
from aims_pax.parallel.calculator_dynamics import CalculatorDynamics
from aims_pax.potential import Bound, CalculatorPotential, LabelsBound, calculate
from aims_pax.potentials.named import user_calculator
from aims_pax.settings.augment import CallSpec
from aims_pax.settings.md import MDSettings

MD = MDSettings(stat_ensemble="NVT", thermostat="Langevin", temperature=500.0, timestep=0.5, friction=0.01)


SYSTEMS: dict[str, Callable[[], Atoms]] = {
    "ethanol": lambda: molecule("CH3CH2OH"),
    "C6H6 + CH3COOH": lambda: molecule("C6H6") + shifted(molecule("CH3COOH"), 5.0),
}


def shifted(atoms: Atoms, by: float) -> Atoms:
    atoms.translate([by, 0.3, 0.5])
    return atoms


class Anew(CalculatorPotential):
    """Every step begins with an empty calculator."""

    def bind(self, frames: Sequence[Frame]) -> Bound:
        own = [self.make() for _ in frames]
        return LabelsBound(lambda moved: [calculate(f, c) for f, c in zip(moved, own, strict=True)], frames)


def with_ase(atoms: Atoms, make: Callable[[], object], n: int, steps: int) -> None:
    for k in range(n):
        moving = atoms.copy()
        moving.calc = make()
        rng = np.random.default_rng(k)
        MaxwellBoltzmannDistribution(moving, temperature_K=500, rng=rng)
        md = Langevin(
            moving, 0.5 * units.fs, temperature_K=500, friction=0.01 / units.fs, rng=rng, fixcm=False
        )
        md.run(steps)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--method", default="GFN2-xTB")
    parser.add_argument("--trajectories", type=int, default=4)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    warnings.filterwarnings("ignore")
    spec = CallSpec("tblite.ase:TBLite", kwargs={"method": asked.method, "verbosity": 0})
    potential = user_calculator(spec, Path(), "potential")
    make = potential.potential.make  # type: ignore[attr-defined]
    n, steps, md = asked.trajectories, asked.steps, [MD] * asked.trajectories
    print(f"| {asked.method}, {n} trajectories | ASE | anew | one process | {asked.processes} processes |")
    print("|---" * 5 + "|")
    with CalculatorDynamics(asked.processes, patience=0) as several:
        for name, build in SYSTEMS.items():
            atoms = build()
            states = [MDState.start(Frame.from_atoms(atoms), 500.0, k) for k in range(n)]
            in_processes = partial(several.advance, partial(user_calculator, spec, Path(), "potential"), name)
            runs: dict[str, Callable[[], object]] = {
                "ASE": lambda a=atoms: with_ase(a, make, n, steps),  # type: ignore[misc]
                "anew": lambda s=states: advance(s, Anew(make), steps, md),  # type: ignore[misc]
                "one": lambda s=states: advance(s, potential, steps, md),  # type: ignore[misc]
                "several": lambda s=states, move=in_processes: move(s, potential, steps, md),  # type: ignore[misc]
            }
            in_processes(states, potential, 1, md)  # the processes start
            found: dict[str, list[float]] = {key: [] for key in runs}
            for _ in range(asked.rounds):
                for key, run in runs.items():
                    began = time.perf_counter()
                    run()
                    found[key].append(1000 * (time.perf_counter() - began) / (n * steps))
            cells = []
            for each in found.values():
                ratio = statistics.median(b / a for a, b in zip(each, found["ASE"], strict=True))
                cells.append(f"{statistics.median(each):.2f} ({ratio:.2f}×)")
            print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
