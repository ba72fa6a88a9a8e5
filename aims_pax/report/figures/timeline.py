"""Figures of the course of a run: observables along trajectories, time spent, failures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from aims_pax.report import cost_summary
from aims_pax.report.distances import shortest_by_pair
from aims_pax.report.figures.style import (
    BLUE,
    COLOURS,
    GREEN,
    GRID,
    INK,
    MUTED,
    ORANGE,
    SKY,
    VERMILLION,
    WIDE,
    WIDTH,
    Panel,
    drawing,
    envelope,
    panel,
    svg_of,
    thinned,
)
from aims_pax.report.formatting import DOING, duration
from aims_pax.report.run_record import RunRecord
from aims_pax.report.tolerant_readers import float_or_nan

SHOWN = 12  # trajectories drawn at most
POINTS = 1500  # points drawn in a scatter plot at most
TALL, LOW = 2.55, 1.35  # inches


def observables_figure(run: RunRecord, png: bool = False) -> list[Panel]:
    """Temperature, energy and volume along the trajectories, energies of the labels, and shortest distances."""
    found = []
    for name, title, unit, column in (
        ("temperature", "Temperature along the trajectories", "temperature (K)", "temperature"),
        ("model_energy", "Energy along the trajectories", "energy − first (eV)", "energy"),
        ("volume", "Volume along the trajectories", "volume (Å³)", "volume"),
    ):
        series = [(o.trajectory, o.steps, getattr(o, column)) for o in run.observables]
        series = [(i, x[np.isfinite(y)], y[np.isfinite(y)]) for i, x, y in series if np.isfinite(y).sum() > 1]
        if not series or (column == "volume" and all(np.ptp(y) < 1e-6 for _, _, y in series)):
            continue
        with drawing(TALL) as (figure, axes):
            for i, x, y in series[:SHOWN]:
                shown = y - y[0] if column == "energy" else y
                axes.plot(*envelope(x, shown, 120), color=_colour_of(run, i), lw=0.8, alpha=0.8)
            for target in _targets(run) if column == "temperature" else []:
                axes.axhline(target, color=INK, lw=0.9, ls=(0, (4, 2)))
            axes.set(xlabel="MD step", ylabel=unit)
            found.append(
                panel(figure, name, title, _systems_legend(run), png=png, table=_long(series, column))
            )
    return found + _label_energies(run, png) + _distances(run, png)


def _targets(run: RunRecord) -> list[float]:
    """The target temperatures (K) of MD: one, those of the systems, or the two ends of a ramp."""
    written = [
        v for k, v in run.settings.items() if k.startswith("aimsPAX.MD.") and k.endswith("temperature")
    ]
    values = [float_or_nan(word) for text in written for word in text.strip("[]").split(",")]
    return sorted({v for v in values if math.isfinite(v)})


def _label_energies(run: RunRecord, png: bool) -> list[Panel]:
    """Reference energies of the labelled frames along the run, relative to the mean of each system."""
    rows = [(s.system, float(s.info.get("step", "nan")), s.energy / s.n_atoms) for s in run.structures
            if s.info.get("stage") == "active learning" and s.info.get("step", "").isdigit()]  # fmt: skip
    rows = [r for r in rows if math.isfinite(r[2])]
    if len(rows) < 3:
        return []
    mean = {name: np.mean([r[2] for r in rows if r[0] == name]) for name in {r[0] for r in rows}}
    with drawing(TALL) as (figure, axes):
        for name in sorted(mean):
            part = [r for r in rows if r[0] == name]
            part = [part[k] for k in thinned(len(part), POINTS)]
            axes.plot([r[1] for r in part], [1000 * (r[2] - mean[name]) for r in part], "o", ms=3,
                      color=_system_colour(run, name), alpha=0.75, mec="none")  # fmt: skip
        axes.set(xlabel="MD step", ylabel="energy − mean (meV/atom)")
        table = {
            "system": [r[0] for r in rows],
            "step": [r[1] for r in rows],
            "reference_energy_eV_atom": [r[2] for r in rows],
        }
        return [panel(figure, "label_energies", "Energy of the labelled frames", _systems_legend(run),
                      png=png, table=table)]  # fmt: skip


def _distances(run: RunRecord, png: bool) -> list[Panel]:
    pairs = shortest_by_pair(run.structures)
    if not pairs:
        return []
    names = sorted(pairs, key=lambda p: float(np.min(pairs[p])))[:14][::-1]
    with drawing(max(1.5, 0.62 + 0.21 * len(names))) as (figure, axes):
        for k, pair in enumerate(names):
            d = np.sort(pairs[pair])
            limit = 0.5 * sum(covalent_radii[z] for z in pair)
            axes.plot([d[0], d[-1]], [k, k], color=SKY, lw=5, alpha=0.35, solid_capstyle="butt")
            shown = d[thinned(len(d), 120)]
            axes.plot(shown, np.full(len(shown), k), "|", color=BLUE, ms=6, alpha=0.6, mew=0.8)
            axes.plot([limit], [k], "|", color=VERMILLION, ms=10, mew=1.6)
        axes.set_yticks(range(len(names)), [f"{chemical_symbols[a]}–{chemical_symbols[b]}" for a, b in names])
        axes.set_ylim(-0.7, len(names) - 0.3)
        axes.set_xlim(left=0)
        axes.set_xlabel("shortest distance in a frame (Å)")
        axes.grid(axis="y", visible=False)
        table = {"pair": [f"{chemical_symbols[a]}-{chemical_symbols[b]}" for a, b in names for _ in pairs[a, b]],
                 "shortest_A": [d for p in names for d in pairs[p]]}  # fmt: skip
        legend = [(BLUE, "labelled frames"), (VERMILLION, "counts as exploded")]
        return [panel(figure, "distances", "Shortest distances", legend, table=table, png=png)]


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


def failures_figure(run: RunRecord, png: bool = False) -> list[Panel]:
    """Failed reference calculations by class."""
    counts = run.failures.most_common()
    if not counts:
        return []
    with drawing(0.55 + 0.3 * len(counts)) as (figure, axes):
        width, height = figure.get_size_inches()
        axes.set_position((1.0 / width, 0.42 / height, 1 - 1.25 / width, 1 - 0.5 / height))
        names = [name for name, _ in counts][::-1]
        values = [n for _, n in counts][::-1]
        axes.barh(names, values, color=VERMILLION, height=0.55)
        for k, n in enumerate(values):
            axes.annotate(str(n), (n, k), (4, 0), textcoords="offset points", va="center")
        axes.grid(axis="y", visible=False)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.margins(x=0.12)
        axes.set_xlabel("reference calculations that failed")
        return [
            panel(
                figure, "failures", "Failures by class", table={"class": names, "failures": values}, png=png
            )
        ]


# ---------------------------------------------------------------- small parts


def _overlap(edges: NDArray[Any], spans: Sequence[tuple[float, float]]) -> NDArray[Any]:
    """Average number of spans that cover each interval between edges (1: one span all the time)."""
    if not spans:
        return np.zeros(len(edges) - 1)
    edges, origin = edges - edges[0], edges[0]  # differences would be lost in seconds since 1970
    began, ended = (np.sort(np.array(side) - origin) for side in zip(*spans, strict=True))

    def covered(moments: NDArray[Any], points: NDArray[Any]) -> NDArray[Any]:
        """∫ of the number of `points` passed, up to each moment."""
        sums = np.concatenate([[0.0], np.cumsum(points)])
        n = np.searchsorted(points, moments)
        integral: NDArray[Any] = n * moments - sums[n]
        return integral

    result: NDArray[Any] = np.diff(covered(edges, began) - covered(edges, ended)) / np.diff(edges)
    return result


def system_names(run: RunRecord) -> list[str]:
    """Systems in a fixed order: those of the trajectories first, then those of the data."""
    names = [t.system for t in run.trajectories] + [s.system for s in run.structures]
    return [n for n in dict.fromkeys(names) if n]


def _system_colour(run: RunRecord, name: str) -> str:
    names = system_names(run)
    return COLOURS[names.index(name) % len(COLOURS)] if name in names else MUTED


def _colour_of(run: RunRecord, trajectory: int) -> str:
    names = {t.index: t.system for t in run.trajectories}
    return _system_colour(run, names.get(trajectory, ""))


def _systems_legend(run: RunRecord) -> list[tuple[str, str]]:
    names = system_names(run)
    return [(_system_colour(run, n), n) for n in names[: len(COLOURS)]] if len(names) > 1 else []


def _long(series: Sequence[tuple[int, NDArray[Any], NDArray[Any]]], name: str) -> dict[str, list[Any]]:
    return {
        "trajectory": [i for i, x, _ in series for _ in x],
        "step": [v for _, x, _ in series for v in x.tolist()],
        name: [v for _, _, y in series for v in y.tolist()],
    }
