"""Figures of what trajectories did: temperature, volume, energies of labels, shortest distances."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from ase.units import kB
from numpy.typing import NDArray

from aims_pax.report.distances import shortest_by_pair
from aims_pax.report.figures.style import (
    BLUE,
    INK,
    POINTS,
    SHOWN,
    SKY,
    TALL,
    VERMILLION,
    Panel,
    drawing,
    envelope,
    panel,
    thinned,
)
from aims_pax.report.figures.system_colours import system_colour, systems_legend, trajectory_colour
from aims_pax.report.run_record import RunRecord
from aims_pax.report.tolerant_readers import float_or_nan


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
                axes.plot(*envelope(x, shown, 120), color=trajectory_colour(run, i), lw=0.8, alpha=0.8)
            for target in _targets(run) if column == "temperature" else []:
                axes.axhline(target, color=INK, lw=0.9, ls=(0, (4, 2)))
            axes.set(xlabel="MD step", ylabel=unit)
            found.append(
                panel(figure, name, title, systems_legend(run), png=png, table=_long(series, column))
            )
    return found + _label_energies(run, png) + _distances(run, png)


def _targets(run: RunRecord) -> list[float]:
    """The target temperatures (K) of MD: one, those of the systems or trajectories, or the two ends of a ramp."""
    keys = [k for k in run.settings if k.startswith("aimsPAX.MD.") and k.endswith("temperature")]
    each = [run.settings.get(f"{k}s", "None") for k in keys]
    written = [run.settings[k] if own == "None" else own for k, own in zip(keys, each, strict=True)]
    values = [float_or_nan(word) for text in written for word in text.strip("[]").split(",")]
    return sorted({v for v in values if math.isfinite(v)})


def _label_energies(run: RunRecord, png: bool) -> list[Panel]:
    """Reference energies of the labelled frames along the run, relative to the median of each system, with the range
    that thermal motion has: ± 2 √(f/2) kT, f = 3N."""
    rows = [(s.system, float(s.info.get("step", "nan")), s.energy / s.n_atoms) for s in run.structures
            if s.info.get("stage") == "active learning" and s.info.get("step", "").isdigit()]  # fmt: skip
    rows = [r for r in rows if math.isfinite(r[2])]
    if len(rows) < 3:
        return []
    middle = {name: np.median([r[2] for r in rows if r[0] == name]) for name in {r[0] for r in rows}}
    atoms = {s.system: s.n_atoms for s in run.structures}
    hottest = max(_targets(run), default=0.0)
    with drawing(TALL) as (figure, axes):
        for name in sorted(middle):
            width = 2000 * math.sqrt(1.5 * atoms[name]) * kB * hottest / atoms[name]  # meV/atom
            axes.axhspan(-width, width, color=system_colour(run, name), alpha=0.1, lw=0)
            part = [r for r in rows if r[0] == name]
            part = [part[k] for k in thinned(len(part), POINTS)]
            axes.plot([r[1] for r in part], [1000 * (r[2] - middle[name]) for r in part], "o", ms=3,
                      color=system_colour(run, name), alpha=0.75, mec="none")  # fmt: skip
        axes.set(xlabel="MD step", ylabel="energy − median (meV/atom)")
        table = {
            "system": [r[0] for r in rows],
            "step": [r[1] for r in rows],
            "reference_energy_eV_atom": [r[2] for r in rows],
        }
        return [panel(figure, "label_energies", "Energy of the frames it asked for", systems_legend(run),
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
        return [panel(figure, "distances", "How close atoms came", legend, table=table, png=png)]


def _long(series: Sequence[tuple[int, NDArray[Any], NDArray[Any]]], name: str) -> dict[str, list[Any]]:
    return {
        "trajectory": [i for i, x, _ in series for _ in x],
        "step": [v for _, x, _ in series for v in x.tolist()],
        name: [v for _, _, y in series for v in y.tolist()],
    }
