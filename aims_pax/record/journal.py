"""The journal of events: an append-only file, one JSON line per event. Replaying them gives a stage's final state.

Format 2 says with every `Advanced` what the core compared and decided (`check`). Lines of format 1 have no `format`,
and nothing says which threshold they were compared with.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator
from typing import Any

from aims_pax.record.checkpoint import to_line, to_plain
from aims_pax.record.folder import RunFolder

log = logging.getLogger(__name__)

FORMAT = 2
FEW = 8  # up to this many uncertainties are all written


def brief(content: Any) -> Any:
    """Content as it is written: uncertainties of many atoms (`ensemble_sd`) are reduced to largest, mean and number.

    >>> brief({"step": 20, "uncertainty": [0.25] * 998 + [0.5, 0.75]})
    {'step': 20, 'uncertainty': {'largest': 0.75, 'mean': 0.25075, 'n': 1000}}
    """
    values = content.get("uncertainty") if isinstance(content, dict) else None
    if not isinstance(values, list) or len(values) <= FEW:
        return content
    finite = all(map(math.isfinite, values))
    largest, mean = (max(values), math.fsum(values) / len(values)) if finite else (math.nan, math.nan)
    return {**content, "uncertainty": {"largest": largest, "mean": mean, "n": len(values)}}


def spread(written: Any) -> tuple[float, float, int]:
    """(largest, mean, number) of uncertainties as written in a journal: a list, or the summary of `brief`."""
    if isinstance(written, dict):
        return float(written["largest"]), float(written["mean"]), int(written["n"])
    if not written or not all(map(math.isfinite, written)):
        return math.nan, math.nan, len(written)
    return max(written), math.fsum(written) / len(written), len(written)


class Journal:
    """The journal of one run, `restart/journal.jsonl`."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.path = folder.restart / "journal.jsonl"

    def write(self, stage: str, kind: str, content: Any, **more: Any) -> None:
        """Append one line: time, stage, kind of entry, content, and further fields.

        An entry `Advanced` has the field `check`: the `core.work.Checked` that followed from it, null where the
        uncertainty criterion was not applied.
        """
        entry = {
            "format": FORMAT,
            "time": round(time.time(), 3),
            "stage": stage,
            "kind": kind,
            "content": brief(to_plain(content)),
        }
        entry |= {name: to_plain(value) for name, value in more.items()}
        self.folder.append_text(self.path, to_line(entry) + "\n")

    def read(self, stage: str | None = None) -> Iterator[dict[str, Any]]:
        """Entries in order; a line that a crash left incomplete is skipped with a warning."""
        if not self.path.exists():
            return
        with open(self.path, encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                try:
                    entry = json.loads(line)
                except ValueError:
                    log.warning("%s:%d is incomplete and was skipped", self.path, number)
                    continue
                if stage is None or entry["stage"] == stage:
                    yield entry
