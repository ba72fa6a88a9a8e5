"""Training, samples per second: 4 members on 2 cores by our pool against one process that trains them in turn
with MACE's own modules, optimiser and weights as aims-PAX has them.

    python benchmarks/training.py [--repeat 5] [--members 4] [--workers 2]

Prints one row a system: medians over interleaved repetitions of whole visits (one epoch of batches of 5),
one thread a process. `one process` is our evaluation without the pool.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from unittest.mock import patch

import numpy as np
import torch
from ase.build import molecule

from aims_pax.force_field import train as visits
from aims_pax.force_field.build import build_model
from aims_pax.force_field.graphs import Graph, Graphs
from aims_pax.force_field.losses import Loss, predict_by_modules
from aims_pax.force_field.member import Member
from aims_pax.force_field.statistics import measure
from aims_pax.force_field.train import Plan, visit
from aims_pax.force_field.workers import TrainingPool
from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.settings.mace import (
    ArchitectureSettings,
    GeneralSettings,
    MaceMiscSettings,
    MaceSettings,
    TrainingSettings,
)

ELEMENTS = (1, 6, 8)
FRAMES = 30
SETTINGS = MaceSettings(
    general=GeneralSettings(name_exp="benchmark"),
    architecture=ArchitectureSettings(num_channels=32),
    training=TrainingSettings(),
    misc=MaceMiscSettings(),
)


def frames(name: str) -> list[LabelledFrame]:
    """Shaken molecules with random labels: the time does not depend on them."""
    atoms = molecule("CH3CH2OH")
    if name == "21 atoms":
        acid, water = molecule("CH3COOH"), molecule("H")
        acid.translate((4.6, 0.3, 0.5))
        water.translate((-3.5, 0.2, 0.9))
        atoms = molecule("C6H6") + acid + water
    rng = np.random.default_rng(0)
    out = []
    for _ in range(FRAMES):
        frame = Frame(atoms.numbers, atoms.positions + 0.05 * rng.normal(size=atoms.positions.shape))
        out.append(LabelledFrame(frame, Label(float(rng.normal()), rng.normal(size=(len(frame), 3)))))
    return out


def members(n: int, graphs: list[Graph]) -> list[Member]:
    made = []
    for seed in range(n):
        member = Member(f"member_{seed}", seed, build_model(SETTINGS, ELEMENTS, seed), SETTINGS)
        known = measure(graphs, ELEMENTS, scaling="rms_forces_scaling", dtype=member.dtype)
        member.freeze(known)
        made.append(member)
    return made


def in_turn(team: list[Member], graphs: list[Graph], loss: Loss, plan: Plan) -> None:
    for member in team:
        visit(member, graphs, [], plan, loss)


def by_modules(team: list[Member], graphs: list[Graph], loss: Loss, plan: Plan) -> None:
    with patch.object(visits, "predict", predict_by_modules):
        in_turn(team, graphs, loss, plan)


def beside(pool: TrainingPool, team: list[Member], data: list[LabelledFrame], plan: Plan) -> None:
    futures = pool.train({member: (data, []) for member in team}, plan)
    for member, future in zip(team, futures, strict=True):
        member.load(future.result().state)


def seconds(work: Callable[..., None], *arguments: object) -> float:
    began = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    loss = Loss(SETTINGS)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; samples per second")
    print(
        f"{'':10s} {'MACE in turn':>13s} {'one process':>12s} {'pool':>8s} {'gain':>6s} {'of it one process':>18s}"
    )
    with TrainingPool(options.workers) as pool:
        for name in ("ethanol", "21 atoms"):
            data = frames(name)
            graphs = Graphs(ELEMENTS, SETTINGS.architecture.r_max, torch.float32).of(data)
            team = members(options.members, graphs)

            times: dict[str, list[float]] = {"modules": [], "one": [], "pool": []}
            for k in range(options.repeat + 1):
                plan = Plan(1, (name, k))
                told = {
                    "modules": seconds(by_modules, team, graphs, loss, plan),
                    "one": seconds(in_turn, team, graphs, loss, plan),
                    "pool": seconds(beside, pool, team, data, plan),
                }
                if k:  # the first round starts processes and builds caches
                    for way, t in told.items():
                        times[way].append(t)
            samples = options.members * FRAMES
            rate = {way: samples / statistics.median(t) for way, t in times.items()}
            gain = statistics.median(m / p for m, p in zip(times["modules"], times["pool"], strict=True))
            alone = statistics.median(m / p for m, p in zip(times["modules"], times["one"], strict=True))
            print(
                f"{name:10s} {rate['modules']:13.1f} {rate['one']:12.1f} {rate['pool']:8.1f} "
                f"{gain:5.2f}x {alone:17.2f}x",
                flush=True,
            )


if __name__ == "__main__":
    main()
