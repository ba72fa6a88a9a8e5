"""The MD test in words: whether a model is fit for MD, as a verdict and tables, from `md_test.json`.

The terminal, the report of a run and the model's folder show the same lines.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aims_pax.report.formatting import duration, format_number, milli, plural
from aims_pax.report.tolerant_readers import json_file

FILE = "md_test.json"
DRIFT = 1.0  # meV/atom/ps: a larger drift of the total energy is called one
CLOSER = 0.9  # times the shortest distance in the data: atoms came closer than the model has learnt

Rows = list[list[str]]


@dataclass(frozen=True)
class MDVerdict:
    """kind: fit | limited | unfit."""

    kind: str
    text: str


def read_md_test(folder: Path) -> dict[str, Any]:
    """The stored results of the MD test in a folder; {} when there are none of this format, or of no trajectory."""
    stored = json_file(folder / FILE)
    moved = isinstance(stored.get("trajectories"), list) and stored["trajectories"]
    return stored if stored.get("format") == 1 and moved else {}


def md_verdict(found: Mapping[str, Any]) -> MDVerdict:
    """Whether the model is fit for MD at the tested temperature, and what is wrong if it is not."""
    cool, hot = _by_temperature(found)
    lost, lost_hot = ([t for t in ts if t["fault"]] for ts in (cool, hot))
    longest = max((t["ps"] for t in cool), default=0.0)
    length = f"{longest:.3g} ps"
    if lost:
        first = min(lost, key=lambda t: t["ps"])
        text = (
            f"Not fit for MD: {len(lost)} of {plural(len(cool), 'trajectory')} at {_heat(cool)} ended early, "
            f"the first ({first['system']}) because {first['fault']}."
        )
        return MDVerdict("unfit", text)
    wrong = [*_drift_remarks(found), *_law_remarks(found), *_constant_remarks(found)]
    head = f"{plural(len(cool), 'trajectory')} of {length} at {_heat(cool)}"
    whole = " with every bond kept" if any(t["bonds"] for t in cool) else ""
    if wrong:
        return MDVerdict("unfit", f"Survived {head}{whole}, but {'; '.join(wrong)}.")
    text = f"Survived {head}{whole}"
    if lost_hot:
        first = min(lost_hot, key=lambda t: t["ps"])
        text += (
            f"; at {_heat(hot)} {len(lost_hot)} of {len(hot)} ended early, the first because {first['fault']}: do not "
            "use it that hot"
        )
        return MDVerdict("limited", f"{text}.")
    text += f", and {len(hot)} at {_heat(hot)}" if hot else ""
    if closer := closer_pairs(found):
        pair, near, data = closer[0]
        text += (
            f"; {pair} came to {near:.2f} Å, closer than in any labelled frame ({data:.2f} Å): the model extrapolates "
            "there"
        )
        return MDVerdict("limited", f"{text}.")
    open_laws = any(law["agrees"] is None and law["canonical_thermostat"] for law in found["temperature_law"])
    vague = any((d["error"] or 0.0) > DRIFT for d in found["drift"]) or not found["drift"]
    if vague and open_laws:
        sound = "the test is too short to see a drift of its energy, and too short for its temperature"
    elif vague:
        sound = "the test is too short to see a drift of its energy, and its temperature follows the canonical law"
    elif open_laws:
        sound = "its energy is conserved, and the test is too short for its temperature"
    else:
        sound = "its energy is conserved and its temperature follows the canonical law"
    short = "" if longest >= 10 else " Rare events appear only in longer tests (aims-PAX test --md --ps 50)."
    return MDVerdict("fit", f"{text}; {sound}.{short}")


def _by_temperature(found: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Trajectories at the temperature of their system, and hotter ones."""
    lowest: dict[str, float] = {}
    for t in found["trajectories"]:
        lowest[t["system"]] = min(t["temperature"], lowest.get(t["system"], math.inf))
    cool = [t for t in found["trajectories"] if t["temperature"] == lowest[t["system"]]]
    return cool, [t for t in found["trajectories"] if t["temperature"] != lowest[t["system"]]]


def _heat(trajectories: Sequence[Mapping[str, Any]]) -> str:
    heats = sorted({t["temperature"] for t in trajectories})
    return f"{heats[0]:g} K" if len(heats) == 1 else f"{heats[0]:g} … {heats[-1]:g} K"


def _drift_remarks(found: Mapping[str, Any]) -> list[str]:
    return [
        f"the total energy of {d['system']} drifts by {format_number(d['mean'], 2)} meV/atom/ps at constant energy"
        for d in found["drift"]
        if drifts(d)
    ]


def drifts(one: Mapping[str, Any]) -> bool:
    """Whether a mean drift is above DRIFT and not within two of its standard errors."""
    error = one["error"] or 0.0
    return bool(abs(one["mean"]) > DRIFT and abs(one["mean"]) > 2 * error)


def _constant_remarks(found: Mapping[str, Any]) -> list[str]:
    lost = [t for t in found["constant_energy"] if t["fault"]]
    if not lost:
        return []
    return [
        f"{len(lost)} of {len(found['constant_energy'])} ended early at constant energy ({lost[0]['fault']})"
    ]


def _law_remarks(found: Mapping[str, Any]) -> list[str]:
    return [
        f"the kinetic temperature of {law['system']} at {law['target']:g} K is {law['mean']:.0f} ± "
        f"{law['mean_error']:.0f} K with a width of {law['width']:.0f} ± {law['width_error']:.0f} K, where "
        f"{law['canonical_width']:.0f} K is canonical"
        for law in found["temperature_law"]
        if law["agrees"] is False
    ]


def closer_pairs(found: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """(pair, shortest distance in MD, in the data; Å) where MD came clearly closer, the worst first.

    The pair says so where it happened at 1.5 T only.
    """
    rows = []
    for d in found["distances"]:
        near = min((v for v in (d["md"], d["md_hot"]) if v is not None), default=None)
        if near is not None and d["data"] is not None and near < CLOSER * d["data"]:
            only_hot = d["md"] is None or d["md"] >= CLOSER * d["data"]
            rows.append((f"{d['pair']} at 1.5 T" if only_hot else d["pair"], near, d["data"]))
    return sorted(rows, key=lambda r: r[1] / r[2])


# ---------------------------------------------------------------- tables


def survival_rows(found: Mapping[str, Any]) -> tuple[list[str], Rows]:
    """(head, rows): survival by system and temperature, and what ended trajectories."""
    groups: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for t in found["trajectories"]:
        groups.setdefault((t["system"], t["temperature"]), []).append(t)
    rows = []
    for (system, T), own in groups.items():
        lost = [t for t in own if t["fault"]]
        why = min(lost, key=lambda t: t["ps"])["fault"] if lost else ""
        law = next((x for x in found["temperature_law"] if (x["system"], x["target"]) == (system, T)), None)
        rows.append([
            system, f"{T:g}", f"{len(own) - len(lost)} of {len(own)}", f"{sum(t['ps'] for t in own):.3g}",
            *(("—", "—") if law is None or law["mean"] is None else _law_cells(law)), why,
        ])  # fmt: skip
    return [
        "system",
        "T (K)",
        "survived",
        "ps in all",
        "⟨T⟩ (K)",
        "width (K), canonical",
        "first fault",
    ], rows


def _law_cells(law: Mapping[str, Any]) -> tuple[str, str]:
    sign = {True: "", False: " ✗", None: " ?"}[law["agrees"]]
    return (
        f"{law['mean']:.0f} ± {law['mean_error']:.0f}",
        f"{law['width']:.0f} ± {law['width_error']:.0f}, {law['canonical_width']:.0f}{sign}",
    )


def drift_rows(found: Mapping[str, Any]) -> tuple[list[str], Rows]:
    """(head, rows): drift of the total energy at constant energy."""
    rows = []
    for d in found["drift"]:
        own = [
            c
            for c in found["constant_energy"]
            if c["system"] == d["system"] and c["rms_meV_atom"] is not None
        ]
        error = "" if d["error"] is None else f" ± {format_number(d['error'], 2)}"
        rms = format_number(max(c["rms_meV_atom"] for c in own), 2)
        length = f"{max(c['ps'] for c in own):.3g}"
        rows.append(
            [d["system"], str(d["trajectories"]), length, f"{format_number(d['mean'], 2)}{error}", rms]
        )
    return ["system", "trajectories", "ps", "drift (meV/atom/ps)", "fluctuation (meV/atom)"], rows


def distance_rows(found: Mapping[str, Any]) -> tuple[list[str], Rows]:
    """(head, rows): the shortest distances of each pair of elements, Å."""
    rows = []
    for d in found["distances"]:
        closer = any(pair.split()[0] == d["pair"] for pair, _, _ in closer_pairs(found))
        cells = ["—" if v is None else f"{v:.2f}" for v in (d["md"], d["md_hot"], d["data"], d["covalent"])]
        rows.append([d["pair"], *cells, "closer than in the data" if closer else ""])
    return ["pair", "MD at T", "MD at 1.5 T", "labelled frames", "covalent radii", ""], rows


def reference_rows(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(what, result) of the checks against the reference; [] when none was asked for."""
    checks = found.get("reference") or {}
    rows = []
    for e in checks.get("errors", ()):
        rows.append((
            f"{e['system']}: errors along its own trajectory at {e['temperature']:g} K, {plural(e['frames'], 'frame')}",
            f"forces {milli(e['force_mae'])} meV/Å, largest {milli(e['force_max'])}; energy, after its mean error, "
            f"{milli(e['energy_mae'])} meV/atom",
        ))  # fmt: skip
    for h in checks.get("frequencies", ()):
        rows.append((
            f"{h['system']}: harmonic frequencies at the model's minimum, {len(h['model'])} modes",
            f"MAE {h['mae']:.1f} cm⁻¹, largest {h['largest']:.1f} (at {h['largest_at']:.0f}); reference force there "
            f"{milli(h['residual_force'])} meV/Å",
        ))  # fmt: skip
    for s in checks.get("equation_of_state", ()):
        rows.append((
            f"{s['system']}: equation of state, {len(s['volume'])} volumes",
            f"V₀ {_minimum(s, 'V0', 2)} Å³/atom, B₀ {_minimum(s, 'B', 1)} GPa (model against reference); energies "
            f"differ by {milli(s['rms'])} meV/atom (rms)",
        ))  # fmt: skip
    if checks:
        rows.append(("labels for these checks, apart from those of the run", _label_costs(checks)))
    return rows


def _minimum(s: Mapping[str, Any], name: str, digits: int) -> str:
    """`11.50 against 11.60`; a curve without a minimum among its volumes has no value."""
    values = (s[f"{name}_{whose}"] for whose in ("model", "reference"))
    return " against ".join("none in the range" if v is None else f"{v:.{digits}f}" for v in values)


def _label_costs(checks: Mapping[str, Any]) -> str:
    failed = f", {checks['failed']} failed" if checks.get("failed") else ""
    return f"{checks['labels']} ({checks['calculated']} calculated now, the others were in the store{failed})"


def cost_line(found: Mapping[str, Any]) -> str:
    """What was run and what it cost."""
    n = len(found["trajectories"])
    ps = sum(t["ps"] for t in found["trajectories"]) + sum(t["ps"] for t in found["constant_energy"])
    short = " (shortened to the time allowed)" if found.get("shortened") else ""
    return (
        f"{n} thermal trajectories and {len(found['constant_energy'])} at constant energy, {ps:.3g} ps in all, in "
        f"{duration(found['wall_s'])}{short}; thermostat: {found['thermostat']}"
    )


def md_test_lines(found: Mapping[str, Any]) -> list[str]:
    """The page for the terminal."""
    lines = [md_verdict(found).text, "", cost_line(found)]
    for head, rows in (survival_rows(found), drift_rows(found), distance_rows(found)):
        if rows:
            lines += ["", *text_table(head, rows)]
    checks = reference_rows(found)
    return lines + ([""] if checks else []) + [f"{what}: {result}" for what, result in checks]


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table as lines; the first and the last column to the left."""
    widths = [max(len(r[k]) for r in (head, *rows)) for k in range(len(head))]
    last = len(head) - 1
    return [
        "  ".join(
            c.ljust(w) if k in (0, last) else c.rjust(w)
            for k, (c, w) in enumerate(zip(r, widths, strict=True))
        ).rstrip()
        for r in (head, *rows)
    ]
