"""Parity plots (prediction against reference) and histograms of the errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from aims_pax.report.accuracy import NAMES, UNSEEN
from aims_pax.report.figures.style import COLOURS, GRID, MUTED, Panel, drawing, panel, thinned
from aims_pax.report.run_record import RunRecord

POINTS = 1500

# (name, colour, true values, predicted values, split of each value)
Cloud = tuple[str, str, NDArray[Any], NDArray[Any], NDArray[Any]]


def parity_figure(run: RunRecord, png: bool = False) -> list[Panel]:
    """Energies and stress by system, forces by element: parity, then errors. Frames not trained on are in colour."""
    p = run.predictions
    if not p:
        return []
    atoms_of = np.repeat(np.arange(len(p["n_atoms"])), p["n_atoms"])
    trained = p["split"] == "train"
    if trained.all():
        trained = np.zeros_like(trained)
    systems = sorted(set(p["system"].tolist()))
    elements = np.unique(p["numbers"])
    energy, true_energy = (p[k] / p["n_atoms"] for k in ("energy", "true_energy"))
    centre = {s: true_energy[p["system"] == s].mean() for s in systems}
    offset = np.array([centre[s] for s in p["system"]])
    force_trained = trained[atoms_of]
    learnt = run.setting("GENERAL.compute_stress") == "True"  # otherwise stress was not trained on
    stressed = (
        learnt & np.isfinite(p["stress"]).all(axis=(1, 2)) & np.isfinite(p["true_stress"]).all(axis=(1, 2))
    )

    def of_systems(true: NDArray[Any], said: NDArray[Any], keep: NDArray[np.bool_]) -> list[Cloud]:
        chosen = [(s, keep & (p["system"] == s) & ~trained) for s in systems]
        return [
            (
                s,
                COLOURS[k % 6],
                true[m].ravel(),
                said[m].ravel(),
                np.repeat(p["split"][m], true[m].size // m.sum()),
            )
            for k, (s, m) in enumerate(chosen)
            if m.any()
        ]

    everyone = np.ones(len(trained), bool)
    force_clouds = [
        (
            chemical_symbols[z],
            COLOURS[k % 6],
            *(p[n][(p["numbers"] == z) & ~force_trained].ravel() for n in ("true_forces", "forces")),
            np.repeat(p["split"][atoms_of][(p["numbers"] == z) & ~force_trained], 3),
        )
        for k, z in enumerate(elements)
        if ((p["numbers"] == z) & ~force_trained).any()
    ]
    quantities = [
        ("energy", "Energy", "meV/atom", 1000.0, of_systems(true_energy - offset, energy - offset, everyone),
         (true_energy - offset)[trained], (energy - offset)[trained], " − mean"),
        ("forces", "Force components", "eV/Å", 1.0, force_clouds,
         p["true_forces"][force_trained].ravel(), p["forces"][force_trained].ravel(), ""),
        ("stress", "Stress components", "meV/Å³", 1000.0, of_systems(p["true_stress"], p["stress"], stressed),
         p["true_stress"][trained & stressed].ravel(), p["stress"][trained & stressed].ravel(), ""),
    ]  # fmt: skip
    quantities = [q for q in quantities if q[4]]
    return [
        replace(_parity(*q, png), below=_histogram(name, title, unit, scale, clouds, png))
        for q, (name, title, unit, scale, clouds, *_) in zip(quantities, quantities, strict=True)
    ]


def _parity(name: str, title: str, unit: str, scale: float, clouds: Sequence[Cloud], true: NDArray[Any],
            said: NDArray[Any], about: str, png: bool) -> Panel:  # fmt: skip
    with drawing(3.1) as (figure, axes):
        k = thinned(len(true), POINTS)
        axes.plot(scale * true[k], scale * said[k], "o", color=MUTED, ms=2, alpha=0.22, mec="none")
        for _, colour, x, y, _ in clouds:
            k = _far_and_even(x, y, POINTS // len(clouds))
            axes.plot(scale * x[k], scale * y[k], "o", color=colour, ms=2.8, alpha=0.6, mec="none")
        values = scale * np.concatenate([v for _, _, x, y, _ in clouds for v in (x, y)] + [true, said])
        low, high = float(values.min()), float(values.max())
        pad = 0.04 * (high - low) or 1.0
        axes.plot([low - pad, high + pad], [low - pad, high + pad], color=GRID, lw=1, zorder=0)
        axes.set(xlim=(low - pad, high + pad), ylim=(low - pad, high + pad))
        axes.set(xlabel=f"reference{about} ({unit})", ylabel=f"model{about} ({unit})")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        legend = [(c, n) for n, c, *_ in clouds][:6] + ([(MUTED, "training")] if len(true) else [])
        table = {
            "group": [n for n, _, x, *_ in clouds for _ in x],
            "split": np.concatenate([split for *_, split in clouds]),
            f"reference_{unit}": scale * np.concatenate([x for _, _, x, _, _ in clouds]),
            f"model_{unit}": scale * np.concatenate([y for _, _, _, y, _ in clouds]),
        }
        return panel(figure, f"parity_{name}", title, legend, table=table, png=png)


def _histogram(name: str, title: str, unit: str, scale: float, clouds: Sequence[Cloud], png: bool) -> Panel:
    unit, scale = ("meV/Å", 1000.0) if name == "forces" else (unit, scale)
    errors = [(n, c, scale * (y - x)) for n, c, x, y, _ in clouds]
    splits = np.concatenate([split for *_, split in clouds])
    everything = np.concatenate([e for _, _, e in errors])
    reach = float(np.quantile(np.abs(everything), 0.99)) or 1.0
    bins = np.linspace(-reach, reach, int(np.clip(2 * len(everything) ** 0.5, 11, 45)) | 1)
    with drawing(1.75) as (figure, axes):
        for _, colour, e in errors:
            axes.hist(np.clip(e, -reach, reach), bins.tolist(), histtype="step" if len(errors) > 1 else "stepfilled",
                      color=colour, lw=1.3, alpha=1.0 if len(errors) > 1 else 0.75)  # fmt: skip
        axes.set(xlabel=f"error, model − reference ({unit})", ylabel="count", xlim=(-reach, reach))
        axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        note = " ".join(
            _sizes(everything[splits == s], NAMES.get(s, s), unit)
            for s in sorted(set(splits.tolist()), key=lambda s: s not in UNSEEN)
        )
        legend = [(c, n) for n, c, _ in errors][:6] if len(errors) > 1 else []
        table = {"group": [n for n, _, e in errors for _ in e], "split": splits, f"error_{unit}": everything}
        return panel(figure, f"errors_{name}", f"{title}: errors", legend, note, table, png)


def _sizes(errors: NDArray[Any], split: str, unit: str) -> str:
    """`Test: MAE 1.2, RMSE 1.6 meV/Å.` One sentence per split, because validation frames decided when to stop."""
    mae, rmse = float(np.abs(errors).mean()), float(np.sqrt((errors**2).mean()))
    return f"{split[0].upper()}{split[1:]}: MAE {mae:.3g}, RMSE {rmse:.3g} {unit}."


def _far_and_even(x: NDArray[Any], y: NDArray[Any], most: int) -> NDArray[np.int64]:
    """At most `most` indices: a tenth for the largest errors, the others evenly spaced."""
    if len(x) <= most:
        return np.arange(len(x))
    worst = np.argsort(np.abs(y - x))[-most // 10 :]
    return np.union1d(worst, thinned(len(x), most - len(worst)))
