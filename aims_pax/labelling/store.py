"""The store of computed labels: one small file each, keyed by the reference method and the frame's id.

    {folder}/labels/{method}/method.json        what the method's hash means
    {folder}/labels/{method}/{frame_id}.json    one label, exact to the last bit

The worker that computed a label writes its file, so a label outlives the run that requested it. Files are written
atomically: temporary file, fsync, rename, fsync of the directory. A label that was computed in less time than a disk
takes for that is not flushed: it outlives its process, and is computed again if the machine loses it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aims_pax.errors import SetupError
from aims_pax.frames import Label
from aims_pax.record.files import move, write_text
from aims_pax.version import __version__

log = logging.getLogger(__name__)

FORMAT = 1
WORTH_FLUSHING = 0.02  # s that a calculation took


@dataclass(frozen=True)
class Record:
    """A stored label with its origin. seconds: duration of the calculation.

    raw_forces: whether it was computed without constraints in its input; False for old labels (unknown).
    """

    label: Label
    seconds: float
    host: str
    version: str
    when: float
    raw_forces: bool = False


class LabelStore:
    """The labels of one method in one folder. Any number of processes may read and write it at once."""

    def __init__(self, folder: Path, method: str) -> None:
        self.folder = Path(folder) / "labels" / method
        self.method = method

    def path(self, frame_id: str) -> Path:
        """The file of this frame's label, whether or not it exists."""
        return self.folder / f"{frame_id}.json"

    def contains(self, frame_id: str) -> bool:
        """Whether the store has a readable label of this frame."""
        return self.read(frame_id) is not None

    __contains__ = contains

    def get(self, frame_id: str) -> Label | None:
        """The label of this frame, or None."""
        record = self.read(frame_id)
        return None if record is None else record.label

    def read(self, frame_id: str) -> Record | None:
        """The label with its origin, or None. An unreadable file counts as missing and is renamed."""
        path = self.path(frame_id)
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SetupError(f"cannot read the label {path}: {error}") from error
        try:
            return _read(json.loads(text), frame_id, self.method)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            _move_aside(path, f"{type(error).__name__}: {error}")
            return None

    def put(self, frame_id: str, label: Label, seconds: float = 0.0) -> None:
        """Store a label that took so many seconds (0: unknown). Writing the same label twice is harmless.

        Raises SetupError when the file system refuses (full, read-only, gone).
        """
        content = {
            "energy": label.energy,
            "forces": label.forces.tolist(),
            "stress": None if label.stress is None else label.stress.tolist(),
        }
        record = {
            "format": FORMAT,
            "frame_id": frame_id,
            "method": self.method,
            **content,
            "checksum": _checksum(content),
            "raw_forces": True,
            "seconds": seconds,
            "host": socket.gethostname(),
            "version": __version__,
            "when": time.time(),
        }
        text = json.dumps(record, allow_nan=False)
        write_text(self.path(frame_id), text, flush=not 0 < seconds < WORTH_FLUSHING)

    def describe(self, description: Mapping[str, Any]) -> None:
        """Write what the method's hash means to method.json, unless the file exists."""
        path = self.folder / "method.json"
        if not path.exists():
            text = json.dumps({"method": self.method, **description}, indent=1, default=str)
            write_text(path, text)

    def ids(self) -> Iterator[str]:
        """The ids of frames with a label in the store, sorted."""
        if self.folder.is_dir():
            yield from sorted(p.stem for p in self.folder.glob("*.json") if p.name != "method.json")


def method_hash(description: Mapping[str, Any]) -> str:
    """Twelve hex digits of everything that determines a label; the order of keys does not matter."""
    text = json.dumps(description, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _read(data: Any, frame_id: str, method: str) -> Record:
    if data["format"] != FORMAT:
        raise ValueError(f"format {data['format']}, expected {FORMAT}")
    if (data["frame_id"], data["method"]) != (frame_id, method):
        raise ValueError(f"holds frame {data['frame_id']} of method {data['method']}")
    if data["checksum"] != _checksum({k: data[k] for k in ("energy", "forces", "stress")}):
        raise ValueError("wrong checksum")
    label = Label(data["energy"], np.array(data["forces"], float).reshape(-1, 3), data["stress"])
    if not label.finite:
        raise ValueError("energy, forces or stress are not finite")
    return Record(
        label,
        float(data["seconds"]),
        str(data["host"]),
        str(data["version"]),
        float(data.get("when", 0.0)),
        bool(data.get("raw_forces", False)),
    )


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _move_aside(path: Path, reason: str) -> None:
    for n in itertools.count():
        aside = path.with_name(f"{path.stem}.unreadable{n or ''}")
        if not aside.exists():
            break
    try:
        move(path, aside)
    except OSError:  # another process was quicker, or the folder is read-only: the label counts as missing
        aside = path
    log.warning(
        "label file %s is unreadable (%s): it counts as missing, renamed to %s", path, reason, aside.name
    )
