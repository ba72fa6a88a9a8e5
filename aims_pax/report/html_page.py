"""The report: one self-contained HTML file; its figures as PNG and its numbers as CSV are in a folder next to it.

report.html            the page, written atomically
report/<figure>.png    each figure, for slides
report/<figure>.csv    the numbers of the figure
report/summary.json    the numbers at the head of the page
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aims_pax.record.files import write_bytes
from aims_pax.report import cost_summary
from aims_pax.report.accuracy import NAMES, UNSEEN, ErrorRow, by_element, by_system, held_out, untested
from aims_pax.report.changed_settings import differing
from aims_pax.report.data_sources import frames_by_set, source_rows
from aims_pax.report.figures import calibration, failures, learning, observables, timeline, uncertainty
from aims_pax.report.figures.error_forecast import coverage_figure, forecast_figure
from aims_pax.report.figures.md_test import md_test_figure
from aims_pax.report.figures.parity import parity_figure
from aims_pax.report.figures.structures import uncertain_structures
from aims_pax.report.figures.style import NAMES as COLOUR_NAMES
from aims_pax.report.figures.style import Panel, escaped
from aims_pax.report.formatting import STATES, milli, moment
from aims_pax.report.html_style import AIDS, STYLE
from aims_pax.report.load_run import load_run
from aims_pax.report.md_test import (
    cost_line,
    distance_rows,
    drift_rows,
    md_verdict,
    reference_rows,
    survival_rows,
)
from aims_pax.report.run_record import RunRecord
from aims_pax.report.run_verdict import run_verdict
from aims_pax.report.training_copies import copies_line

PAGE, BESIDE = "report.html", "report"
RELOAD = 30  # s after which the page of a running run reloads itself

Row = Sequence[Any]
Legend = Sequence[tuple[str, str]]


def write_report(folder: Path, pictures: bool = True) -> Path:
    """Read the folder of a run, running or finished, and write its page; returns the page's path.

    pictures: also write each figure as PNG and its numbers as CSV (during a run they are not written).
    Raises SettingsError when there is no run.
    """
    folder = Path(folder)
    run = load_run(folder)
    text, panels, tables = page(run, pictures)
    beside = folder / BESIDE
    if pictures:
        for one in [p for panel in panels for p in (panel, panel.below) if p is not None]:
            if one.png:
                write_bytes(beside / f"{one.name}.png", one.png)
            if one.table:
                tables[one.name] = one.table
        for name, table in tables.items():
            write_bytes(beside / f"{name}.csv", _csv(table).encode())
        write_bytes(
            beside / "summary.json", (json.dumps(cost_summary.summary(run), indent=1) + "\n").encode()
        )
    write_bytes(folder / PAGE, text.encode())
    return folder / PAGE


def page(run: RunRecord, png: bool = False) -> tuple[str, list[Panel], dict[str, Mapping[str, Any]]]:
    """(HTML, all figures, tables of numbers that belong to no single figure)."""
    learned = [*learning.learning_figure(run, png), *forecast_figure(run, png)]
    time_spent = timeline.timeline_figure(run, png)
    unsure, series = uncertainty.uncertainty_figure(run, png)
    honest = [*calibration.calibration_figure(run, png), *coverage_figure(run, png)]
    wrong = parity_figure(run, png)
    seen, failed = observables.observables_figure(run, png), failures.failures_figure(run, png)
    moved = md_test_figure(run.md_test, png)
    having = sum(len(t.steps) > 0 for t in run.trajectories)
    first = f" The first {len(unsure)} of {having} trajectories." if having > len(unsure) else ""
    sections = [
        ("Is it getting better?", "", figures_html(learned)),
        ("How wrong is the model?", _wrong_lead(run), figures_html(wrong) + _error_tables(run)),
        ("Is it fit for MD?", _md_lead(run), figures_html(moved) + _md_tables(run)),
        ("Is the uncertainty honest?", HONEST, figures_html(honest)),
        ("Where was it unsure?", SPREAD + first, figures_html(unsure, uncertainty.uncertainty_legend(run))),
        ("What has it seen?", "", figures_html(seen) + uncertain_structures(run) + _data_table(run)),
        ("Where did the time go, and what did it cost?", "", figures_html(time_spent) + _ledger_table(run)),
        ("What failed?", "", (figures_html(failed) + _failure_table(run)) if run.failures else ""),
        ("Settings that differ from the defaults", "", _settings_table(run)),
    ]
    body = "".join(
        f"<section><h2>{escaped(title)}</h2>{f'<p class=lead>{escaped(lead)}</p>' if lead else ''}{content}</section>"
        for title, lead, content in sections
        if content
    )
    reload = f'<meta http-equiv="refresh" content="{RELOAD}">' if run.state == "running" else ""
    html = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"{reload}<title>{escaped(run.name)} · aims-PAX</title>"
        '<link rel="icon" href="data:,">'
        f"<style>{STYLE}</style></head><body><main>{_head(run)}{body}{_foot(run)}</main></body></html>\n"
    )
    tables: dict[str, Mapping[str, Any]] = {"uncertainty": series} if series["step"] else {}
    rows = by_system(run.predictions) + by_element(run.predictions) if run.predictions else []
    if rows:
        tables["errors"] = {k: [getattr(r, k) for r in rows] for k in ErrorRow.__dataclass_fields__}
    return html, [*learned, *wrong, *moved, *honest, *unsure, *seen, *time_spent, *failed], tables


# ---------------------------------------------------------------- head and foot


def _head(run: RunRecord) -> str:
    tiles = "".join(
        f"<div class=tile><b>{escaped(value)}{f' <small>{escaped(unit)}</small>' if unit else ''}</b>"
        f"<span>{escaped(words)}</span></div>"
        for value, unit, words in cost_summary.key_numbers(run)
    )
    said = run_verdict(run)
    judged = f'<p class="verdict {said.kind.replace(" ", "-")}">{escaped(said.text)}</p>'
    missed = said.kind == "missed"
    state = "finished, goal not reached" if missed else STATES[run.state]
    problem = f"<p class=error>{escaped(run.error)}</p>" if run.error and run.state != "finished" else ""
    return (
        f"<header><div class=head><h1>{escaped(run.name)}</h1>"
        f'<span class="state {"missed" if missed else run.state}">{escaped(state)}</span></div>'
        f"<p class=sub>{escaped(cost_summary.run_in_one_line(run))}</p>{judged}{problem}"
        f"<div class=tiles>{tiles}</div></header>"
    )


def _foot(run: RunRecord) -> str:
    beside = (
        f"Figures as PNG and numbers as CSV: {BESIDE}/ next to this file. " if run.state != "running" else ""
    )
    return (
        f"<footer>{beside}aims-PAX {escaped(run.version)} · written {escaped(moment(time.time()))} · "
        f"{escaped(run.folder.resolve())}</footer>"
    )


# ---------------------------------------------------------------- figures and tables


HONEST = "The run asks for labels where its models disagree. This helps only if they disagree where they are wrong."
SPREAD = "How much the models disagree, against MD steps. Fewer labels towards the right mean that it has seen enough."


def figures_html(panels: Iterable[Panel], legend: Legend = ()) -> str:
    """The figures in their frame, below a common legend; "" without figures."""
    drawn = "".join(map(_figure, panels))
    return f"{_legend(legend)}<div class=figures>{drawn}</div>" if drawn else ""


def _legend(legend: Legend) -> str:
    chips = "".join(
        f'<span><i style="background:var(--{COLOUR_NAMES[colour]})"></i>{escaped(words)}</span>'
        for colour, words in legend
    )
    return f"<div class=legend>{chips}</div>" if chips else ""


def _figure(panel: Panel) -> str:
    both = [panel] if panel.below is None else [panel, panel.below]
    words = [f"<b>{escaped(p.note)}</b>" for p in both if p.note]
    words += [escaped(AIDS[p.name]) for p in both if p.name in AIDS]
    svg, caption = panel.svg, "<br>".join(words)
    if panel.narrow:
        svg = f"<div class=broad>{panel.svg}</div><div class=narrow>{panel.narrow}</div>"
    below = "" if panel.below is None else f'<div id="{escaped(panel.below.name)}">{panel.below.svg}</div>'
    return (
        f'<figure id="{escaped(panel.name)}"{" class=wide" if panel.narrow else ""}><h3>{escaped(panel.title)}</h3>'
        f"{_legend(panel.legend)}{svg}{below}"
        f"{f'<figcaption>{caption}</figcaption>' if words else ''}</figure>"
    )


def html_table(
    caption: str,
    head: Sequence[str],
    rows: Sequence[Row],
    text: Sequence[int] = (0,),
    wrap: Sequence[int] = (),
    sums: bool = False,
) -> str:
    """An HTML table; text: text columns; wrap: columns whose lines may break anywhere; sums: last row is a total."""
    if not rows:
        return ""

    def cell(tag: str, k: int, value: Any) -> str:
        kind = "w" if k in wrap else "t" if k in text else ""
        shown = (
            escaped(value).replace("_", "_<wbr>").replace(".", ".<wbr>") if kind == "w" else escaped(value)
        )
        return f"<{tag}{f' class={kind}' if kind else ''}>{shown}</{tag}>"

    top = "".join(cell("th", k, h) for k, h in enumerate(head))
    body = ""
    for n, row in enumerate(rows):
        total = " class=sum" if sums and n == len(rows) - 1 else ""
        body += f"<tr{total}>{''.join(cell('td', k, v) for k, v in enumerate(row))}</tr>"
    title = f"<caption>{escaped(caption)}</caption>" if caption else ""
    headline = f"<thead><tr>{top}</tr></thead>" if any(head) else ""
    return f"<div class=card><table>{title}{headline}<tbody>{body}</tbody></table></div>"


def _wrong_lead(run: RunRecord) -> str:
    if not run.predictions:
        return ""
    if held_out(run.predictions)[0].startswith("test"):
        missing = untested(run)
        return (
            "In colour: frames the model was not trained on; grey: its training frames. Rely on the test frames: they "
            "influenced no decision of the run." + (f" There are only {missing}." if missing else "")
        )
    missing = untested(run)
    return (
        "In colour: validation frames; grey: training frames. There are no test frames; validation frames decided when "
        "training stopped, so errors on new frames may be larger. ACTIVE_LEARNING.n_test reserves some for testing."
        + (f" There are only {missing}." if missing else "")
    )


def _md_lead(run: RunRecord) -> str:
    return f"{md_verdict(run.md_test).text} {cost_line(run.md_test).capitalize()}." if run.md_test else ""


def _md_tables(run: RunRecord) -> str:
    if not run.md_test:
        return ""
    text = "".join(
        html_table(title, head, rows, text=(0, len(head) - 1))
        for title, (head, rows) in (
            ("Survival and kinetic temperature", survival_rows(run.md_test)),
            ("Total energy at constant energy", drift_rows(run.md_test)),
            ("Shortest distances (Å)", distance_rows(run.md_test)),
        )
    )
    return text + html_table("Against the reference", ["", ""], reference_rows(run.md_test), wrap=(1,))


def _error_tables(run: RunRecord) -> str:
    if not run.predictions:
        return ""
    tables = ""
    systems, elements = by_system(run.predictions), by_element(run.predictions)
    for split in dict.fromkeys(r.split for r in systems):
        name, rows = NAMES.get(split, split), [r for r in systems if r.split == split]
        stressed = any(math.isfinite(r.stress_mae) for r in rows)
        head = [
            "system",
            "frames",
            "energy meV/atom",
            "forces meV/Å",
            *(["stress meV/Å³"] if stressed else []),
        ]
        cells = [
            [r.group, r.frames, _pair(r.energy_mae, r.energy_rmse), _pair(r.force_mae, r.force_rmse)]
            + ([_pair(r.stress_mae, r.stress_rmse)] if stressed else [])
            for r in rows
        ]
        tables += html_table(f"{name.capitalize()} frames: MAE (RMSE)", head, cells, sums=len(rows) > 1)
    best = next((s for s in (*UNSEEN[::-1], "valid") if any(r.split == s for r in elements)), "")
    cells = [
        [r.group, r.frames, r.atoms, _pair(r.force_mae, r.force_rmse)] for r in elements if r.split == best
    ]
    title = f"Forces by element, {NAMES.get(best, best)} frames: MAE (RMSE)"
    return (
        f"<div class=tables>{tables}{html_table(title, ['element', 'frames', 'atoms', 'meV/Å'], cells)}</div>"
    )


def _pair(mae: float, rmse: float) -> str:
    return f"{milli(mae)} ({milli(rmse)})" if math.isfinite(mae) else "—"


def _data_table(run: RunRecord) -> str:
    counts = frames_by_set(run)
    splits = [s for s in ("train", "valid", "test") if any(s in row for row in counts.values())]
    rows: list[list[Any]] = [
        [name, *(row.get(s, 0) for s in splits), sum(row.values())] for name, row in counts.items()
    ]
    if len(rows) > 1:
        rows.append(["all", *np.sum([r[1:] for r in rows], axis=0).tolist()])
    head = ["system", *(NAMES[s] for s in splits), "frames"]
    text = html_table("Labelled frames", head, rows, sums=len(rows) > 2)
    text += html_table("Labelled by", ["", "frames"], source_rows(run))
    said = copies_line(run)
    return f"<div class=tables>{text}</div>" + (f"<p>{escaped(said)}</p>" if said else "")


def _ledger_table(run: RunRecord) -> str:
    tables = html_table("Ledger", ["", ""], cost_summary.ledger(run))
    ahead = cost_summary.forecast_against_truth(run)
    head = ["", "forecast: 10 … 90 % (median)", "it took", ""]
    tables += html_table("Forecast of aims-PAX check --try", head, ahead, text=(0, 3))
    return f"<div class=tables>{tables}</div>"


def _failure_table(run: RunRecord) -> str:
    reasons: dict[tuple[str, str], list[Any]] = {}
    for call in run.calls:
        if call.outcome not in ("labelled", "pending"):
            reasons.setdefault((call.outcome, call.reason[:300]), []).append(call)
    ordered = sorted(reasons.items(), key=lambda item: -len(item[1]))[:40]
    rows = [
        [kind, reason, ", ".join(sorted({c.system for c in calls if c.system})) or "—", len(calls)]
        for (kind, reason), calls in ordered
    ]
    return html_table("Reasons", ["class", "reason", "systems", "times"], rows, wrap=(1, 2))


def _settings_table(run: RunRecord) -> str:
    rows = [[key, value, default] for key, value, default in differing(run.settings)]
    return html_table("", ["setting", "here", "default"], rows, wrap=(0, 1, 2))


# ---------------------------------------------------------------- files


def _csv(columns: Mapping[str, Sequence[Any]]) -> str:
    def word(value: Any) -> str:
        text = f"{value:.8g}" if isinstance(value, float) else str(value)
        return f'"{text.replace(chr(34), chr(34) * 2)}"' if any(c in text for c in ',"\n') else text

    rows = zip(*(getattr(c, "tolist", lambda c=c: c)() for c in columns.values()), strict=True)
    lines = [",".join(map(word, columns)), *(",".join(map(word, row)) for row in rows)]
    return "\n".join(lines) + "\n"
