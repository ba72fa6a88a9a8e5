"""Figure of where the time went: what the device did, and how many reference calculations ran."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from aims_pax.report import cost_summary
from aims_pax.report.figures.style import (
    BLUE,
    GREEN,
    GRID,
    ORANGE,
    SKY,
    WIDE,
    WIDTH,
    Panel,
    drawing,
    panel,
    svg_of,
)
from aims_pax.report.formatting import DOING, duration
from aims_pax.report.run_record import RunRecord


def timeline_figure(run: RunRecord, png: bool = False) -> list[Panel]:
    """What the device did, and how many reference calculations ran at once."""
    if not run.spans or run.spans[-1].ended <= run.spans[0].began:
        return []
    begin, end = run.spans[0].began, run.spans[-1].ended
    unit, per = (
        ("s", 1.0) if end - begin < 300 else ("min", 60.0) if end - begin < 3 * 3600 else ("h", 3600.0)
    )
    colours = {"moving": BLUE, "training": ORANGE, "sampling": SKY, "waiting": GRID}
    kinds = [(k, colour, DOING[k]) for k, colour in colours.items()]
    edges = np.linspace(begin, end, 161)
    share = {k: _overlap(edges, [(s.began, s.ended) for s in run.spans if s.doing == k]) for k, _, _ in kinds}
    calls = [(c.began, c.ended) for c in run.calls if math.isfinite(c.began) and c.ended > begin]
    running = _overlap(edges, calls)
    x = np.repeat((edges - begin) / per, 2)[1:-1]

    def draw(width: float) -> Any:
        with drawing(2.3, width) as (figure, axes):
            axes.set_position((0.5 / width, 0.52, 1 - 0.62 / width, 0.42))
            base = np.zeros(len(edges) - 1)
            for kind, colour, _ in kinds:
                top = base + share[kind]
                axes.fill_between(x, 100 * np.repeat(base, 2), 100 * np.repeat(top, 2), color=colour, lw=0)
                base = top
            axes.set(ylim=(0, 100), ylabel="device (%)", xlim=(0, x[-1]))
            axes.tick_params(labelbottom=False)
            axes.yaxis.set_major_locator(MaxNLocator(2))
            below = figure.add_axes((0.5 / width, 0.19, 1 - 0.62 / width, 0.25))
            below.fill_between(x, 0, np.repeat(running, 2), color=GREEN, lw=0, alpha=0.8)
            below.set(xlim=(0, x[-1]), xlabel=f"time since the beginning ({unit})", ylabel="at once")
            below.set_ylim(0, max(1.0, float(running.max()) * 1.15))
            below.yaxis.set_major_locator(MaxNLocator(2, integer=True))
        return figure

    shares = run.shares()
    total = cost_summary.wall_seconds(run) or 1.0
    note = " · ".join(
        f"{label} {100 * shares[k] / total:.0f} %"
        for k, label in DOING.items()
        if shares.get(k, 0) > 0.005 * total
    )
    blank = {k: words for k, words in {**DOING, **cost_summary.IDLE}.items() if k not in colours}
    gaps = [
        f"{words} {duration(shares[k])}"
        for k, words in blank.items()
        if shares.get(k, 0) > 0.005 * (end - begin)
    ]
    busy = sum(b - a for a, b in calls)
    if calls and busy > 0.05 * total:
        note += f" · on average {busy / total:.2g} reference calculations at once"
    note += f" · blank: {', '.join(gaps)}" if gaps else ""
    legend = [(c, label) for k, c, label in kinds if share[k].any()] + [(GREEN, "reference calculations")]
    table = {f"time_{unit}": (edges[:-1] - begin) / per, **share, "reference_at_once": running}
    title = "Device and reference over time"
    wide = panel(draw(WIDE), "timeline", title, legend, note, table, png)
    return [replace(wide, narrow=svg_of(draw(WIDTH), "timeline_narrow", title))]


# ---------------------------------------------------------------- small parts


def _overlap(edges: NDArray[Any], spans: Sequence[tuple[float, float]]) -> NDArray[Any]:
    """How much of each stretch between edges the spans cover together (1: one span all the time)."""
    if not spans:
        return np.zeros(len(edges) - 1)
    edges, origin = edges - edges[0], edges[0]  # seconds since 1970 would swallow the small differences
    began, ended = (np.sort(np.array(side) - origin) for side in zip(*spans, strict=True))

    def covered(moments: NDArray[Any], points: NDArray[Any]) -> NDArray[Any]:
        """∫ of the number of `points` passed, up to each moment."""
        sums = np.concatenate([[0.0], np.cumsum(points)])
        n = np.searchsorted(points, moments)
        integral: NDArray[Any] = n * moments - sums[n]
        return integral

    result: NDArray[Any] = np.diff(covered(edges, began) - covered(edges, ended)) / np.diff(edges)
    return result
