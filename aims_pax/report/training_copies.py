"""Copies with labels of a Gaussian process that the members were trained on (section AUGMENTATION), as the folder of
the run says it: they are not labels, and nothing else counts them.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from aims_pax.report.run_record import CopiesUsed, RunRecord
from aims_pax.report.tolerant_readers import float_or_nan, json_lines

USED = Path("augmentation") / "used.jsonl"  # in the folder of the datasets


def read_copies_used(data: Path) -> tuple[CopiesUsed, ...]:
    """The last entry of each member; empty without the section. data: the folder of the datasets."""
    found: dict[str, CopiesUsed] = {}
    for entry in json_lines(data / USED):
        if isinstance(entry, dict) and "member" in entry:
            found[str(entry["member"])] = _used(entry)
    return tuple(found[name] for name in sorted(found))


def copies_line(run: RunRecord) -> str:
    """One sentence about the last training of the members; "" if the run has no section AUGMENTATION."""
    used = run.copies
    if not used:
        return ""
    most = max(used, key=lambda c: c.copies)
    errors = (
        f"leave-one-out force MAE of the process {_milli(most.loo_force_mae)} meV/Å, validation force MAE of the "
        f"member then {_milli(most.validation_force_mae)}"
    )
    if not most.copies:
        compared = f" ({errors})" if math.isfinite(most.loo_force_mae) else ""
        return f"No surrogate copies in the last training: {most.reason}{compared}."
    refused = ", ".join(f"{reason} {n}" for reason, n in most.refused.items()) or "none"
    return (
        f"Besides labels, the training of {most.member} used {most.copies} perturbed copies of {most.labels} "
        f"structures with labels of a Gaussian process (surrogate:{most.process}), which are in no count of labels or "
        f"frames; {errors}; {most.wanted} were made, refused: {refused}."
    )


def _used(entry: dict[str, Any]) -> CopiesUsed:
    refused = entry.get("refused")
    counts = refused.items() if isinstance(refused, dict) else ()
    labels, copies, wanted = (_whole(entry.get(name)) for name in ("labels", "copies", "wanted"))
    return CopiesUsed(
        str(entry["member"]), labels, copies, wanted, float_or_nan(entry.get("loo_force_mae")),
        float_or_nan(entry.get("validation_force_mae")), str(entry.get("process", "")),
        {str(reason): _whole(n) for reason, n in counts}, str(entry.get("reason") or "unknown reason"),
    )  # fmt: skip


def _whole(value: Any) -> int:
    number = float_or_nan(value)
    return int(number) if math.isfinite(number) else 0


def _milli(value: float) -> str:
    return f"{1000 * value:.1f}" if math.isfinite(value) else "unknown"
