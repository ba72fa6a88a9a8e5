"""Figures of the calibrated uncertainty: errors against their bounds, and the learning curve with its forecast."""

from __future__ import annotations

import math

import numpy as np

from aims_pax.core.error_calibration import ErrorCalibration
from aims_pax.core.learning_curve import LearningCurve
from aims_pax.core.stop_rule import mean_errors, progress
from aims_pax.report.figures.style import (
    BLUE,
    INK,
    MUTED,
    PURPLE,
    SKY,
    TALL,
    VERMILLION,
    Panel,
    drawing,
    panel,
)
from aims_pax.report.figures.ticks import log_ticks
from aims_pax.report.formatting import plural
from aims_pax.report.run_record import RunRecord
from aims_pax.report.target_error import errors_of_systems, target_of

SHOWN = 4  # systems
FEWEST = 3  # compared structures
THEN_AND_NOW = (
    "The points are errors of the models of their time. The curve is for the models of now, which further training may "
    "have put below them."
)
AHEAD = 2.0  # the forecast is drawn up to this many times the training set
GROUP = 6  # labelled structures in a point


def coverage_figure(run: RunRecord, png: bool = False) -> list[Panel]:
    """The error of each labelled structure against the bound that its spread gave before, one panel per system."""
    drawn = [_coverage(run, s, c, png) for s, c in run.calibrations[:SHOWN]]
    return [p for p in drawn if p is not None]


def forecast_figure(run: RunRecord, png: bool = False) -> list[Panel]:
    """The mean largest force error against the size of the training set, and its forecast, one panel per system."""
    calibrations = dict(run.calibrations)
    found = [e for e in errors_of_systems(run) if e.curve is not None and e.system in calibrations]
    return [_forecast(run, e.system, calibrations[e.system], e.curve, png) for e in found[:SHOWN] if e.curve]


def coverage_note(calibration: ErrorCalibration, confidence: float) -> str:
    """`27 of 30 structures drawn at random (90 %) were below their 90 % bound.`"""
    n, inside = calibration.audits, calibration.covered
    if not n:
        return "No structure was drawn at random since there are bounds: their coverage is unknown."
    share = f"{plural(n, 'structure')} drawn at random ({100 * inside / n:.0f} %)"
    return f"{inside} of {share} had an error below the {100 * confidence:.0f} % bound."


def _coverage(run: RunRecord, system: str, calibration: ErrorCalibration, png: bool) -> Panel | None:
    pairs = [p for p in calibration.pairs if math.isfinite(p.bound)]
    if len(pairs) < FEWEST:
        return None
    bound, error = (np.array([getattr(p, k) for p in pairs]) for k in ("bound", "error"))
    selected = np.array([p.selected for p in pairs])
    with drawing(TALL + 0.35) as (figure, axes):
        for these, colour in ((selected, SKY), (~selected, PURPLE)):
            axes.plot(bound[these], error[these], "o", color=colour, ms=3.4, alpha=0.75, mec="none")
        low, high = min(bound.min(), error.min()) / 1.2, max(bound.max(), error.max()) * 1.2
        axes.plot((low, high), (low, high), color=INK, lw=0.9, ls=(0, (4, 2)))
        axes.set(xscale="log", yscale="log", xlim=(bound.min() / 1.2, bound.max() * 1.2), ylim=(low, high),
                 xlabel="bound before the label was known (eV/Å)", ylabel="largest force error (eV/Å)")  # fmt: skip
        log_ticks(axes, both=True)
        legend = [(SKY, "uncertain"), (PURPLE, "drawn at random"), (INK, "error = bound")]
        table = {"bound_eV_A": bound, "error_eV_A": error, "drawn_at_random": ~selected}
        name, title = _named(run, "error_bound", "Errors against their bounds", system)
        return panel(figure, name, title, legend, coverage_note(calibration, _confidence(run)), table, png)


def _forecast(
    run: RunRecord, system: str, calibration: ErrorCalibration, curve: LearningCurve, png: bool
) -> Panel:
    n, error, scatter = mean_errors(calibration)
    groups = [g for g in np.array_split(np.argsort(n, kind="stable"), max(1, len(n) // GROUP)) if len(g)]
    x = np.array([n[g].mean() for g in groups])
    y = np.array([math.exp(np.average(np.log(error[g]), weights=scatter[g] ** -2.0)) for g in groups])
    bar = np.array([1 / math.sqrt(float((scatter[g] ** -2.0).sum())) for g in groups])
    sizes = np.geomspace(max(x[0], 1.0), AHEAD * curve.n, 60)
    said = [curve.at(s) for s in sizes]
    middle, low, high = (1000 * np.array([getattr(f, k) for f in said]) for k in ("error", "low", "high"))
    ahead = sizes >= curve.n
    with drawing(TALL) as (figure, axes):
        axes.fill_between(sizes, low, high, color=BLUE, alpha=0.15, lw=0)
        axes.plot(sizes[~ahead], middle[~ahead], color=BLUE)
        axes.plot(sizes[ahead], middle[ahead], color=BLUE, ls=(0, (4, 2)))
        axes.errorbar(x, 1000 * y, yerr=1000 * y * bar, fmt="o", color=INK, ms=3.2, lw=0.9)
        legend = [(INK, "measured before learning"), (BLUE, "learning curve, 80 % band")]
        if target := target_of(run):
            axes.axhline(1000 * target, color=VERMILLION, lw=1.0)
            legend.append((VERMILLION, "target"))
        axes.axvline(curve.n, color=MUTED, lw=0.8, ls=":")
        axes.set(xscale="log", yscale="log", xlabel="training structures", ylabel="largest error (meV/Å)")
        log_ticks(axes, both=True)
        table = {"training_structures": sizes, "error_meV_A": middle, "low_meV_A": low, "high_meV_A": high}
        name, title = _named(run, "error_forecast", "What more labels would bring", system)
        note = THEN_AND_NOW if np.isfinite(progress(calibration)).any() else ""
        return panel(figure, name, title, legend, note, table, png)


def _named(run: RunRecord, name: str, title: str, system: str) -> tuple[str, str]:
    """Name and title of a panel; with several systems they say which."""
    if len(run.calibrations) < 2:
        return name, title
    k = [s for s, _ in run.calibrations].index(system)
    return f"{name}_{k:02d}", f"{title}: {system}"


def _confidence(run: RunRecord) -> float:
    try:
        return float(run.setting("ACTIVE_LEARNING.confidence", "0.9"))
    except ValueError:
        return 0.9
