"""Figures of predicted against true error: whether the uncertainty tells where the model is wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aims_pax.report.accuracy import held_out
from aims_pax.report.calibration import atomic_errors, calibrate
from aims_pax.report.figures.style import INK, POINTS, SKY, TALL, VERMILLION, Panel, drawing, panel, thinned
from aims_pax.report.figures.ticks import log_ticks
from aims_pax.report.formatting import DELIVERED, calibration_sentence
from aims_pax.report.run_record import RunRecord


def calibration_figure(run: RunRecord, png: bool = False) -> list[Panel]:
    """Spread of the committee against the true error."""
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
