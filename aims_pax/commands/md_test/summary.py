"""The results of the MD test as plain values, for `md_test.json`, from which table, figures and report are made."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase.data import chemical_symbols, covalent_radii

from aims_pax.commands.md_test.starts import TestedSystem
from aims_pax.commands.md_test.trajectories import Followed, drift
from aims_pax.md.temperature_law import TemperatureLaw, temperature_law
from aims_pax.report.distances import BIN, distance_histograms
from aims_pax.report.figures.style import thinned

POINTS = 120  # of each series in the file
DATA_FRAMES = 300  # labelled frames whose distances are compared
NOT_CANONICAL = "berendsen"  # its barostat comes with a thermostat that makes the width too small


def summary_of_trajectories(
    thermal: Sequence[Followed], constant: Sequence[Followed], systems: Sequence[TestedSystem]
) -> dict[str, Any]:
    """Everything about the trajectories: each of them, the temperature law, the energy drift, the distances."""
    used = [s for s in systems if s.name in {f.start.system for f in thermal}]
    return {
        "trajectories": [_trajectory(f) for f in thermal],
        "temperature_law": _laws(thermal),
        "constant_energy": [_constant(f) for f in constant],
        "drift": _drifts(constant),
        "distances": _distances(thermal, used),
    }


def _trajectory(one: Followed) -> dict[str, Any]:
    shown = thinned(len(one.ps), POINTS)
    E = 1000 * (np.array(one.energy) - (one.energy[0] if one.energy else 0.0)) / len(one.state)
    return {
        "system": one.start.system,
        "start": one.start.frame.id,
        "temperature": one.start.temperature,
        "ensemble": str(one.start.md.stat_ensemble),
        "timestep_fs": one.start.md.timestep,
        "ps": round(one.length, 6),
        "fault": one.fault,
        "bonds": len(one.start.bonds.pairs),
        "t_ps": _rounded(np.array(one.ps)[shown]),
        "T_K": _rounded(np.array(one.temperature)[shown], 2),
        "E_meV_atom": _rounded(E[shown], 3),
    }


def _constant(one: Followed) -> dict[str, Any]:
    slope, rms = drift(one)
    shown = thinned(len(one.ps), POINTS)
    E = 1000 * (np.array(one.total) - (one.total[0] if one.total else 0.0)) / len(one.state)
    return {
        "system": one.start.system,
        "temperature": one.start.temperature,
        "ps": round(one.length, 6),
        "fault": one.fault,
        "drift_meV_atom_ps": _number(slope),
        "rms_meV_atom": _number(rms),
        "t_ps": _rounded(np.array(one.ps)[shown]),
        "E_meV_atom": _rounded(E[shown], 4),
    }


def _laws(thermal: Sequence[Followed]) -> list[dict[str, Any]]:
    """One for each system and temperature, from trajectories that survived."""
    groups: dict[tuple[str, float, int], list[Followed]] = {}
    for f in thermal:
        if f.survived:
            groups.setdefault((f.start.system, f.start.temperature, f.state.degrees), []).append(f)
    return [_law(temperature_law([f.settled() for f in own], T, degrees), system, own)
            for (system, T, degrees), own in groups.items()]  # fmt: skip


def _law(law: TemperatureLaw, system: str, own: Sequence[Followed]) -> dict[str, Any]:
    md = own[0].start.md
    canonical = not (md.stat_ensemble == "NPT" and str(getattr(md, "barostat", "")).lower() == NOT_CANONICAL)
    return {
        "system": system,
        "target": law.target,
        "degrees": law.degrees,
        "mean": _number(law.mean),
        "mean_error": _number(law.mean_error),
        "width": _number(law.width),
        "width_error": _number(law.width_error),
        "canonical_width": _number(law.canonical_width),
        "independent": _number(law.independent),
        "agrees": law.agrees if canonical else None,
        "canonical_thermostat": canonical,
    }


def _drifts(constant: Sequence[Followed]) -> list[dict[str, Any]]:
    """Mean drift of each system and its standard error over trajectories (None for one); meV/atom/ps."""
    found = []
    for system in dict.fromkeys(f.start.system for f in constant):
        slopes = [s for f in constant if f.start.system == system and math.isfinite(s := drift(f)[0])]
        if not slopes:
            continue
        error = float(np.std(slopes, ddof=1) / math.sqrt(len(slopes))) if len(slopes) > 1 else math.nan
        found.append({
            "system": system, "trajectories": len(slopes), "mean": _number(float(np.mean(slopes))),
            "error": _number(error), "largest": _number(max(slopes, key=abs)),
        })  # fmt: skip
    return found


def _distances(thermal: Sequence[Followed], systems: Sequence[TestedSystem]) -> list[dict[str, Any]]:
    """For each pair of elements: the shortest distance in MD at each temperature and in the data, and histograms."""
    frames = [f.frame for s in systems for f in s.frames]
    frames = [frames[int(k)] for k in thinned(len(frames), DATA_FRAMES)]
    data, nearest = distance_histograms(frames)
    lowest = {f.start.system: f.start.temperature for f in reversed(thermal)}  # starts go from T to 1.5 T
    cool, near = distance_histograms(
        s for f in thermal if f.start.temperature == lowest[f.start.system] for s in f.states
    )
    hot, near_hot = distance_histograms(
        s for f in thermal if f.start.temperature != lowest[f.start.system] for s in f.states
    )
    return [
        {
            "pair": "–".join(chemical_symbols[z] for z in pair),
            "data": nearest.get(pair), "md": near.get(pair), "md_hot": near_hot.get(pair),
            "covalent": round(float(sum(covalent_radii[z] for z in pair)), 4),
            "bin": BIN,
            "histogram_data": _counts(data, pair), "histogram_md": _counts(cool, pair),
            "histogram_md_hot": _counts(hot, pair),
        }
        for pair in sorted({*data, *cool, *hot})
    ]  # fmt: skip


def _counts(histograms: Mapping[tuple[int, int], Any], pair: tuple[int, int]) -> list[int]:
    return [int(n) for n in histograms[pair]] if pair in histograms else []


def _rounded(values: Any, digits: int = 5) -> list[float]:
    return [round(float(v), digits) for v in values]


def _number(value: float) -> float | None:
    """None if not finite: JSON has no NaN."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
