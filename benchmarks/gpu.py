"""A GPU against the CPU and against MACE's own programs: correctness, dynamics, training, memory.

    python benchmarks/gpu.py [--device cuda] [--sections correctness memory …] [--seconds 230] [--small] [--out FOLDER]

Models as users get them (mace.yaml's defaults: 128×0e + 128×1o, correlation 3, r_max 5 Å; `--small`: 16 channels),
random weights, four members where not said otherwise. The sections:

    correctness   energies, forces, stress and spread on the device against float64 on the CPU; gradients of training;
                  dynamics on the device against the CPU; drift of the energy without a thermostat
    memory        100 crystals of 500 atoms within a limit; the peak against what `memory_budget` predicted; and with
                  no limit on a card that has too little memory, so that batches are split
    dynamics      ms per trajectory and step, against ASE with MACECalculator (one trajectory, the same four models)
    profile       launches and time on the card of one step, and how long a recorded CUDA graph takes for the same
    training      samples per second, against MACE's own training loop (mace.tools.train) with the same model and data
    compile       compiled training (TRAINING.compile: always)

Medians of rounds after a warm-up, with torch.cuda.synchronize. Cases that no longer fit into the time of their section
are left out and listed. Numbers go to FOLDER/gpu.json ($OUT, else here), also those of sections that failed later.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import time
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_bench import (
    ELEMENTS,
    LANGEVIN,
    NVE,
    Bench,
    cell,
    channels,
    cueq_missing,
    ensemble,
    ethanol,
    labelled,
    shaken,
    started,
    systems,
    worst,
)
from gpu_speed import compiled, dynamics, profile, training

from aims_pax.frames import Frame
from aims_pax.md import MDState, advance
from aims_pax.models import memory_budget
from aims_pax.models.batch_splitting import batch_splitter
from aims_pax.models.mace import Ensemble, gradients
from aims_pax.models.mace.cuequivariance import Cueq
from aims_pax.models.mace.graphs import GraphCache
from aims_pax.models.mace.inference import Committee, TorchEvaluator
from aims_pax.models.mace.losses import Loss
from aims_pax.models.neighbour_list import neighbour_list

SHARES = {  # of the time
    "correctness": 0.28, "memory": 0.12, "dynamics": 0.32, "profile": 0.08, "training": 0.12, "compile": 0.08,
}  # fmt: skip


# ---------------------------------------------------------------- correctness


def correctness(b: Bench) -> None:
    b.attempt("gradients of training", gradients_of_training, b)
    for dtype in ("float64", "float32"):
        b.attempt(f"dynamics on both, {dtype}", same_dynamics, b, dtype)
    for n in dict.fromkeys((channels(b), 16)):
        for name, frame in systems(b).items():
            frames = shaken(frame, 1 if len(frame) > 100 else 2)
            b.attempt(f"{n} channels, {name}", compare, b, n, name, frames)
    for dtype in ("float32", "float64"):
        b.attempt(f"drift, {dtype}", drift, b, dtype)


def compare(b: Bench, n: int, name: str, frames: list[Frame]) -> None:
    reference = ensemble("cpu", "float64", n, 2).potential().evaluate(frames)
    for dtype in ("float64", "float32"):
        for what in ("ours", "modules", "cueq"):
            title = f"{n} channels, {name}, {dtype}, {what}"
            b.attempt(title, differ, b, title, (b.device, dtype, n, what), frames, reference)


@cache
def potential(device: str, dtype: str, channels: int, what: str) -> Any:
    """Two members, evaluated by us, by MACE's modules, or with cuEquivariance; None where it is not installed."""
    built = ensemble(device, dtype, channels, 2)
    if what == "ours":
        return built.potential()
    if what == "cueq" and cueq_missing(device):
        return None
    models = [m.frozen_copy() for m in built.members]
    if what == "modules":
        return Committee(models, device, evaluator=TorchEvaluator)
    chooser = Cueq(device)
    made = Committee(models, device, evaluator=chooser.evaluator)
    made.chooser = chooser  # type: ignore[attr-defined]
    return made


def differ(b: Bench, title: str, which: Any, frames: list[Frame], reference: Any) -> None:
    own = potential(*which)
    if own is None:
        return
    found = own.evaluate(frames)
    spread, known = (e.forces.cpu().std(0).norm(dim=-1) for e in (found, reference))
    values: dict[str, Any] = {
        "energy_meV_atom": 1000 * worst(found.energies, reference.energies) / len(frames[0]),
        "forces_eV_A": worst(found.forces, reference.forces),
        "largest_force": float(reference.forces.abs().max()),
        "spread_eV_A": worst(spread, known),
    }
    if frames[0].periodic:
        values["stress_eV_A3"] = worst(found.stress, reference.stress)
    refusal = getattr(getattr(own, "chooser", None), "refusal", None)
    if refusal is not None:
        values["refused"] = refusal
    b.note(title, **values)


def gradients_of_training(b: Bench) -> None:
    """Gradients of the loss of a batch with respect to the weights, relative to the largest of each parameter."""
    known: list[torch.Tensor] = []
    for device, dtype in (("cpu", "float64"), (b.device, "float64"), (b.device, "float32")):
        member = ensemble(device, dtype, channels(b), 2).members[0]
        data = labelled(cell(), 3)
        graphs = GraphCache(ELEMENTS, 5.0, member.dtype).of(data)
        value = gradients.backward(member, graphs, Loss(member.settings))
        own = [w.grad.detach().cpu().double() for w in member.weights if w.grad is not None]
        if not known:
            known = own
            continue
        top = max(float(g.abs().max()) for g in known)
        error = max(
            float((a - g).abs().max() / g.abs().max().clamp_min(1e-6 * top))
            for a, g in zip(own, known, strict=True)
        )
        b.note(f"gradients of training, {dtype}", relative=error, loss=float(value))


def same_dynamics(b: Bench, dtype: str) -> None:
    """20 steps of Langevin dynamics on the device and on the CPU in float64, also with one member for each."""
    states = [*started(ethanol(), 4), *started(cell(), 1)]
    md, drivers = [LANGEVIN] * len(states), [k % 2 for k in range(len(states))]
    for how in (None, drivers):
        moved = [
            advance(states, ensemble(device, kind, 16, 2).potential(), 20, md, driving_members=how)
            for device, kind in (("cpu", "float64"), (b.device, dtype))
        ]
        pairs = list(zip(*moved, strict=True))
        b.note(
            f"dynamics, {dtype}, {'mean' if how is None else 'member'}",
            positions_A=max(float(np.abs(a.state.positions - c.state.positions).max()) for a, c in pairs),
            forces_eV_A=max(float(np.abs(a.evaluation.forces - c.evaluation.forces).max()) for a, c in pairs),
            faults=sum(c.fault is not None for _, c in pairs),
        )


def drift(b: Bench, dtype: str) -> None:
    """Total energy without a thermostat: 4 ethanol and one cell, NVE, 0.5 fs."""
    steps = 40 if b.small else 400
    own = potential(b.device, dtype, channels(b), "ours")
    states = [*started(ethanol(), 4), *started(cell(), 1)]
    md = [NVE] * len(states)

    def total(outcomes: Any) -> np.ndarray:
        return np.array([o.evaluation.energies.mean() + o.state.kinetic_energy for o in outcomes])

    energies, now, quarter = [total(advance(states, own, 0, md))], states, max(1, steps // 20)
    for _ in range(20):
        moved = advance(now, own, quarter, md)
        energies.append(total(moved))
        now = [o.state for o in moved]
    change = np.abs(np.array(energies) - energies[0]).max(0) / [len(s) for s in states]
    b.note(f"drift, {dtype}", steps=20 * quarter, meV_atom=float(1000 * change.max()),
           kinetic_meV_atom=float(1000 * np.mean([s.kinetic_energy / len(s) for s in states])))  # fmt: skip


# ---------------------------------------------------------------- memory


def memory(b: Bench) -> None:
    on_card = b.device.startswith("cuda")
    card = float(torch.cuda.get_device_properties(0).total_memory) if on_card else 2e9
    frame = systems(b)["500 atoms"]
    states = started(frame, 8 if b.small else 100)
    built = ensemble(b.device, "float32", channels(b), 2)
    forces: list[np.ndarray] = []
    for limit in (card / 40, card / 5):
        memory_budget.allow(limit, b.device, written=True)
        found = b.attempt(f"memory within {limit / 1e9:.1f} GB", within, b, built, states, limit)
        forces += [] if found is None else [found]
    b.attempt("memory, training", training_within, b, frame, card / 40)
    memory_budget.forget_measurement()
    if on_card and forces:
        b.attempt("memory runs out", runs_out, b, built, states[:40], forces[0])


def within(b: Bench, built: Ensemble, states: list[MDState], limit: float) -> np.ndarray:
    own = built.potential()
    frames = [s.frame() for s in states]
    groups = own.pieces(frames)
    edges = len(neighbour_list(frames[0].positions, frames[0].cell, frames[0].pbc, own.r_max)[0])
    need = own._need(edges / len(frames[0]))
    most = max(len(g) for g in groups)
    predicted = most * need.of(len(frames[0]), edges)
    found: list[Any] = []
    seconds: list[float] = []

    def work() -> None:
        seconds.append(b.seconds(lambda: found.extend(advance(states, own, 1, [LANGEVIN] * len(states)))))

    peak = memory_budget.peak(work, b.device)
    b.note(
        f"{len(states)} × {len(frames[0])} atoms within {limit / 1e9:.1f} GB", at_once=most, groups=len(groups),
        predicted_GB=predicted / 1e9, peak_GB=peak / 1e9, limit_GB=limit / 1e9,
        ms_trajectory_step=1000 * seconds[0] / 2 / len(states),
    )  # fmt: skip
    return np.concatenate([o.evaluation.forces for o in found], axis=1)


def training_within(b: Bench, frame: Frame, limit: float) -> None:
    member = ensemble(b.device, "float32", channels(b), 2).members[0]
    graphs = GraphCache(ELEMENTS, 5.0, member.dtype).of(labelled(frame, 4 if b.small else 16))
    memory_budget.allow(limit, b.device, written=True)
    batch_splitter.cache_clear()
    loss = Loss(member.settings)
    gradients.backward(member, graphs, loss)
    peak = memory_budget.peak(lambda: gradients.backward(member, graphs, loss), b.device)
    room = batch_splitter("training of gpu", str(member.device))
    b.note(
        "training on one batch of large cells", peak_GB=peak / 1e9, limit_GB=limit / 1e9,
        structures=len(graphs), edges=sum(g.edges.shape[1] for g in graphs), edges_at_once=float(room.limit),
    )  # fmt: skip
    batch_splitter.cache_clear()


def runs_out(b: Bench, built: Ensemble, states: list[MDState], expected: np.ndarray) -> None:
    """Without a limit of ours on a card of which this process may have 1/25."""
    memory_budget.allow(float("inf"), b.device)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.04)
    try:
        moved = advance(states, built.potential(), 1, [LANGEVIN] * len(states))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        memory_budget.forget_measurement()
    forces = np.concatenate([o.evaluation.forces for o in moved], axis=1)
    room = batch_splitter("dynamics", b.device)
    b.note(
        "memory runs out, batches are split", edges_at_once=float(room.limit),
        difference_eV_A=float(np.abs(forces - expected[:, : forces.shape[1]]).max()),
        faults=sum(o.fault is not None for o in moved),
    )  # fmt: skip
    batch_splitter.cache_clear()


SECTIONS: dict[str, Callable[[Bench], None]] = {
    "correctness": correctness,
    "memory": memory,
    "dynamics": dynamics,
    "profile": profile,
    "training": training,
    "compile": compiled,
}


def table(b: Bench) -> None:
    """What matters, in few lines."""
    print("\n==== failed or left out")
    for name, rows in b.results.items():
        if isinstance(rows, list):
            for row in rows:
                for word in ("failed", "left_out", "refused"):
                    if word in row:
                        print(f"{name}: {row['what']}: {word}: {row[word]}")
    print("==== correctness: largest differences from float64 on the CPU")
    for row in b.results.get("correctness", []):
        print("  ", *(f"{k}={v:.2g}" if isinstance(v, float) else str(v) for k, v in row.items()))
    for name in ("memory", "dynamics", "profile", "training"):
        print(f"==== {name}")
        for row in b.results.get(name, []):
            print("  ", *(f"{k}={v:.3g}" if isinstance(v, float) else str(v) for k, v in row.items()))


def machine(device: str) -> dict[str, Any]:
    found = {"torch": torch.__version__, "python": platform.python_version(), "numpy": np.__version__}
    if device.startswith("cuda"):
        found["card"] = torch.cuda.get_device_name(0)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sections", nargs="+", default=list(SECTIONS), choices=list(SECTIONS))
    parser.add_argument("--seconds", type=float, default=230.0, help="for all sections together")
    parser.add_argument("--small", action="store_true", help="16 channels, few atoms: to try this script")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT") or "."))
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    given.out.mkdir(parents=True, exist_ok=True)
    b = Bench(given.device, given.small, given.out)
    whole = sum(SHARES[name] for name in given.sections)
    began, due = time.monotonic(), 0.0
    b.results["machine"] = machine(given.device)
    for name in given.sections:
        if name == "compile":  # takes minutes and cannot be interrupted
            table(b)
        due += given.seconds * SHARES[name] / whole  # time that a section leaves goes to the next ones
        b.name, b.until = name, began + due
        start = time.monotonic()
        b.attempt(name, SECTIONS[name], b)
        b.results.setdefault("seconds", {})[name] = round(time.monotonic() - start, 1)
        b.write()
    if "compile" not in given.sections:
        table(b)
    print(b.results["machine"], b.results["seconds"])


if __name__ == "__main__":
    main()
