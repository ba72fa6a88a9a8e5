"""The forecast of time and cost in words, and afterwards against what the run took."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aims_pax.report.formatting import STAGES, compact, format_number
from aims_pax.report.time_left import rounded_seconds
from aims_pax.report.tolerant_readers import json_file

FILE = "forecast.json"
PARTS = {  # stages of the forecast → those of the run
    "initial": ("pretrain-sample", "pretrain", "initial", "converge-initial"),
    "explore": ("train-given", "explore"),
    "converge": ("converge",),
}


def read_forecast(logs: Path) -> dict[str, Any]:
    """The stored forecast of a folder of logs; {} when there is none of this format."""
    stored = json_file(logs / FILE)
    return stored if stored.get("format") == 1 and isinstance(stored.get("timings"), dict) else {}


def forecast_lines(found: Mapping[str, Any]) -> list[str]:
    """For the terminal: the measured times, then 10–90 % ranges."""
    t = found["timings"]
    lines = [f"measured: {measured_times(t)}"]
    if t["missing"]:
        lines.append(f"  training and MD were not timed: {t['missing']}")
    if found["load"] > 1.5 * found["cores"]:
        lines.append(
            f"  this machine is busy (load {found['load']:g} on {found['cores']} cores): when it is not, all is faster"
        )
    lines.append("forecast, 10 … 90 % (median):")
    for name in PARTS:
        span = found["stages_s"][name]
        if span is None or any(span):
            lines.append(f"  {STAGES[name]:16} {_times(span)}")
    lines.append(f"  {'in all':16} {_times(found['wall_s'])}; labels {_numbers(found['labels'])}")
    if found["reference_s"] is not None:
        hours = [v * found["reference_slots"] / 3600 for v in found["reference_s"]]
        each = found["reference_slots"]
        lines.append(f"  core hours: reference {_numbers(hours)} ({each} core{'s' * (each > 1)} each), this machine "
                     f"{_numbers(_hours(found['driver_core_s']))} ({found['cores']} cores)")  # fmt: skip
    return lines


def measured_times(t: Mapping[str, Any]) -> str:
    """One label, one epoch, 100 MD steps."""
    parts = [
        "time of a label not known (aims-PAX check --try --label-time SECONDS)" if t["label"] is None
        else f"one label {_seconds(t['label'])} ({t['label_atoms']} atoms)"
    ]  # fmt: skip
    if t["training"] is not None:
        parts.append(f"one epoch of one member {_seconds(100 * t['training'])} for 100 frames")
    if t["md_step"] is not None:
        parts.append(f"100 MD steps of {t['trajectories']} trajectories {_seconds(100 * t['md_step'])}")
    return ", ".join(parts)


def _seconds(value: float) -> str:
    return f"{value:.2g} s" if value < 100 else rounded_seconds(value)


def _hours(values: Sequence[float] | None) -> list[float] | None:
    return None if values is None else [v / 3600 for v in values]


def _times(span: Sequence[float] | None) -> str:
    if span is None:
        return "unknown: no limit ends it, or its times were not measured"
    low, middle, high = (" ".join(compact(v)) for v in span)
    return f"{low} … {high} ({middle})"


def _numbers(span: Sequence[float] | None) -> str:
    if span is None:
        return "unknown"
    low, middle, high = (format_number(v, 2) if v < 100 else f"{v:.0f}" for v in span)
    return low if low == high else f"{low} … {high} ({middle})"


def comparison_rows(found: Mapping[str, Any], took: Mapping[str, float]) -> list[list[str]]:
    """[what, forecast, truth, whether it lies in the range] for a finished run.

    took: `wall`, `labels`, `reference` and the stages of PARTS, in the units of the forecast; NaN: unknown.
    """
    rows = []
    spans = [(STAGES[name], found["stages_s"].get(name), took.get(name, math.nan)) for name in PARTS]
    spans += [("time in all", found["wall_s"], took["wall"])]
    for what, span, truth in spans:
        if span is not None and math.isfinite(truth) and (any(span) or truth > 1):
            rows.append([what, _times(span), rounded_seconds(truth), inside(span, truth)])
    if found["labels"] is not None:
        rows.append(
            [
                "labels",
                _numbers(found["labels"]),
                f"{took['labels']:.0f}",
                inside(found["labels"], took["labels"]),
            ]
        )
    if found["reference_s"] is not None:
        truth = took["reference"]
        rows.append(["inside reference calculations", _times(found["reference_s"]), rounded_seconds(truth),
                     inside(found["reference_s"], truth)])  # fmt: skip
    return rows


def inside(span: Sequence[float], truth: float) -> str:
    """`in the range`, `shorter` or `longer`; ends count within rounding."""
    if truth < 0.98 * span[0] - 0.5:
        return "below the range"
    return "in the range" if truth <= 1.02 * span[-1] + 0.5 else "above the range"
