"""Readers for files that another process may be writing at the same time.

Incomplete last lines and structures are skipped, missing files count as empty; no file is ever changed.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from aims_pax.frames import ENERGY, FORCES, STRESS, Array
from aims_pax.record.arrays import Torn, read_meta

WORD = re.compile(r'(\w+)=("[^"\\]*(?:\\.[^"\\]*)*"|\S+)')
TAIL = 1200  # bytes at the end of a label file that hold everything but the numbers


def json_list(path: Path) -> list[Any]:
    """The list in a JSON file; empty when the file is missing or incomplete."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    return value if isinstance(value, list) else []


def json_lines(path: Path) -> Iterator[Any]:
    """The values of a file with one JSON value per line; lines that cannot be read are skipped."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    value = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                yield value
    except OSError:
        return


def json_values(lines: Sequence[str]) -> list[Any]:
    """The values of lines of JSON; lines that cannot be read are skipped."""
    try:
        values: list[Any] = json.loads("[" + ",".join(lines) + "]")
    except (ValueError, RecursionError):
        values = []
    if len(values) == len(lines):
        return values
    values = []
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):
            values.append(json.loads(line))
    return values


def whole_lines(path: Path, offset: int = 0, chunk: int = 16_000_000) -> Iterator[tuple[list[str], int]]:
    """(lines, byte offset of their end) from a byte offset on, in chunks; omits text after the last line break."""
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            rest = b""
            while part := file.read(chunk):
                whole, ended, rest = (rest + part).rpartition(b"\n")
                if ended:
                    offset += len(whole) + 1
                    yield whole.decode("utf-8", errors="replace").split("\n"), offset
    except OSError:
        return


def json_file(path: Path) -> dict[str, Any]:
    """The object in a JSON file; {} when there is none or it is incomplete."""
    try:
        value = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def csv_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file as {column name: value}; rows of another length are skipped."""
    try:
        head, *lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return []
    names = head.split(",")
    rows = [line.split(",") for line in lines[:-1]]  # text after the last line break is incomplete
    return [dict(zip(names, row, strict=True)) for row in rows if len(row) == len(names)]


def csv_numbers(path: Path, names: Sequence[str], newest: bool = False) -> list[Array]:
    """The columns `names` of a CSV file of numbers, NaN for a missing column; newest: only the last row."""
    try:
        with open(path, "rb") as file:
            head = file.readline()
            if newest:
                file.seek(max(len(head), file.seek(0, 2) - TAIL))
                if file.tell() > len(head):
                    file.readline()  # incomplete, because of the seek
            content = file.read()
    except OSError:
        return [np.zeros(0)] * len(names)
    known = head.decode("utf-8", errors="replace").strip().split(",")
    lines = content.decode("utf-8", errors="replace").split("\n")[:-1]  # the rest is incomplete
    whole = [line for line in lines if line.count(",") == len(known) - 1][-1 if newest else 0 :]
    words = ",".join(whole).split(",") if whole else []
    try:
        values = np.array([w or "nan" for w in words], float)
    except ValueError:  # a word is not a number
        values = np.array([float_or_nan(w) for w in words], float)
    table = values.reshape(-1, len(known))
    return [table[:, known.index(n)] if n in known else np.full(len(table), np.nan) for n in names]


def snapshot(
    folder: Path, read: Callable[[Path], dict[str, Any] | None] | None = None
) -> tuple[dict[str, Any], float]:
    """(state, time) of the newest readable snapshot of a stage; ({}, 0) when there is none.

    read: `snapshot_state`, or a function that remembers what it returned.
    """
    for path in sorted(folder.glob("state-*.npy"), reverse=True):
        state = (read or snapshot_state)(path)
        with contextlib.suppress(OSError):
            if state is not None:
                return state, path.stat().st_mtime
    return {}, 0.0


def snapshot_state(path: Path) -> dict[str, Any] | None:
    """The state in a snapshot, without its arrays (weights); None if the file is incomplete or of another format."""
    try:
        return dict(read_meta(path)["state"])
    except (Torn, OSError, ValueError, KeyError, TypeError):
        return None


@dataclass(frozen=True)
class StoredLabel:
    """A label file without its energies and forces. began, ended: seconds since 1970."""

    frame: str
    method: str
    seconds: float
    host: str
    ended: float

    @property
    def began(self) -> float:
        return self.ended - self.seconds


def stored_labels(folder: Path) -> Iterator[StoredLabel]:
    """The labels of all methods. Only the end of each file is read, so the number of forces does not matter."""
    for path in sorted(folder.glob("*/*.json")):
        if path.name == "method.json" or path.name.startswith("."):
            continue
        label = stored_label(path)
        if label is not None:
            yield label


def stored_label(path: Path) -> StoredLabel | None:
    """The end of a label file; None if it cannot be read."""
    try:
        with open(path, "rb", buffering=0) as file:
            file.seek(max(0, file.seek(0, 2) - TAIL))
            tail = file.read().decode("utf-8", errors="replace")
        rest = json.loads("{" + tail[tail.rindex('"seconds"') :])
        seconds, host, ended = float(rest["seconds"]), str(rest.get("host", "")), float(rest["when"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return StoredLabel(path.stem, path.parent.name, seconds, host, ended)


@dataclass(frozen=True)
class StoredStructure:
    """One structure of an extended XYZ file. positions (N, 3) Å, cell (3, 3) Å, forces (N, 3) eV/Å."""

    symbols: tuple[str, ...]
    positions: Array
    cell: Array
    pbc: tuple[bool, bool, bool]
    forces: Array | None

    @property
    def numbers(self) -> NDArray[np.int64]:
        return np.array([atomic_numbers.get(s, 0) for s in self.symbols])


@dataclass(frozen=True)
class StructureHeader:
    """The header of a structure and the position of its atoms in the file."""

    path: Path
    n_atoms: int
    info: dict[str, str]
    offset: int
    length: int

    @property
    def id(self) -> str:
        return self.info.get("frame_id", "")

    @property
    def system(self) -> str:
        return self.info.get("system", "")

    @property
    def source(self) -> str:
        """Where the label comes from: `reference`, or the file it was given in."""
        source = self.info.get("source", "")
        if source.startswith("given:"):
            return source.removeprefix("given:").rpartition("#")[0]
        return "given" if self.info.get("stage") == "given" else "reference"

    @property
    def energy(self) -> float:
        """Reference energy in eV, NaN when there is none."""
        return float_or_nan(self.info.get(ENERGY))

    @property
    def stress(self) -> Array | None:
        words = self.info.get(STRESS, "").split()
        return np.array(words, float).reshape(3, 3) if len(words) == 9 else None

    def geometry(self) -> StoredStructure | None:
        """Read the atoms from the file; None when they can no longer be read."""
        try:
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                text = file.read(self.length).decode("utf-8", errors="replace")
            columns = _columns(self.info.get("Properties", "species:S:1:pos:R:3"))
            width = max(stop for _, stop in columns.values())
            words = np.array(text.split()).reshape(self.n_atoms, -1)
            if words.shape[1] < width:
                return None
            symbols = words[:, columns["species"][0]]
            positions = words[:, slice(*columns["pos"])].astype(float)
            forces = words[:, slice(*columns[FORCES])].astype(float) if FORCES in columns else None
            lattice = self.info.get("Lattice", "").split()
            cell = np.array(lattice, float).reshape(3, 3) if len(lattice) == 9 else np.zeros((3, 3))
            pbc = [w in ("T", "True", "1") for w in self.info.get("pbc", "F F F").split()]
            return StoredStructure(
                tuple(map(str, symbols)), positions, cell, (pbc[0], pbc[1], pbc[2]), forces
            )
        except (OSError, ValueError, KeyError, IndexError):
            return None


def structure_headers(path: Path, offset: int = 0) -> Iterator[StructureHeader]:
    """The headers of the complete structures of an extended XYZ file, from a byte offset on."""
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            while head := file.readline():
                if not head.strip():
                    continue
                if not head.strip().isdigit() or not head.endswith(b"\n"):
                    return
                comment = file.readline()
                offset, n = file.tell(), int(head)
                lines = list(islice(file, n))
                if not comment.endswith(b"\n") or len(lines) < n or (lines and not lines[-1].endswith(b"\n")):
                    return
                words = WORD.findall(comment.decode("utf-8", errors="replace"))
                info = {key: _plain(value) for key, value in words}
                yield StructureHeader(path, n, info, offset, sum(map(len, lines)))
    except OSError:
        return


def _plain(value: str) -> str:
    """A value without its quotes; names that look like numbers are written as JSON (`labelled_data`)."""
    value = value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value.strip('"')
    if "\\" in value:
        value = re.sub(r"\\(.)", r"\1", value)
    if value.startswith("_JSON "):
        with contextlib.suppress(ValueError):
            return str(json.loads(value.removeprefix("_JSON ")))
    return value


def float_or_nan(text: Any) -> float:
    """The value as a float, or NaN if it is not a number."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return float("nan")


def _columns(properties: str) -> dict[str, tuple[int, int]]:
    """{name: (first column, last column + 1)} of `species:S:1:pos:R:3:…`."""
    words, columns, start = properties.split(":"), {}, 0
    for name, count in zip(words[::3], words[2::3], strict=True):
        columns[name] = (start, start + int(count))
        start += int(count)
    return columns
