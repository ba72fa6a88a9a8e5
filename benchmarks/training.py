"""Training, samples per second: 4 members on 2 cores by our pool against one process that trains them in turn
with MACE's own modules, optimiser and weights as aims-PAX has them.

    python benchmarks/training.py [--repeat 5] [--members 4] [--workers 2] [--compile]

Prints one row a system and way of evaluation: medians over interleaved repetitions of whole visits (one epoch of
batches of 5), one thread a process; gains are medians of the repetitions' ratios to MACE's modules. `one process` is
our evaluation without the pool. With `--compile` compiled training takes part in the same rounds; the seconds to
compile it, or to load it where `AIMS_PAX_CACHE` (default: the user's cache) has it, are told apart. For a cold start
name an empty folder there.
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

from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.models.mace import compile_cache, gradients
from aims_pax.models.mace.build import build_model
from aims_pax.models.mace.fast_forward import fast_mace
from aims_pax.models.mace.graphs import GraphCache, LabelledGraph
from aims_pax.models.mace.losses import Loss, predict_by_modules
from aims_pax.models.mace.member import Member
from aims_pax.models.mace.statistics import measure
from aims_pax.models.mace.training import TrainingPlan, training_round
from aims_pax.models.mace.training_workers import TrainingPool
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


def members(n: int, graphs: list[LabelledGraph]) -> list[Member]:
    made = []
    for seed in range(n):
        member = Member(f"member_{seed}", seed, build_model(SETTINGS, ELEMENTS, seed), SETTINGS)
        known = measure(graphs, ELEMENTS, scaling="rms_forces_scaling", dtype=member.dtype)
        member.freeze(known)
        made.append(member)
    return made


def in_turn(team: list[Member], graphs: list[LabelledGraph], loss: Loss, plan: TrainingPlan) -> None:
    for member in team:
        training_round(member, graphs, [], plan, loss)


def by_modules(team: list[Member], graphs: list[LabelledGraph], loss: Loss, plan: TrainingPlan) -> None:
    with patch.object(gradients, "predict", predict_by_modules):
        in_turn(team, graphs, loss, plan)


def beside(pool: TrainingPool, team: list[Member], data: list[LabelledFrame], plan: TrainingPlan) -> None:
    futures = pool.train({member: (data, []) for member in team}, plan)
    for member, future in zip(team, futures, strict=True):
        member.load(future.result().state)


def compile_first(
    pool: TrainingPool, team: list[Member], data: list[LabelledFrame], graphs: list[LabelledGraph]
) -> None:
    """In this process, then in those of the pool, which find it in the cache; says how long either takes."""
    known = compile_cache.is_ready(compile_cache.signature(fast_mace(team[0].model)))
    plan = TrainingPlan(0, ("compile",), compiled="wait")
    here = seconds(training_round, team[0], graphs, [], plan, Loss(SETTINGS))
    for _, text in compile_cache.taken_notes():
        print(text)
    there = seconds(beside, pool, team, data, plan)
    print(
        f"{'loaded' if known else 'compiled'} in {here:.0f} s here, loaded in {there:.0f} s by the pool",
        flush=True,
    )


def seconds(work: Callable[..., None], *arguments: object) -> float:
    began = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="compiled training too")
    options = parser.parse_args()
    loss = Loss(SETTINGS)
    ways: tuple[compile_cache.CompileMode, ...] = ("never", "wait") if options.compile else ("never",)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; samples per second")
    with TrainingPool(options.workers) as pool:
        for name in ("ethanol", "21 atoms"):
            data = frames(name)
            graphs = GraphCache(ELEMENTS, SETTINGS.architecture.r_max, torch.float32).of(data)
            team = members(options.members, graphs)
            if options.compile and name == "ethanol":  # the same graph serves the other one
                compile_first(pool, team, data, graphs)
            times: dict[tuple[str, str], list[float]] = {}
            for k in range(options.repeat + 1):
                told = {
                    ("never", "modules"): seconds(by_modules, team, graphs, loss, TrainingPlan(1, (name, k)))
                }
                for way in ways:
                    plan = TrainingPlan(1, (name, k), compiled=way)
                    told[way, "one"] = seconds(in_turn, team, graphs, loss, plan)
                    told[way, "pool"] = seconds(beside, pool, team, data, plan)
                if k:  # the first round starts processes and builds caches
                    for key, t in told.items():
                        times.setdefault(key, []).append(t)
            table(name, times, options.members * FRAMES)
    print(f"load {os.getloadavg()[0]:.1f} at the end")


def table(name: str, times: dict[tuple[str, str], list[float]], samples: int) -> None:
    """One row for each way of evaluation. times: {(compiled, where): seconds of each round}."""
    peer = times["never", "modules"]
    print(f"{name:10s} {'compiled':>9s} {'MACE in turn':>13s} {'one process':>18s} {'pool':>18s}")
    for way in dict.fromkeys(way for way, _ in times):
        cells = []
        for where in ("one", "pool"):
            own = times[way, where]
            gain = statistics.median(m / t for m, t in zip(peer, own, strict=True))
            cells.append(f"{samples / statistics.median(own):10.1f} {gain:6.2f}x")
        word = "yes" if way == "wait" else "no"
        print(
            f"{'':10s} {word:>9s} {samples / statistics.median(peer):13.1f} {cells[0]} {cells[1]}", flush=True
        )


if __name__ == "__main__":
    main()
