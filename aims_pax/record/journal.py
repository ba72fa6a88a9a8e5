"""What happened: an append-only file, one JSON line per event. Replaying a stage's events gives its final state."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from typing import Any

from aims_pax.record.checkpoint import to_line, to_plain
from aims_pax.record.folder import RunFolder

log = logging.getLogger(__name__)


class Journal:
    """The journal of one run, `restart/journal.jsonl`."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.path = folder.restart / "journal.jsonl"

    def write(self, stage: str, kind: str, content: Any, **more: Any) -> None:
        """Append one line: when, which stage, what kind of entry, its content, and what else belongs to it.

        An `Advanced` has `check`: the `core.work.Checked` that followed from it, null where the uncertainty criterion
        was not applied. Journals of earlier versions have no such field.
        """
        entry = {"time": round(time.time(), 3), "stage": stage, "kind": kind, "content": to_plain(content)}
        entry |= {name: to_plain(value) for name, value in more.items()}
        self.folder.append_text(self.path, to_line(entry) + "\n")

    def read(self, stage: str | None = None) -> Iterator[dict[str, Any]]:
        """Entries in order; a line torn by a crash is passed over with a word in the log."""
        if not self.path.exists():
            return
        with open(self.path, encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                try:
                    entry = json.loads(line)
                except ValueError:
                    log.warning("%s:%d is not whole, passed over", self.path, number)
                    continue
                if stage is None or entry["stage"] == stage:
                    yield entry
