"""Figures of what was learnt: errors against the number of labels, and the last training."""

from __future__ import annotations

import math

import numpy as np

from aims_pax.report.accuracy import by_system
from aims_pax.report.cost_summary import best_epochs
from aims_pax.report.figures.style import (
    BLUE,
    COLOURS,
    MUTED,
    TALL,
    VERMILLION,
    Panel,
    drawing,
    envelope,
    panel,
)
from aims_pax.report.figures.ticks import log_if_wide
from aims_pax.report.run_record import RunRecord


def learning_figure(run: RunRecord, png: bool = False) -> list[Panel]:
    """Error against the number of labels, and the last training of the delivered models."""
    found = []
    visits = [v for v in run.visits if v.stage in ("initial", "explore") and v.force_mae]
    energies = {
        (stage, visit): float(np.mean(values))
        for (stage, visit), values in _last_energies(run).items()
        if stage in ("initial", "explore")
    }
    force, energy = delivered_errors(run)
    learnt = {(v.stage, v.visit): float(np.mean(v.force_mae)) for v in visits}
    for name, title, unit, values, end in (
        ("learning_forces", "Force error against labels", "force MAE (meV/Å)", learnt, force),
        ("learning_energies", "Energy error against labels", "energy MAE (meV/atom)", energies, energy),
    ):
        rows = [
            (v.labels, v.n_train, v.stage, 1000 * values.get((v.stage, v.visit), math.nan)) for v in visits
        ]
        rows = [r for r in rows if math.isfinite(r[3]) and r[3] > 0]
        if len(rows) < 2:
            continue
        with drawing(TALL) as (figure, axes):
            for stage, colour in (("initial", MUTED), ("explore", BLUE)):
                part = [r for r in rows if r[2] == stage]
                x, y = np.array([r[0] for r in part]), np.array([r[3] for r in part])
                if len(part):
                    axes.plot(*envelope(x, y), color=colour, marker="o" if len(part) < 60 else None, ms=2.6)
            ys = [r[3] for r in rows]
            if math.isfinite(end):
                at = delivered_labels(run)
                axes.plot([at], [1000 * end], "D", color=VERMILLION, ms=4.5, zorder=5)
                axes.annotate(f"{1000 * end:.3g}", (at, 1000 * end), (-7, 0), textcoords="offset points",
                              ha="right", va="center", color=VERMILLION)  # fmt: skip
                ys.append(1000 * end)
            log_if_wide(axes, ys)
            axes.set(xlabel="reference labels", ylabel=unit)
            legend = [(MUTED, "initial dataset"), (BLUE, "active learning")]
            legend += [(VERMILLION, "delivered")] if math.isfinite(end) else []
            present = {r[2] for r in rows}
            legend = [entry for entry in legend if (entry[0] != MUTED or "initial" in present)]
            columns = ("labels", "training_points", "stage", unit.replace(" ", "_"))
            found.append(panel(figure, name, title, legend, png=png,
                               table=dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True))))  # fmt: skip
    return found + _convergence(run, png)


def delivered_labels(run: RunRecord) -> int:
    """The labels that there were when the delivered model was trained: at the last training, if there was one."""
    last = [v for v in run.visits if v.stage == "converge"] or run.visits
    return max(v.labels for v in last)


def delivered_errors(run: RunRecord) -> tuple[float, float]:
    """(force MAE eV/Å, energy MAE eV/atom) of the delivered model on validation frames; NaN if there is none."""
    valid = [r for r in by_system(run.predictions) if r.split == "valid"] if run.predictions else []
    return (valid[-1].force_mae, valid[-1].energy_mae) if valid else (math.nan, math.nan)


def _last_energies(run: RunRecord) -> dict[tuple[str, int], list[float]]:
    """Energy MAE (eV/atom) of every member after the last epoch of each visit."""
    found: dict[tuple[str, int], list[float]] = {}
    for epochs in run.losses.values():
        last = {(e.stage, e.visit): e.energy_mae for e in epochs}
        for key, value in last.items():
            found.setdefault(key, []).append(value)
    return found


def _convergence(run: RunRecord, png: bool) -> list[Panel]:
    series = {m: [e for e in epochs if e.stage == "converge"] for m, epochs in run.losses.items()}
    series = {m: s for m, s in series.items() if len(s) > 1}
    if not series:
        return []
    with drawing(TALL) as (figure, axes):
        everything, table = [], {"member": [], "epoch": [], "force_MAE_meV_A": [], "valid_loss": []}  # type: ignore[var-annotated]
        for colour, (_, epochs) in zip(COLOURS * 9, series.items(), strict=False):
            x = np.arange(1, len(epochs) + 1)
            y = np.array([1000 * e.force_mae for e in epochs])
            axes.plot(*envelope(x, y), color=colour)
            for chosen in best_epochs(run, epochs):
                k = epochs.index(chosen)
                axes.plot(x[k], y[k], "D", color=VERMILLION, ms=4.5, zorder=5)
            everything += y[np.isfinite(y)].tolist()
        for member, epochs in series.items():
            for n, e in enumerate(epochs, 1):
                for key, v in zip(table, (member, n, 1000 * e.force_mae, e.valid_loss), strict=True):
                    table[key].append(v)
        log_if_wide(axes, everything)
        axes.set(xlabel="epoch", ylabel="force MAE (meV/Å)")
        legend = [*list(zip(COLOURS, series, strict=False))[:3], (VERMILLION, "best: its weights are used")]
        return [panel(figure, "convergence", "The last training, on all data", legend, table=table, png=png)]
