"""A run in a few numbers: the head of the report, its costs, and the same numbers for summary.json."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from aims_pax.report import label_counts
from aims_pax.report.accuracy import by_system, held_out
from aims_pax.report.calibration import atomic_errors, calibrate
from aims_pax.report.forecast import PARTS, comparison_rows
from aims_pax.report.formatting import DOING, STAGES, compact, duration, format_number, milli, plural
from aims_pax.report.run_record import Epoch, RunRecord, current_stage
from aims_pax.report.run_verdict import run_verdict
from aims_pax.schedulers.base import TASKS, Scheduler, option_number
from aims_pax.schedulers.registry import known_schedulers

IDLE = {"paused": "paused", "stopped": "stopped in between"}  # spans that are not working time


def run_in_one_line(run: RunRecord) -> str:
    """One line: systems, current stage, status of the trajectories."""
    systems = ", ".join(run.geometries[:6]) + (" …" if len(run.geometries) > 6 else "")
    last = current_stage(run.stages)
    parts = [plural(len(run.geometries), "system") + (f": {systems}" if systems else "")]
    if last is not None:
        name = STAGES.get(last.name, last.name)
        parts.append(
            f"{name}: {last.stopped}" if last.stopped and run.state != "finished" else f"last stage: {name}"
        )
    if run.state == "running":
        now: dict[str, int] = {}
        for t in run.trajectories:
            now[t.status] = now.get(t.status, 0) + 1
        parts += [f"{n} {status}" for status, n in now.items()]
        parts.append(f"last activity {duration(max(0.0, time.time() - run.heard))} ago")
    return " · ".join(parts)


def errors(run: RunRecord) -> tuple[float, float, str]:
    """(force MAE eV/Å, energy MAE eV/atom, on which frames) of the delivered model, else of the last training visit."""
    if run.predictions:
        name, part = held_out(run.predictions)
        if part:
            rows = by_system(part | {"split": np.full(len(part["n_atoms"]), "all")})
            row = rows[-1]
            return row.force_mae, row.energy_mae, f"{row.frames} {name}"
    best = [e for epochs in run.losses.values() for e in best_epochs(run, epochs)]
    if best:
        chosen = min(best, key=lambda e: e.valid_loss if math.isfinite(e.valid_loss) else math.inf)
        return chosen.force_mae, chosen.energy_mae, "validation frames"
    last = [epochs[-1] for epochs in run.losses.values() if epochs]
    if last:
        force, energy = (float(np.mean([getattr(e, k) for e in last])) for k in ("force_mae", "energy_mae"))
        return force, energy, "validation frames, mean of the models"
    return math.nan, math.nan, ""


def best_epochs(run: RunRecord, epochs: Sequence[Epoch]) -> list[Epoch]:
    """The epoch of the last training whose weights are delivered, as the core chose it; [] while there is none.

    It need not have the lowest error: a very small improvement does not count.
    """
    last = [e for e in epochs if e.stage == "converge"]
    return [last[c.best_epoch - 1] for c in run.convergence
            if c.epochs == len(last) and 0 < c.best_epoch <= len(last)
            and _same(last[c.best_epoch - 1].force_mae, c.best_mae)]  # fmt: skip


def _same(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-6)


def wall_seconds(run: RunRecord) -> float:
    """Time during which the run was working, s."""
    return math.fsum(v for k, v in run.shares().items() if k not in IDLE)


def slots_of_run(run: RunRecord) -> int | None:
    """MPI processes of one reference calculation, from CLUSTER.launch_str or the job header; None if not given."""
    scheduler = known_schedulers().get(run.setting("CLUSTER.type"))
    header = "" if scheduler is None else run.setting(f"CLUSTER.{scheduler.header_key}")
    nodes = run.setting("CLUSTER.parsl_options.nodes_per_block", "1")
    return processes_of_label(run.setting("CLUSTER.launch_str"), scheduler, header, int(nodes))


def processes_of_label(launch: str, scheduler: Scheduler | None, header: str, nodes: int) -> int | None:
    """MPI processes of one reference calculation; None if neither the launch command nor the job's header gives them.

    nodes: of a job whose header does not give them.
    """
    if (total := option_number(launch, *TASKS)) is not None:
        return total
    try:
        known = None if scheduler is None else scheduler.read_header(header)
    except ValueError:  # settings written for an earlier version
        known = None
    if (each := option_number(launch, "--ntasks-per-node", "--tasks-per-node")) is not None:
        own = option_number(launch, "-N", "--nodes")
        return each * (own or (known and known.nodes) or nodes)
    return None if known is None else known.processes(nodes)


def key_numbers(run: RunRecord) -> list[tuple[str, str, str]]:
    """(value, unit, meaning) for the tiles at the head of the report."""
    force, energy, on = errors(run)
    stages, most = label_counts.by_stage(run), label_counts.budget(run)
    failed = sum(run.failures.values())
    parts = [f"{n.labelled} {stage}" for stage, n in stages.items() if n.asked]
    tiles = [(str(run.labelled), "labels", " + ".join(parts) if parts else "none asked for yet")]
    if math.isfinite(most):
        asked = stages[label_counts.ACTIVE]
        words = f"max_labels, asked for in active learning: {asked.labelled} labelled, {asked.failed} failed"
        words += f", {asked.pending} pending" if asked.pending else ""
        tiles.append((str(asked.asked), f"of {most:g}", words))
    if frames := label_counts.frames_line(run):
        tiles.append((str(len({f for split in run.splits.values() for f in split})), "frames", frames))
    if math.isfinite(force):
        tiles.append((milli(force), "meV/Å", f"force MAE · {on}"))
        tiles.append((milli(energy), "meV/atom", f"energy MAE · {on}"))
    if run.predictions:
        _, part = held_out(run.predictions)
        h = calibrate(*atomic_errors(part)) if part else None
        if h is not None and math.isfinite(h.rank):
            tiles.append((f"{h.rank:.2f}", "ρ", "spread against the delivered model's error, 1 is perfect"))
    tiles.append((*compact(wall_seconds(run)), "at work"))
    tiles.append((*compact(run.reference_seconds), f"in {plural(run.calculations, 'reference calculation')}"))
    if failed or run.pending:
        tiles.append(
            (
                str(failed),
                "failed",
                f"{plural(run.pending, 'label')} pending" if run.pending else "reference calculations",
            )
        )
    return tiles


def ledger(run: RunRecord) -> list[tuple[str, str]]:
    """The costs, one line each."""
    shares, wall = run.shares(), wall_seconds(run)
    seconds = [c.seconds for c in run.calls if math.isfinite(c.seconds)]
    failed, cores = sum(run.failures.values()), slots_of_run(run)
    own = len(seconds)
    rows = [
        ("reference calculations in the store", str(run.calculations)),
        ("… of the labels above", str(own)),
        ("… others: isolated atoms, sampling on the reference, other commands", str(run.calculations - own)),
        ("answered from the store, not calculated again", str(run.reused)),
        ("failed", str(failed)),
        ("time inside finished reference calculations", duration(run.reference_seconds)),
    ]
    if seconds:
        rows.append(
            (
                "one of them: median · longest",
                f"{duration(float(np.median(seconds)))} · {duration(max(seconds))}",
            )
        )
    if cores:
        hours = run.reference_seconds * cores / 3600
        rows.append(
            (f"core hours of the reference ({cores} processes each, from CLUSTER)", format_number(hours))
        )
    hosts = {c.host for c in run.calls if c.host}
    if hosts:
        rows.append(("hosts that calculated", str(len(hosts))))
    rows.append(("working time of the run", duration(wall)))
    for kind, words in DOING.items():
        if shares.get(kind, 0) > 0.5:
            rows.append((f"… {words}", duration(shares[kind])))
    for kind, words in IDLE.items():
        if shares.get(kind, 0) > 0.5:
            rows.append((f"besides: {words}", duration(shares[kind])))
    return [(words, value.replace(" ", "\u00a0")) for words, value in rows]


def forecast_against_truth(run: RunRecord) -> list[list[str]]:
    """Rows that compare the forecast of `check --try` with the run; [] while it is not finished, or without one."""
    if run.state != "finished" or not run.forecast:
        return []
    spent = {s.name: sum(s.seconds.values()) or s.heard - s.began for s in run.stages}
    took = {part: sum(spent.get(name, 0.0) for name in names) for part, names in PARTS.items()}
    took |= {
        "wall": wall_seconds(run),
        "labels": float(run.labelled),
        "reference": math.fsum(c.seconds for c in run.calls if math.isfinite(c.seconds)),
    }
    return comparison_rows(run.forecast, took)


def summary(run: RunRecord) -> dict[str, Any]:
    """The numbers at the head of the report; energies eV/atom, forces eV/Å, times s; None where unknown."""
    force, energy, on = errors(run)
    said = run_verdict(run)

    def plain(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return {
        "name": run.name,
        "state": run.state,
        "aims_pax": run.version,
        "systems": list(run.geometries),
        "stages": {s.name: s.stopped for s in run.stages},
        "verdict": {"kind": said.kind, "text": said.text},
        "labels": run.labelled,
        "labels_by_stage": {
            stage: {**vars(n), "asked": n.asked} for stage, n in label_counts.by_stage(run).items()
        },
        "frames": label_counts.frames(run),
        "pending": run.pending,
        "reused": run.reused,
        "failed": dict(run.failures),
        "data": run.counts(),
        "force_mae_eV_A": plain(force),
        "energy_mae_eV_atom": plain(energy),
        "errors_on": on,
        "wall_s": round(wall_seconds(run), 3),
        "device_s": {k: round(v, 3) for k, v in run.shares().items()},
        "reference_calculations": run.calculations,
        "reference_s": round(run.reference_seconds, 3),
        "models": list(run.results),
        "forecast": [
            dict(zip(("what", "forecast", "truth", "range"), row, strict=True))
            for row in forecast_against_truth(run)
        ],
    }
