"""Parity plots (prediction against reference) and histograms of the errors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from ase.data import chemical_symbols
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from aims_pax.report.accuracy import NAMES, UNSEEN
from aims_pax.report.figures.style import COLOURS, GRID, MUTED, Panel, drawing, panel, thinned
from aims_pax.report.run_record import RunRecord

POINTS = 1500
Predictions = Mapping[str, NDArray[Any]]  # of F frames with A atoms together, see `report.predictions`


class Cloud(NamedTuple):
    """The values (V,) of one system or element that no member was trained on, and the set of each (V,)."""

    name: str
    colour: str
    true: NDArray[Any]
    predicted: NDArray[Any]
    split: NDArray[Any]


class Quantity(NamedTuple):
    """What is compared. scale: from eV and Å to the unit of the axes. trained_*: (V,) of training frames, in grey.

    about: what the axes are relative to.
    """

    name: str
    title: str
    unit: str
    scale: float
    clouds: list[Cloud]
    trained_true: NDArray[Any]
    trained_predicted: NDArray[Any]
    about: str = ""


def parity_figure(run: RunRecord, png: bool = False) -> list[Panel]:
    """Energies and stress by system, forces by element: parity, then errors. Frames not trained on are in colour."""
    p = run.predictions
    if not p:
        return []
    trained = p["split"] == "train"
    if trained.all():
        trained = np.zeros_like(trained)
    quantities = [_energy(p, trained), _forces(p, trained)]
    if run.setting("GENERAL.compute_stress") == "True":  # otherwise stress was not trained on
        quantities.append(_stress(p, trained))
    return [replace(_parity(q, png), below=_histogram(q, png)) for q in quantities if q.clouds]


def _energy(p: Predictions, trained: NDArray[np.bool_]) -> Quantity:
    """Energies per atom, without the mean of each system: its scatter would be invisible."""
    predicted, true = (p[k] / p["n_atoms"] for k in ("energy", "true_energy"))
    centre = {s: true[p["system"] == s].mean() for s in np.unique(p["system"]).tolist()}
    offset = np.array([centre[s] for s in p["system"]])
    true, predicted = true - offset, predicted - offset
    clouds = _by_system(p, true, predicted, ~trained)
    return Quantity(
        "energy", "Energy", "meV/atom", 1000.0, clouds, true[trained], predicted[trained], " − mean"
    )


def _forces(p: Predictions, trained: NDArray[np.bool_]) -> Quantity:
    """Components of the forces, by element."""
    frame_of = np.repeat(np.arange(len(p["n_atoms"])), p["n_atoms"])  # (A,) of each atom
    true, predicted, split = p["true_forces"], p["forces"], p["split"][frame_of]
    grey = trained[frame_of]
    clouds = [
        Cloud(
            chemical_symbols[z], COLOURS[k % 6], true[m].ravel(), predicted[m].ravel(), np.repeat(split[m], 3)
        )
        for k, z in enumerate(np.unique(p["numbers"]))
        if (m := (p["numbers"] == z) & ~grey).any()
    ]
    return Quantity(
        "forces", "Force components", "eV/Å", 1.0, clouds, true[grey].ravel(), predicted[grey].ravel()
    )


def _stress(p: Predictions, trained: NDArray[np.bool_]) -> Quantity:
    """Components of the stress of frames that have one, by system."""
    true, predicted = p["true_stress"], p["stress"]
    known = np.isfinite(predicted).all(axis=(1, 2)) & np.isfinite(true).all(axis=(1, 2))
    grey = trained & known
    clouds = _by_system(p, true, predicted, known & ~trained)
    return Quantity(
        "stress", "Stress components", "meV/Å³", 1000.0, clouds, true[grey].ravel(), predicted[grey].ravel()
    )


def _by_system(
    p: Predictions, true: NDArray[Any], predicted: NDArray[Any], frames: NDArray[np.bool_]
) -> list[Cloud]:
    """A cloud for each system. true, predicted: (F, …). frames: (F,) which of them to show."""
    width = math.prod(true.shape[1:])  # values of a frame
    return [
        Cloud(s, COLOURS[k % 6], true[m].ravel(), predicted[m].ravel(), np.repeat(p["split"][m], width))
        for k, s in enumerate(sorted(set(p["system"].tolist())))
        if (m := frames & (p["system"] == s)).any()
    ]


def _parity(q: Quantity, png: bool) -> Panel:
    with drawing(3.1) as (figure, axes):
        k = thinned(len(q.trained_true), POINTS)
        x, y = q.scale * q.trained_true[k], q.scale * q.trained_predicted[k]
        axes.plot(x, y, "o", color=MUTED, ms=2, alpha=0.22, mec="none")
        for c in q.clouds:
            k = _far_and_even(c.true, c.predicted, POINTS // len(q.clouds))
            x, y = q.scale * c.true[k], q.scale * c.predicted[k]
            axes.plot(x, y, "o", color=c.colour, ms=2.8, alpha=0.6, mec="none")
        shown = [v for c in q.clouds for v in (c.true, c.predicted)]
        values = q.scale * np.concatenate([*shown, q.trained_true, q.trained_predicted])
        low, high = float(values.min()), float(values.max())
        pad = 0.04 * (high - low) or 1.0
        axes.plot([low - pad, high + pad], [low - pad, high + pad], color=GRID, lw=1, zorder=0)
        axes.set(xlim=(low - pad, high + pad), ylim=(low - pad, high + pad))
        axes.set(xlabel=f"reference{q.about} ({q.unit})", ylabel=f"model{q.about} ({q.unit})")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        legend = [(c.colour, c.name) for c in q.clouds][:6]
        legend += [(MUTED, "training")] if len(q.trained_true) else []
        table = {
            "group": [c.name for c in q.clouds for _ in c.true],
            "split": np.concatenate([c.split for c in q.clouds]),
            f"reference_{q.unit}": q.scale * np.concatenate([c.true for c in q.clouds]),
            f"model_{q.unit}": q.scale * np.concatenate([c.predicted for c in q.clouds]),
        }
        return panel(figure, f"parity_{q.name}", q.title, legend, table=table, png=png)


def _histogram(q: Quantity, png: bool) -> Panel:
    unit, scale = ("meV/Å", 1000.0) if q.name == "forces" else (q.unit, q.scale)
    errors = [scale * (c.predicted - c.true) for c in q.clouds]
    splits = np.concatenate([c.split for c in q.clouds])
    everything = np.concatenate(errors)
    reach = float(np.quantile(np.abs(everything), 0.99)) or 1.0
    bins = np.linspace(-reach, reach, int(np.clip(2 * len(everything) ** 0.5, 11, 45)) | 1)
    several = len(errors) > 1
    with drawing(1.75) as (figure, axes):
        for c, e in zip(q.clouds, errors, strict=True):
            axes.hist(np.clip(e, -reach, reach), bins.tolist(), histtype="step" if several else "stepfilled",
                      color=c.colour, lw=1.3, alpha=1.0 if several else 0.75)  # fmt: skip
        axes.set(xlabel=f"error, model − reference ({unit})", ylabel="count", xlim=(-reach, reach))
        axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        note = " ".join(
            _sizes(everything[splits == s], NAMES.get(s, s), unit)
            for s in sorted(set(splits.tolist()), key=lambda s: s not in UNSEEN)
        )
        legend = [(c.colour, c.name) for c in q.clouds][:6] if several else []
        group = [c.name for c in q.clouds for _ in c.true]
        table = {"group": group, "split": splits, f"error_{unit}": everything}
        return panel(figure, f"errors_{q.name}", f"{q.title}: errors", legend, note, table, png)


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
