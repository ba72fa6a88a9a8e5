"""Figures of the uncertainty along trajectories, with the threshold and what was labelled."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from aims_pax.report.figures.style import (
    BLUE,
    INK,
    LOW,
    ORANGE,
    PURPLE,
    SHOWN,
    VERMILLION,
    Panel,
    drawing,
    envelope,
    panel,
    thinned,
)
from aims_pax.report.figures.ticks import log_ticks
from aims_pax.report.formatting import plural
from aims_pax.report.run_record import RunRecord, TrajectoryRecord

MARKS = ((VERMILLION, "threshold"), (ORANGE, "went to the reference"))
DRAWN = (PURPLE, "drawn at random, at any spread")


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
    """The legend of `uncertainty_figure`; structures drawn at random only if there are some."""
    mean = run.setting("ACTIVE_LEARNING.uncertainty_type") == "mean_atomic_sd"
    spread = (BLUE, "mean spread of the atoms" if mean else "largest spread of an atom")
    drawn = any(t.drawn for t in (run.trajectories if trajectories is None else trajectories))
    return [spread, *MARKS, *([DRAWN] if drawn else [])]


def _one(run: RunRecord, t: TrajectoryRecord, low: float, high: float, png: bool) -> Panel:
    with drawing(LOW) as (figure, axes):
        axes.plot(*envelope(t.steps, t.uncertainty), color=BLUE, lw=0.9)
        finite = np.isfinite(t.threshold)
        x, y = envelope(t.steps[finite], t.threshold[finite], 80)
        axes.plot(x, y, color=VERMILLION, lw=1.1, ls=(0, (4, 2)))
        marks = np.setdiff1d(np.flatnonzero(t.labelled), t.drawn)
        marks = marks[thinned(len(marks), 120)]
        axes.plot(t.steps[marks], t.uncertainty[marks], "o", color=ORANGE, ms=3.4, mec="none")
        drawn = list(t.drawn[:120])
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
        said_above = ("MD step", uncertainty_legend(run, [t]))  # on the page: once for all of them
        return panel(figure, f"uncertainty_{t.index:03d}", title, note=note, png=png, alone=said_above)
