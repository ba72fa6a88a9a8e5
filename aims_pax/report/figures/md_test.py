"""Figures of the MD test: temperature and energy over time, and distances against those of the labelled frames."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aims_pax.report.figures.style import (
    BLUE,
    INK,
    MUTED,
    SHOWN,
    TALL,
    VERMILLION,
    Panel,
    drawing,
    panel,
)

PAIRS = 9  # pairs of elements in the figure of distances
Series = Mapping[str, Any]


def md_test_figure(found: Mapping[str, Any], png: bool = False) -> list[Panel]:
    """The figures of the stored results; [] when there are none."""
    if not found:
        return []
    return [*_temperature(found, png), *_total_energy(found, png), *_distances(found, png)]


def _hot(found: Mapping[str, Any], one: Series) -> bool:
    lowest = min(t["temperature"] for t in found["trajectories"] if t["system"] == one["system"])
    return bool(one["temperature"] > lowest)


def _legend(found: Mapping[str, Any], series: Sequence[Series]) -> list[tuple[str, str]]:
    """Colours of the two temperatures."""
    words = []
    for hot, colour in ((False, BLUE), (True, VERMILLION)):
        heats = sorted({s["temperature"] for s in series if _hot(found, s) is hot})
        if heats:
            words.append(
                (colour, f"{heats[0]:g} K" if len(heats) == 1 else f"{heats[0]:g} … {heats[-1]:g} K")
            )
    return words


def _temperature(found: Mapping[str, Any], png: bool) -> list[Panel]:
    """Kinetic temperatures and their mean; targets dashed, the canonical width shaded where there is one system."""
    series = [t for t in found["trajectories"] if len(t["t_ps"]) > 1]
    if not series:
        return []
    with drawing(TALL) as (figure, axes):
        for one in series[: 2 * SHOWN]:
            colour = VERMILLION if _hot(found, one) else BLUE
            axes.plot(one["t_ps"], one["T_K"], color=colour, lw=0.5, alpha=0.3)
            if one["fault"]:
                axes.plot(one["t_ps"][-1:], one["T_K"][-1:], "x", color=INK, ms=6, mew=1.6)
        for T in sorted({t["temperature"] for t in series}):
            own = [t for t in series if t["temperature"] == T]
            colour = VERMILLION if _hot(found, own[0]) else BLUE
            whole = max(own, key=lambda t: len(t["t_ps"]))["t_ps"]
            mean = [np.mean([t["T_K"][k] for t in own if len(t["T_K"]) > k]) for k in range(len(whole))]
            axes.plot(whole, mean, color=colour, lw=1.4)
            axes.axhline(T, color=INK, lw=0.9, ls=(0, (4, 2)))
        laws = found["temperature_law"]
        if len({law["system"] for law in laws}) == 1:
            for law in laws:
                low, high = law["target"] - law["canonical_width"], law["target"] + law["canonical_width"]
                colour = VERMILLION if _hot(found, {**law, "temperature": law["target"]}) else BLUE
                axes.axhspan(low, high, color=colour, alpha=0.09, lw=0)
        axes.set(xlabel="time (ps)", ylabel="temperature (K)")
        axes.set_ylim(bottom=0)
        table = _long(series, "T_K")
        return [
            panel(
                figure, "md_temperature", "MD test: temperature", _legend(found, series), png=png, table=table
            )
        ]


def _total_energy(found: Mapping[str, Any], png: bool) -> list[Panel]:
    """The total energy at constant energy, from its first value."""
    series = [t for t in found["constant_energy"] if len(t["t_ps"]) > 1]
    if not series:
        return []
    with drawing(TALL) as (figure, axes):
        for one in series[:SHOWN]:
            axes.plot(one["t_ps"], one["E_meV_atom"], color=BLUE, lw=0.8, alpha=0.8)
        axes.set(xlabel="time (ps)", ylabel="E − first (meV/atom)")
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, -1.0), max(high, 1.0))  # a good energy is not magnified into noise
        table = _long(series, "E_meV_atom")
        return [
            panel(figure, "md_total_energy", "MD test: total energy at constant energy", png=png, table=table)
        ]


def _distances(found: Mapping[str, Any], png: bool) -> list[Panel]:
    """A row for each pair of elements: distances in MD as lines, those of the labelled frames as an area."""
    rows = [d for d in found["distances"] if d["histogram_data"] or d["histogram_md"]]
    rows = sorted(rows, key=_shortest)[:PAIRS][::-1]
    if not rows:
        return []
    with drawing(max(1.5, 0.62 + 0.34 * len(rows))) as (figure, axes):
        for k, d in enumerate(rows):
            x = (np.arange(_bins(d)) + 0.5) * d["bin"]
            top = max(_density(d[name]).max(initial=0.0) for name in NAMES) or 1.0
            for name, colour in NAMES.items():
                y = _density(d[name])
                if not len(y):
                    continue
                if name == "histogram_data":
                    axes.fill_between(x, k, k + 0.85 * y / top, color=colour, alpha=0.28, lw=0)
                else:
                    axes.plot(x, k + 0.85 * y / top, color=colour, lw=0.9)
            axes.plot([0.5 * d["covalent"]] * 2, [k, k + 0.5], color=INK, lw=1.4)
        axes.set_yticks(range(len(rows)), [d["pair"] for d in rows])
        axes.set_ylim(-0.1, len(rows))
        axes.set_xlim(left=0, right=_bins(rows[0]) * rows[0]["bin"])
        axes.set_xlabel("distance (Å)")
        axes.grid(axis="y", visible=False)
        legend = [(MUTED, "labelled frames"), (BLUE, "MD at T"), (VERMILLION, "MD at 1.5 T"),
                  (INK, "counts as exploded")]  # fmt: skip
        return [panel(figure, "md_distances", "MD test: distances", legend, png=png, table=_counted(rows))]


NAMES = {"histogram_data": MUTED, "histogram_md": BLUE, "histogram_md_hot": VERMILLION}


def _bins(d: Series) -> int:
    return max(len(d[name]) for name in NAMES)


def _shortest(d: Series) -> float:
    return min((v for v in (d["data"], d["md"], d["md_hot"]) if v is not None), default=math.inf)


def _density(counts: Sequence[int]) -> Any:
    """Counts as shares of their sum."""
    values = np.array(counts, float)
    return values / values.sum() if values.sum() else values


def _counted(rows: Sequence[Series]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {"pair": [], "distance_A": [], **{name: [] for name in NAMES}}
    for d in rows:
        n = _bins(d)
        columns["pair"] += [d["pair"]] * n
        columns["distance_A"] += [round((k + 0.5) * d["bin"], 4) for k in range(n)]
        for name in NAMES:
            columns[name] += list(d[name]) or [0] * n
    return columns


def _long(series: Sequence[Series], name: str) -> dict[str, list[Any]]:
    return {
        "trajectory": [i for i, s in enumerate(series) for _ in s["t_ps"]],
        "temperature": [s["temperature"] for s in series for _ in s["t_ps"]],
        "time_ps": [t for s in series for t in s["t_ps"]],
        name: [v for s in series for v in s[name]],
    }
