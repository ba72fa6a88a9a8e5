"""Figures of learning: errors against labels, uncertainty along trajectories, predicted against true error."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from aims_pax.report.accuracy import by_system, held_out
from aims_pax.report.calibration import atomic_errors, calibrate
from aims_pax.report.cost_summary import best_epochs
from aims_pax.report.figures.style import (
    BLUE,
    COLOURS,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    Panel,
    drawing,
    envelope,
    panel,
    thinned,
)
from aims_pax.report.figures.ticks import log_if_wide, log_ticks
from aims_pax.report.formatting import DELIVERED, calibration_sentence, plural
from aims_pax.report.run_record import RunRecord, TrajectoryRecord

SHOWN = 12  # trajectories drawn at most
MARKS = ((VERMILLION, "threshold"), (ORANGE, "went to the reference"))
TESTED = (PURPLE, "drawn for testing, at any spread")
POINTS = 1500  # points drawn in a scatter plot at most
TALL, LOW = 2.55, 1.35  # inches


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
                axes.plot([rows[-1][0]], [1000 * end], "D", color=VERMILLION, ms=4.5, zorder=5)
                axes.annotate(f"{1000 * end:.3g}", (rows[-1][0], 1000 * end), (-7, 0), textcoords="offset points",
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


def uncertainty_figure(run: RunRecord, png: bool = False) -> tuple[list[Panel], dict[str, list[Any]]]:
    """Uncertainty against MD step with threshold and labels, one panel per trajectory; and a table of all numbers."""
    having = [t for t in run.trajectories if len(t.steps)]
    table: dict[str, list[Any]] = {
        k: [] for k in ("trajectory", "step", "uncertainty_eV_A", "threshold_eV_A", "labelled")
    }
    for t in having:
        for key, column in zip(
            table, ([t.index] * len(t.steps), t.steps, t.uncertainty, t.threshold, t.labelled), strict=True
        ):
            table[key] += np.asarray(column).tolist()
    if not having:
        return [], table
    values = np.concatenate([t.uncertainty[t.uncertainty > 0] for t in having])
    if not len(values):
        return [], table
    low, high = float(np.quantile(values, 0.002)) / 1.25, float(values.max()) * 1.3
    return [_one(run, t, low, high, png) for t in having[:SHOWN]], table


def uncertainty_legend(
    run: RunRecord, trajectories: Iterable[TrajectoryRecord] | None = None
) -> list[tuple[str, str]]:
    """The legend of `uncertainty_figure`; test frames are included only if there are some."""
    mean = run.setting("ACTIVE_LEARNING.uncertainty_type") == "mean_atomic_sd"
    spread = (BLUE, "mean spread of the atoms" if mean else "largest spread of an atom")
    tested = any(t.tested for t in (run.trajectories if trajectories is None else trajectories))
    return [spread, *MARKS, *([TESTED] if tested else [])]


def _one(run: RunRecord, t: TrajectoryRecord, low: float, high: float, png: bool) -> Panel:
    with drawing(LOW) as (figure, axes):
        axes.plot(*envelope(t.steps, t.uncertainty), color=BLUE, lw=0.9)
        finite = np.isfinite(t.threshold)
        x, y = envelope(t.steps[finite], t.threshold[finite], 80)
        axes.plot(x, y, color=VERMILLION, lw=1.1, ls=(0, (4, 2)))
        marks = np.setdiff1d(np.flatnonzero(t.labelled), t.tested)
        marks = marks[thinned(len(marks), 120)]
        axes.plot(t.steps[marks], t.uncertainty[marks], "o", color=ORANGE, ms=3.4, mec="none")
        drawn = list(t.tested[:120])
        axes.plot(t.steps[drawn], t.uncertainty[drawn], "o", color=PURPLE, ms=3.4, mec="none")
        for step, _ in t.faults[:50]:
            axes.plot([step], [high / 1.25], "x", color=INK, ms=4)
        axes.set(yscale="log", ylim=(low, high), ylabel="eV/Å")
        axes.margins(x=0.01)
        log_ticks(axes)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        width, height = figure.get_size_inches()
        axes.set_position((0.5 / width, 0.24 / height, 1 - 0.62 / width, 1 - 0.32 / height))
        n = int(t.labelled.sum())
        state = t.status if t.status != "done" else "ended"
        title = f"{t.index} · {t.system}" if t.system else f"trajectory {t.index}"
        note = f"{plural(n, 'label')} · {state}" + (f" · {plural(t.rewinds, 'rewind')}" if t.rewinds else "")
        said_above = ("MD step", uncertainty_legend(run, [t]))  # the page has them once, above all panels
        return panel(figure, f"uncertainty_{t.index:03d}", title, note=note, png=png, alone=said_above)


def calibration_figure(run: RunRecord, png: bool = False) -> list[Panel]:
    """Spread of the committee against the true error, during the run and of the delivered model."""
    found = []
    if len(run.checked) >= 3:
        spread = np.array([c.uncertainty for c in run.checked])
        error = np.array([c.max_force_error for c in run.checked])
        found.append(_calibration(
            spread, error, "honesty_during", "While it ran, before the label was known",
            "largest spread of an atom σ (eV/Å)", "largest force error (eV/Å)", png, compare=False,
        ))  # fmt: skip
    if run.predictions:
        name, part = held_out(run.predictions)
        if part and np.isfinite(part["atomic_sd"]).any():
            spread, error = atomic_errors(part)
            found.append(_calibration(
                spread, error, "honesty_delivered", f"Delivered model, atoms of {name}",
                "spread of the members σ (eV/Å)", "error of the delivered model, rms (eV/Å)", png, compare=True,
            ))  # fmt: skip
    return [p for p in found if p is not None]


def _calibration(spread: NDArray[Any], error: NDArray[Any], name: str, title: str, xlabel: str, ylabel: str,
                 png: bool, compare: bool) -> Panel | None:  # fmt: skip
    h = calibrate(spread, error)
    good = h.error > 0
    if good.sum() < 3:
        return None
    order = np.argsort(h.spread[good])
    x, y = h.spread[good][order], h.error[good][order]
    with drawing(TALL + 0.35) as (figure, axes):
        k = thinned(len(x), POINTS)
        axes.plot(x[k], y[k], "o", color=SKY, ms=2.4 if len(k) > 300 else 3.2, alpha=0.45, mec="none")
        low, high = (np.quantile(np.concatenate([x, y]), q) for q in (0.005, 1.0))
        span = (low / 1.3, high * 1.3)
        if compare:
            axes.plot(span, span, color=INK, lw=0.9, ls=(0, (4, 2)))
        groups = np.array_split(np.arange(len(x)), max(3, min(10, len(x) // 12)))
        mean = [(math.sqrt((x[g] ** 2).mean()), math.sqrt((y[g] ** 2).mean())) for g in groups if len(g)]
        axes.plot(*zip(*mean, strict=True), color=VERMILLION, marker="o", ms=4, lw=1.4)
        axes.set(
            xscale="log",
            yscale="log",
            xlabel=xlabel,
            ylabel=ylabel,
            xlim=(max(x[0] / 1.2, span[0]), x[-1] * 1.2),
            ylim=span,
        )
        log_ticks(axes, both=True)
        note = (
            calibration_sentence(h.rank, h.ratio, DELIVERED)
            if compare
            else f"Rank correlation ρ = {h.rank:.2f}."
        )
        legend = [(VERMILLION, "average of neighbours"), *([(INK, "error = spread")] if compare else [])]
        table = {"spread_eV_A": h.spread, "error_eV_A": h.error}
        return panel(figure, name, title, legend, note, table, png)
