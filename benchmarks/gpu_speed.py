"""The sections of gpu.py that take times: dynamics, profile, training, compiled training."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from ase import units
from ase.md.langevin import Langevin
from gpu_bench import (
    ELEMENTS,
    LANGEVIN,
    SEEDS,
    Bench,
    cell,
    channels,
    cueq_missing,
    ensemble,
    ethanol,
    labelled,
    settings,
    shaken,
    started,
    systems,
    worst,
)

from aims_pax.frames import Frame, LabelledFrame
from aims_pax.md import MDState, advance
from aims_pax.models.mace import Ensemble, compile_cache, gradients
from aims_pax.models.mace.build import build_model
from aims_pax.models.mace.graphs import GraphCache
from aims_pax.models.mace.inference import Committee, torch_evaluator
from aims_pax.models.mace.losses import Loss, predict_by_modules
from aims_pax.models.mace.member import Member
from aims_pax.models.mace.statistics import measure
from aims_pax.models.mace.training import TrainingPlan, training_round
from aims_pax.settings.mace import (
    TrainingSettings,
)

# ---------------------------------------------------------------- dynamics


def dynamics(b: Bench) -> None:
    frames = systems(b)
    counts = {"ethanol": (8, 32, 1, 128), "64 atoms": (8, 32), "500 atoms": (1, 8)}
    if b.small:
        counts = {"ethanol": (1, 4), "64 atoms": (1,)}
    cases = [(name, k) for name, several in counts.items() for k in several]
    plain = {d: ensemble(b.device, d, channels(b)) for d in ("float32", "float64")}
    cueq = not cueq_missing(b.device)
    for name in counts:
        for fast in (False, True) if cueq else (False,):
            title = f"{name}, ASE + MACE{', cueq' if fast else ''}"
            b.attempt(title, ase_dynamics, b, plain["float32"], name, frames[name], fast)
    ways = [("torch, float32", plain["float32"]), ("torch, float64", plain["float64"])]
    if cueq:
        ways.insert(1, ("cueq, float32", ensemble(b.device, "float32", channels(b), enable_cueq=True)))
    for way, built in ways:
        for member in (False, True) if way == "torch, float32" else (False,):
            for name, k in cases:
                title = f"{name} × {k}, {way}, {'member' if member else 'mean of 4'}"
                b.attempt(title, our_dynamics, b, title, built, started(frames[name], k), member)


def our_dynamics(b: Bench, what: str, built: Ensemble, states: list[MDState], member: bool) -> None:
    md = [LANGEVIN] * len(states)
    drivers = [k % len(SEEDS) for k in range(len(states))] if member else None
    potential = built.potential()

    def run(steps: int) -> float:
        return b.seconds(lambda: advance(states, potential, steps, md, driving_members=drivers)) / steps

    run(2)
    steps = int(min(50, max(3, 0.5 / run(3))))
    times = [run(steps) for _ in range(3)]
    b.note(
        what, ms_trajectory_step=1000 * statistics.median(times) / len(states),
        ms_step=1000 * statistics.median(times), steps=steps, spread=(max(times) - min(times)) / min(times),
    )  # fmt: skip


def ase_dynamics(b: Bench, built: Ensemble, name: str, frame: Frame, cueq: bool) -> None:
    from mace.calculators import MACECalculator

    atoms = started(frame, 1)[0].frame().to_atoms()
    models = [m.frozen_copy() for m in built.members]
    atoms.calc = MACECalculator(models=models, device=b.device, default_dtype="float32", enable_cueq=cueq)
    md = Langevin(atoms, 0.5 * units.fs, temperature_K=300, friction=0.01 / units.fs)
    md.run(3)
    steps = int(min(50, max(3, 0.5 / (b.seconds(lambda: md.run(3)) / 3))))
    times = [b.seconds(lambda: md.run(steps)) / steps for _ in range(3)]
    b.note(
        f"{name} × 1, ASE + MACE{', cueq' if cueq else ''}, float32, mean of 4",
        ms_trajectory_step=1000 * statistics.median(times), ms_step=1000 * statistics.median(times), steps=steps,
    )  # fmt: skip


# ---------------------------------------------------------------- where the time of a step goes


def profile(b: Bench) -> None:
    frames = systems(b)
    built = ensemble(b.device, "float32", channels(b))
    for name, k in (("ethanol", 8), ("64 atoms", 8), ("500 atoms", 1)):
        b.attempt(f"profile, {name} × {k}", profiled, b, built, name, started(frames[name], k))
        if b.device.startswith("cuda"):
            b.attempt(f"recorded graph, {name} × {k}", recorded, b, built, name, shaken(frames[name], k))


def profiled(b: Bench, built: Ensemble, name: str, states: list[MDState], steps: int = 4) -> None:
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as torch_profile

    potential, md = built.potential(), [LANGEVIN] * len(states)
    advance(states, potential, steps, md)
    wall = b.seconds(lambda: advance(states, potential, steps, md)) / (steps + 1)
    kinds = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if b.device.startswith("cuda") else [])
    with torch_profile(activities=kinds) as found:
        advance(states, potential, steps, md)
        b.synchronise()
    averages = found.key_averages()
    on_card = sum(e.self_device_time_total for e in averages) / 1000 / (steps + 1)
    counts = {e.key: e.count / (steps + 1) for e in averages}
    b.note(
        f"{name} × {len(states)}, one step", wall_ms=1000 * wall, on_card_ms=float(on_card),
        launches=float(sum(n for key, n in counts.items() if "LaunchKernel" in key)),
        copies=float(sum(n for key, n in counts.items() if key.startswith("cudaMemcpy"))),
        synchronisations=float(sum(n for key, n in counts.items() if "Synchronize" in key)),
    )  # fmt: skip
    sort = "self_device_time_total" if b.device.startswith("cuda") else "self_cpu_time_total"
    table = averages.table(sort_by=sort, row_limit=18, max_name_column_width=70)
    other = averages.table(sort_by="self_cpu_time_total", row_limit=18, max_name_column_width=70)
    (b.out / f"profile_{name.split()[0]}_{len(states)}.txt").write_text(f"{table}\n{other}")


def recorded(b: Bench, built: Ensemble, name: str, frames: list[Frame]) -> None:
    """One evaluation of all members: as it is, and replayed from a CUDA graph."""
    models = built.potential().models
    positions = torch.from_numpy(np.concatenate([f.positions for f in frames])).to(b.device)
    cells = torch.from_numpy(np.stack([f.cell for f in frames])).to(b.device)
    milliseconds, forces = {}, {}
    for kind, on in (("bound_ms", False), ("replayed_ms", True)):
        potential = Committee(models, b.device, evaluator=partial(torch_evaluator, cuda_graphs=on))
        bound = potential.bind(frames)
        for _ in range(10):
            forces[kind] = bound(positions, cells).forces
        milliseconds[kind] = 1000 * statistics.median(
            b.seconds(lambda bound=bound: bound(positions, cells)) for _ in range(20)
        )
    refusal = getattr(potential.evaluator, "refusal", "there is no GPU")
    difference = worst(forces["replayed_ms"], forces["bound_ms"])
    b.note(
        f"{name} × {len(frames)}, one evaluation", **milliseconds, difference_eV_A=difference, refused=refusal
    )


# ---------------------------------------------------------------- training


def training(b: Bench) -> None:
    n = 10 if b.small else 40
    for name, frame in (("ethanol", ethanol()), ("64 atoms", cell())):
        for size in (5,) if b.small else (5, 32):
            title = f"{name}, batches of {size}"
            b.attempt(title, train, b, title, labelled(frame, n), size)


def trained_members(b: Bench, size: int, graphs: Any, seeds: tuple[int, ...]) -> list[Member]:
    own = settings(b.device, "float32", channels(b))
    own = own.model_copy(update={"training": TrainingSettings(batch_size=size)})
    made = [Member(f"member_{s}", s, build_model(own, ELEMENTS, s), own) for s in seeds]
    for member in made:
        member.freeze(measure(graphs, ELEMENTS, scaling="rms_forces_scaling", dtype=member.dtype))
    return made


def train(b: Bench, name: str, data: list[LabelledFrame], size: int) -> None:
    graphs = GraphCache(ELEMENTS, 5.0, torch.float32).of(data)
    team = trained_members(b, size, graphs, SEEDS)
    loss = Loss(team[0].settings)

    def visit(members: list[Member], k: int) -> None:
        for member in members:
            training_round(member, graphs, [], TrainingPlan(1, (name, k)), loss)

    def by_modules(k: int) -> None:
        with patch.object(gradients, "predict", predict_by_modules):
            visit(team[:1], k)

    ways: dict[str, tuple[Callable[[int], None], int]] = {
        "one member": (lambda k: visit(team[:1], k), 1),
        "four in turn": (lambda k: visit(team, k), 4),
        "one member, MACE's modules": (by_modules, 1),
    }
    loop = b.attempt(f"{name}, MACE's own loop", mace_loop, b, data, size)
    if loop is not None:
        ways["mace.tools.train"] = (loop, 1)
    for what, (work, members) in ways.items():
        b.attempt(f"{name}, {what}", epochs, b, f"{name}, {what}", work, members * len(data), size)


def epochs(b: Bench, what: str, work: Callable[[int], None], samples: int, size: int) -> None:
    work(0)
    each = samples / statistics.median(b.seconds(lambda k=k: work(k)) for k in range(1, 4))
    b.note(what, samples_s=each, ms_batch=1000 * size / each)


def mace_loop(b: Bench, data: list[LabelledFrame], size: int) -> Callable[[int], None]:
    """One epoch of `mace_run_train`: its data loader, its step, its moving average, the same model."""
    from mace import modules, tools
    from mace.data import AtomicData, KeySpecification, config_from_atoms
    from mace.tools import torch_geometric
    from mace.tools.train import train_one_epoch
    from torch_ema import ExponentialMovingAverage

    kept = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        table = tools.AtomicNumberTable(list(ELEMENTS))
        keys = KeySpecification.from_defaults()
        sets = [
            AtomicData.from_config(config_from_atoms(with_labels(f), key_specification=keys), table, 5.0)
            for f in data
        ]
        member = trained_members(b, size, GraphCache(ELEMENTS, 5.0, torch.float32).of(data), (1,))[0]
        loss = modules.WeightedEnergyForcesLoss(energy_weight=1.0, forces_weight=1000.0).to(b.device)
    finally:
        torch.set_default_dtype(kept)
    loader = torch_geometric.dataloader.DataLoader(sets, batch_size=size, shuffle=True, drop_last=False)
    average = ExponentialMovingAverage(member.model.parameters(), decay=0.99)
    asked = {"energy": True, "forces": True, "virials": False, "stress": False, "dipoles": False}

    class Nowhere:
        def log(self, _: Any) -> None:
            """The times are taken here."""

    def epoch(k: int) -> None:
        train_one_epoch(
            member.model, loss, loader, member.optimiser, k, asked, 10.0, average, Nowhere(),
            torch.device(b.device), False,
        )  # fmt: skip

    return epoch


def with_labels(labelled_frame: LabelledFrame) -> Any:
    atoms = labelled_frame.frame.to_atoms()
    atoms.info["REF_energy"] = labelled_frame.label.energy
    atoms.arrays["REF_forces"] = np.array(labelled_frame.label.forces)
    return atoms


# ---------------------------------------------------------------- compiled training


def compiled(b: Bench) -> None:
    """Compiles, compares gradients with those of uncompiled training, and times both."""
    data = labelled(cell(), 10 if b.small else 40)
    graphs = GraphCache(ELEMENTS, 5.0, torch.float32).of(data)
    member = trained_members(b, 5, graphs, SEEDS[:1])[0]
    loss = Loss(member.settings)
    first = b.seconds(
        lambda: training_round(member, graphs[:5], [], TrainingPlan(0, ("c",), compiled="wait"), loss)
    )
    notes = [text for _, text in compile_cache.taken_notes()]
    b.note("compiling", seconds=first, said=" ".join(notes))
    for mode in ("never", "wait"):
        plan = TrainingPlan(1, ("c", mode), compiled=mode)  # type: ignore[arg-type]
        what = f"64 atoms, batches of 5, compile: {mode}"
        epochs(b, what, lambda k, plan=plan: training_round(member, graphs, [], plan, loss), len(data), 5)  # type: ignore[misc]
    for _, text in compile_cache.taken_notes():
        b.note("afterwards", said=text)
