"""The page of `aims-PAX gpr`: parity, errors against uncertainties, leave-one-out errors, copies.

gpr.html            the page
gpr/<figure>.png    each figure
gpr/errors.json     the numbers of the page
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aims_pax.frames import Array, LabelledFrame
from aims_pax.models.gp.leave_one_out import NORMAL_90, LeaveOneOutErrors
from aims_pax.models.gp.sparse_process import ProcessPrediction
from aims_pax.models.gp.surrogate_copies import LabelledCopies
from aims_pax.record.files import write_bytes, write_text
from aims_pax.report.figures.style import BLUE, MUTED, ORANGE, Panel, drawing, escaped, panel, thinned
from aims_pax.report.html_page import figures_html, html_table
from aims_pax.report.html_style import STYLE

GPR_PAGE, GPR_FOLDER = "gpr.html", "gpr"
POINTS = 4000


@dataclass(frozen=True)
class TestErrors:
    """Labels and predictions of a test set: energies (F,) eV, forces (A, 3) eV/Å."""

    __test__ = False  # no class of tests

    energies: Array
    forces: Array
    said: ProcessPrediction

    @property
    def energy_mae(self) -> float:
        return float(np.abs(self.said.energies - self.energies).mean())

    @property
    def force_mae(self) -> float:
        """Of components."""
        return float(np.abs(self.said.forces - self.forces).mean())

    @property
    def force_norm_mae(self) -> float:
        """Mean length of the error of an atom's force."""
        return float(np.linalg.norm(self.said.forces - self.forces, axis=1).mean())

    @property
    def coverage(self) -> float | None:
        """Share of force components in their 90 % intervals."""
        if self.said.force_sd is None:
            return None
        inside = np.abs(self.said.forces - self.forces) <= NORMAL_90 * self.said.force_sd
        return float(inside.mean())

    @property
    def energy_coverage(self) -> float | None:
        """Share of energies in their 90 % intervals."""
        if self.said.energy_sd is None:
            return None
        return float((np.abs(self.said.energies - self.energies) <= NORMAL_90 * self.said.energy_sd).mean())


@dataclass(frozen=True)
class GprRecord:
    """What the page shows."""

    file: str
    descriptor: str
    train: Sequence[LabelledFrame]
    test: Sequence[LabelledFrame]
    loo: LeaveOneOutErrors
    tested: TestErrors | None
    copies: LabelledCopies | None


def write_gpr_page(folder: Path, record: GprRecord) -> Path:
    """Write page, figures and numbers; returns the path of the page."""
    panels = [*_parity(record), *_uncertainty(record), _leave_one_out(record)]
    for one in panels:
        write_bytes(folder / GPR_FOLDER / f"{one.name}.png", one.png)
    numbers = summary_of(record)
    write_text(folder / GPR_FOLDER / "errors.json", json.dumps(numbers, indent=1, ensure_ascii=False) + "\n")
    title = f"{escaped(record.file)} · Gaussian process"
    text = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<title>{title}</title><link rel="icon" href="data:,"><style>{STYLE}</style></head><body><main>'
        f"<header><h1>{title}</h1></header>"
        f"<section><h2>How wrong is it?</h2>{_table(record)}{figures_html(panels)}</section>"
        "</main></body></html>\n"
    )
    write_text(folder / GPR_PAGE, text)
    return folder / GPR_PAGE


def summary_of(record: GprRecord) -> dict[str, Any]:
    """The numbers of the page; eV, eV/Å."""
    found: dict[str, Any] = {
        "descriptor": record.descriptor,
        "train": len(record.train),
        "loo_energy_mae": _finite(record.loo.energy_mae),
        "loo_force_mae": record.loo.force_mae,
    }
    if record.tested is not None:
        t = record.tested
        found |= {
            "test": len(record.test), "energy_mae": t.energy_mae, "force_mae": t.force_mae,
            "force_norm_mae": t.force_norm_mae, "coverage_90": t.coverage, "energy_coverage_90": t.energy_coverage,
        }  # fmt: skip
    if record.copies is not None:
        found |= {"copies": len(record.copies.copies), "refused": dict(record.copies.refused)}
    return found


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _table(record: GprRecord) -> str:
    def milli(value: float) -> str:
        return f"{1000 * value:.2f}" if np.isfinite(value) else "–"

    rows: list[tuple[Any, ...]] = [
        ("leave-one-out", len(record.train), milli(record.loo.energy_mae), milli(record.loo.force_mae), "")
    ]
    if record.tested is not None:
        t = record.tested
        shares = [f"{100 * c:.0f} %" for c in (t.energy_coverage, t.coverage) if c is not None]
        covered = " and ".join(shares)
        rows.append(("test", len(record.test), milli(t.energy_mae), milli(t.force_mae), covered))
    head = [
        "",
        "structures",
        "energy MAE meV",
        "force component MAE meV/Å",
        "energies and forces in 90 % intervals",
    ]
    table = html_table("", head, rows)
    if record.copies is not None:
        refused = [(reason, n) for reason, n in record.copies.refused.items()]
        table += html_table("copies", ["", "number"], [("written", len(record.copies.copies)), *refused])
    return table


def _parity(record: GprRecord) -> list[Panel]:
    if record.tested is None:
        return []
    t = record.tested
    shift = float(t.energies.mean())
    return [
        _cloud(
            "gpr_energies",
            "Energies of the test set",
            "eV − mean",
            t.energies - shift,
            t.said.energies - shift,
        ),
        _cloud(
            "gpr_forces", "Force components of the test set", "eV/Å", t.forces.ravel(), t.said.forces.ravel()
        ),
    ]


def _cloud(name: str, title: str, unit: str, true: Array, said: Array) -> Panel:
    keep = thinned(len(true), POINTS)
    with drawing(2.9, 4.0) as (figure, axes):
        low, high = float(min(true.min(), said.min())), float(max(true.max(), said.max()))
        axes.plot([low, high], [low, high], color=MUTED, linewidth=0.8)
        axes.plot(true[keep], said[keep], ".", color=BLUE, markersize=3, rasterized=False)
        axes.set_xlabel(f"reference, {unit}")
        axes.set_ylabel(f"predicted, {unit}")
        return panel(figure, name, title, png=True)


def _uncertainty(record: GprRecord) -> list[Panel]:
    t = record.tested
    # without forces there is nothing to draw, as in a primitive cell of one atom
    if t is None or t.said.force_sd is None or not (t.said.force_sd > 0).any():
        return []
    sd = t.said.force_sd.ravel()
    error, sd = np.abs(t.said.forces - t.forces).ravel()[sd > 0], sd[sd > 0]
    keep = thinned(len(error), POINTS)
    with drawing(2.9, 4.0) as (figure, axes):
        axes.loglog(sd[keep], np.maximum(error[keep], 1e-7), ".", color=BLUE, markersize=3)
        ends = np.array([sd.min(), sd.max()])
        axes.loglog(ends, NORMAL_90 * ends, color=ORANGE, linewidth=1)
        axes.set_xlabel("standard deviation, eV/Å")
        axes.set_ylabel("error, eV/Å")
        legend = [(ORANGE, "90 % should be below")]
        return [
            panel(figure, "gpr_uncertainty", "Errors of forces against their uncertainties", legend, png=True)
        ]


def _leave_one_out(record: GprRecord) -> Panel:
    with drawing(2.9, 4.0) as (figure, axes):
        axes.hist(1000 * np.abs(record.loo.forces), bins=40, color=BLUE, alpha=0.8)
        axes.set_xlabel("leave-one-out error of a force component, meV/Å")
        axes.set_ylabel("number")
        return panel(figure, "gpr_leave_one_out", "Leave-one-out errors of the training set", png=True)
