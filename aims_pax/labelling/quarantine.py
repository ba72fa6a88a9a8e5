"""Frames that could not be labelled, with the reason, for the user to inspect.

{dataset_dir}/quarantine.xyz      the frames, each with `failure` and `reason`
{dataset_dir}/quarantine.jsonl    one line per failure: frame, class, reason, folder of its files, time
"""

from __future__ import annotations

import json
import logging
import time
from contextlib import suppress
from pathlib import Path

from aims_pax.errors import LabelError, SetupError, failure_name
from aims_pax.frames import Frame
from aims_pax.labelled_data import structure_text
from aims_pax.record.files import append_text

log = logging.getLogger(__name__)


class Quarantine:
    """Append-only; a frame is written once for each class of failure, also across restarts."""

    def __init__(self, folder: Path) -> None:
        self.frames = folder / "quarantine.xyz"
        self.lines = folder / "quarantine.jsonl"
        self._known: set[tuple[str, str]] | None = None

    def add(self, frame: Frame, error: LabelError) -> None:
        """Write a failure. When the disk is full, only a warning is logged and the run continues."""
        name = failure_name(error)
        if self._known is None:
            self._known = {(e["frame"], e["class"]) for e in self.entries()}
        if (frame.id, name) in self._known:
            return
        self._known.add((frame.id, name))
        entry = {"frame": frame.id, "class": name, "reason": error.reason, "folder": error.folder,
                 "formula": frame.formula, "when": round(time.time(), 3)}  # fmt: skip
        try:
            append_text(self.frames, _extxyz(frame, name, error.reason))
            append_text(self.lines, json.dumps(entry) + "\n")
        except SetupError as problem:
            log.warning("%s", problem)

    def entries(self) -> list[dict[str, str]]:
        """All failures so far; an incomplete line (from a crash) is left out."""
        found = []
        with suppress(OSError):
            for line in self.lines.read_text(errors="replace").splitlines():
                with suppress(ValueError, KeyError, TypeError):
                    entry = json.loads(line)
                    entry["frame"], entry["class"]
                    found.append(entry)
        return found


def _extxyz(frame: Frame, name: str, reason: str) -> str:
    atoms = frame.to_atoms()
    atoms.info.update(frame_id=frame.id, failure=name, reason=reason.replace('"', "'").replace("\n", " "))
    return structure_text(atoms)
