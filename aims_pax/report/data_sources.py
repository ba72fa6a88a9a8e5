"""How many frames are in which set, and whose labels they have: the same for the report and the model card."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from aims_pax.report.formatting import plural
from aims_pax.report.run_record import RunRecord
from aims_pax.report.tolerant_readers import float_or_nan as number_of

REFERENCE = "reference"  # source of the labels that the run has obtained itself


def frames_by_set(run: RunRecord) -> dict[str, dict[str, int]]:
    """{system: {set: frames}}, and in a row of its own the given test set, which is no part of the run's data."""
    rows = run.counts()
    if n := _given_tests(run):
        rows[f"given test set ({_test_file(run)})"] = {"test": n}
    return rows


def source_rows(run: RunRecord) -> list[list[Any]]:
    """[whose labels, frames]; [] if all labels come from the reference of this run."""
    rows: list[list[Any]] = [
        ["the reference of this run" if name == REFERENCE else f"given in {name}", n]
        for name, n in run.sources().items()
    ]
    if n := _given_tests(run):
        rows.append([f"given in {_test_file(run)} (test set)", n])
    return rows if _given_files(run) else []


def method_of_labels(run: RunRecord) -> str:
    """Sentences on the method that the labels were obtained with, and how far that is known."""
    sources, given = run.sources(), _given_method(run)
    own, total = sources.get(REFERENCE, 0), sum(sources.values())
    method = run.setting("reference method", "—")
    hashed = "hash of everything that determines a label"
    if total and not own:
        return (
            f"All {plural(total, 'labelled frame')} were given in files (see Data). {given} None of "
            f"the labels is of the reference of this run, method {method} ({hashed})."
        )
    text = f"Method {method} ({hashed})."
    if total > own:
        others = f"the other {total - own} were given in files (see Data)"
        text += f" It applies to {own} of {total} labelled frames; {others}."
    return f"{text} {given}".strip()


def compared(entry: Mapping[str, Any]) -> str:
    """One line of `given_check.json`: how far given labels are from those of the reference."""
    values = {k: number_of(entry.get(k)) for k in ("structures", "force", "energy", "shift")}
    if not all(map(math.isfinite, values.values())):
        return ""
    file, n = entry.get("file", ""), plural(int(values["structures"]), "structure")
    return (
        f"{file} against the reference, {n}: forces differ by {1000 * values['force']:.3g} meV/Å (RMS), energy "
        f"differences by {1000 * values['energy']:.3g} meV/atom, the zero of energy by {values['shift']:+.3g} eV/atom."
    )


def _given_method(run: RunRecord) -> str:
    """Sentences on the method of given files: compared with the reference, or as their maker says; "" without any."""
    checked = {str(entry.get("file", "")) for entry in run.given_check if compared(entry)}
    files = _given_files(run)
    known, unknown = [f for f in files if f in checked], [f for f in files if f not in checked]
    parts = []
    if known:
        parts.append(
            f"Labels in {_listed(known)} were compared with those of the reference for a few structures (see Data)."
        )
    if unknown:
        parts.append(
            f"The method of {_listed(unknown)} is what whoever gave the data says it is: no label was compared with "
            "the reference."
        )
    return " ".join(parts)


def _given_files(run: RunRecord) -> list[str]:
    """The files with labels that the user gave, each once."""
    files = [name for name in run.sources() if name != REFERENCE]
    return list(dict.fromkeys([*files, *([_test_file(run)] if _given_tests(run) else [])]))


def _given_tests(run: RunRecord) -> int:
    """Frames of the given test set on which the delivered model was tested."""
    return int((run.predictions["split"] == "test set").sum()) if run.predictions else 0


def _test_file(run: RunRecord) -> str:
    return run.setting("MISC.test_set", "MISC.test_set")


def _listed(names: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([*([", ".join(names[:-1])] if names[1:] else []), names[-1]])
