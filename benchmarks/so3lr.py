"""Milliseconds of an MD step of each trajectory with SO3LR: all structures in one batch, against its own calculator.

    python benchmarks/so3lr.py [--steps 20] [--repeat 3]

Ethanol on one core, float32, forces only: as the sampler `initial_sampling: so3lr` evaluates it, and as the package's
ASE calculator does, one structure after the other. The least of several repeats is printed.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from aims_pax.frames import Frame
from aims_pax.potential import CalculatorPotential
from aims_pax.potentials.quiet_packages import quiet_package
from aims_pax.potentials.so3lr import So3lr

TRAJECTORIES = (1, 4, 8, 16)


def ethanol() -> Frame:
    from ase.build import molecule

    return Frame.from_atoms(molecule("CH3CH2OH"))


def package_calculator() -> CalculatorPotential:
    from so3krates_torch.calculator.so3 import SO3LRCalculator

    made = SO3LRCalculator(r_max_lr=100.0, default_dtype="float32")
    return CalculatorPotential(lambda: made)


def least(work: Callable[[], object], repeat: int) -> float:
    """Seconds of the fastest of several calls, after one that is not counted."""
    work()
    times = []
    for _ in range(repeat):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeat", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with quiet_package():
        potentials = {"one batch": So3lr("cpu"), "the package's calculator": package_calculator()}
    rng = np.random.default_rng(0)
    print(
        f"{'trajectories':>24}"
        + "".join(f"{n:>10}" for n in TRAJECTORIES)
        + "   ms for each trajectory and step"
    )
    for name, potential in potentials.items():
        row = []
        for n in TRAJECTORIES:
            frames = [ethanol()] * n
            bound = potential.bind(frames)
            start = np.concatenate([f.positions for f in frames])
            moves = [torch.from_numpy(start + rng.normal(0, 0.03, start.shape)) for _ in range(asked.steps)]
            cells = torch.zeros((n, 3, 3), dtype=torch.float64)
            with quiet_package():
                took = least(lambda: [bound(x, cells) for x in moves], asked.repeat)  # noqa: B023
            row.append(1000 * took / asked.steps / n)
        print(f"{name:>24}" + "".join(f"{ms:10.2f}" for ms in row))


if __name__ == "__main__":
    main()
