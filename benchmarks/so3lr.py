"""Milliseconds of an MD step of each trajectory with SO3LR: all structures in one batch, against its own calculator.

    python benchmarks/so3lr.py [--steps 20] [--repeat 3]

Ethanol on one core, float32, forces only: as the sampler `initial_sampling: so3lr` evaluates it, and as the package's
ASE calculator does, one structure after the other. Processor time; the two take turns, the least of the repeats counts.
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


def seconds(bound: Callable[..., object], moves: list[torch.Tensor], cells: torch.Tensor) -> float:
    """Processor time of one evaluation for each of the moves."""
    began = time.process_time()
    for positions in moves:
        bound(positions, cells)
    return (time.process_time() - began) / len(moves)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeat", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with quiet_package():
        potentials = {"one batch": So3lr("cpu"), "the package's calculator": package_calculator()}
    rng = np.random.default_rng(0)
    rows: dict[str, list[float]] = {name: [] for name in potentials}
    for n in TRAJECTORIES:
        frames = [ethanol()] * n
        start = np.concatenate([f.positions for f in frames])
        moves = [torch.from_numpy(start + rng.normal(0, 0.03, start.shape)) for _ in range(asked.steps)]
        cells = torch.zeros((n, 3, 3), dtype=torch.float64)
        bound = {name: potential.bind(frames) for name, potential in potentials.items()}
        for one in bound.values():
            seconds(one, moves[:2], cells)
        rounds = [{name: seconds(b, moves, cells) for name, b in bound.items()} for _ in range(asked.repeat)]
        for name, row in rows.items():
            row.append(1000 * min(r[name] for r in rounds) / n)
    print(
        f"{'trajectories':>24}"
        + "".join(f"{n:>10}" for n in TRAJECTORIES)
        + "   ms for each trajectory and step"
    )
    for name, row in rows.items():
        print(f"{name:>24}" + "".join(f"{ms:10.2f}" for ms in row))


if __name__ == "__main__":
    main()
