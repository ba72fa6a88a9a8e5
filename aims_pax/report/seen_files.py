"""What was read of a run's files, so that the next look reads only what was added.

`aims-PAX status --watch` and a live report hold one `SeenFiles` from look to look. A new process begins with
`restart/data_read.npy`, which a look at a large dataset leaves behind; the journal has a cache of its own. A file that
was truncated, replaced or edited at its end is read again from its start.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from aims_pax.record.arrays import Torn, pack_arrays, unpack_arrays
from aims_pax.report import journal_cache
from aims_pax.report.journal_reader import JournalParser
from aims_pax.report.run_history import RunHistory
from aims_pax.report.tolerant_readers import (
    StoredLabel,
    StructureHeader,
    json_values,
    stored_label,
    structure_headers,
    whole_lines,
)

T = TypeVar("T")
JOURNAL_CACHE, DATA_CACHE = "journal_read.npy", "data_read.npy"
FORMAT = 1
WORTH = 2000  # fewer new structures and labels than this are not written to the cache
MOST = 200  # results of `unchanged` that are remembered
TAIL = 4096  # bytes before the end of what was read that must be the same


@dataclass(frozen=True)
class Mark:
    """How far a file was read (bytes), and what shows that it is still the same file."""

    end: int = 0
    inode: int = 0
    tail: str = ""

    @classmethod
    def of(cls, path: Path, end: int) -> Mark:
        """Raises OSError; ValueError for a file that is shorter."""
        with open(path, "rb") as file:
            file.seek(max(0, end - TAIL))
            tail = file.read(min(end, TAIL))
            if len(tail) < min(end, TAIL):
                raise ValueError(f"{path} has fewer than {end} bytes")
            return cls(end, os.fstat(file.fileno()).st_ino, hashlib.sha256(tail).hexdigest())

    @classmethod
    def after(cls, path: Path, end: int, inode: int) -> Mark:
        """The mark after reading up to `end`; one that never fits if the file is not the one it was before."""
        try:
            mark = cls.of(path, end)
        except (OSError, ValueError):
            return cls()
        return mark if mark.inode == inode else cls()

    def fits(self, path: Path) -> bool:
        """Whether the file still begins with what was read."""
        try:
            return self.end > 0 and Mark.of(path, self.end) == self
        except (OSError, ValueError):
            return False


@dataclass
class _Structures:
    mark: Mark = field(default_factory=Mark)
    headers: list[StructureHeader] = field(default_factory=list)
    by_id: dict[str, StructureHeader] = field(default_factory=dict)


@dataclass
class _Splits:
    mark: Mark = field(default_factory=Mark)
    entries: list[Any] = field(default_factory=list)


class SeenFiles:
    """The journal, dataset and labels of one run, read once. restart: its folder `restart`."""

    def __init__(self, restart: Path) -> None:
        self.restart = Path(os.path.abspath(restart))
        self._journal: tuple[Mark, RunHistory] | None = None
        self._structures: dict[Path, _Structures] = {}
        self._splits: dict[Path, _Splits] = {}
        self._labels: dict[Path, dict[str, dict[str, tuple[int, StoredLabel]]]] = {}
        self._unchanged: dict[tuple[Path, str], tuple[tuple[int, int, int], Any]] = {}
        self._in_cache = 0  # structures and labels in the file
        self._loaded = False

    def journal(self) -> RunHistory:
        """The content of the journal. It is extended by the next call: do not change it."""
        path, cache = self.restart / "journal.jsonl", self.restart / JOURNAL_CACHE
        inode = _inode(path)
        if self._journal is None or not self._journal[0].fits(path):
            history, begin = journal_cache.load_cache(cache, path)
        else:
            begin, history = self._journal[0].end, self._journal[1]
        parser, end = JournalParser(history), begin
        for lines, reached in whole_lines(path, begin):
            parser.read_lines(lines)
            end = reached
        journal_cache.save_cache(cache, path, history, begin, end)
        self._journal = Mark.after(path, end, inode), history
        return history

    def structures(self, path: Path) -> dict[str, StructureHeader]:
        """{frame id: header} of the complete structures of `labelled.xyz`, in order."""
        self._load()
        path = Path(os.path.abspath(path))
        inode = _inode(path)
        seen = self._structures.setdefault(path, _Structures())
        if not seen.mark.fits(path):
            seen = self._structures[path] = _Structures()
        for header in structure_headers(path, seen.mark.end):
            seen.headers.append(header)
            seen.by_id[header.id] = header
        if seen.headers:
            seen.mark = Mark.after(path, seen.headers[-1].offset + seen.headers[-1].length, inode)
        return seen.by_id

    def splits(self, path: Path) -> list[Any]:
        """The entries of `splits.jsonl`."""
        inode = _inode(path)
        seen = self._splits.setdefault(path, _Splits())
        if not seen.mark.fits(path):
            seen = self._splits[path] = _Splits()
        end = seen.mark.end
        for lines, reached in whole_lines(path, end):
            seen.entries += json_values(lines)
            end = reached
        seen.mark = Mark.after(path, end, inode)
        return seen.entries

    def labels(self, folder: Path) -> dict[str, StoredLabel]:
        """{frame id: label} of all methods. A file is read again when it was replaced."""
        self._load()
        folder = Path(os.path.abspath(folder))
        seen = self._labels.setdefault(folder, {})
        there = {method.name: dict(_label_files(method)) for method in _folders(folder)}
        for method in [m for m in seen if m not in there]:
            del seen[method]
        found: dict[str, StoredLabel] = {}
        for method, files in sorted(there.items()):
            known = seen.setdefault(method, {})
            for name in known.keys() - files.keys():
                del known[name]
            for name in sorted(n for n, stamp in files.items() if n not in known or known[n][0] != stamp):
                label = stored_label(folder / method / name)
                known.pop(name, None)
                if label is not None:
                    known[name] = files[name], label
            found |= {label.frame: label for _, label in known.values()}
        return found

    def unchanged(self, path: Path, read: Callable[[Path], T]) -> T:
        """`read(path)`, or its earlier result while inode, size and time of the file are the same."""
        try:
            now = os.stat(path)
            stamp = now.st_ino, now.st_size, now.st_mtime_ns
        except OSError:
            return read(path)
        key = path, read.__qualname__
        if key not in self._unchanged or self._unchanged[key][0] != stamp:
            self._unchanged[key] = stamp, read(path)
            if len(self._unchanged) > MOST:
                del self._unchanged[next(iter(self._unchanged))]  # the oldest: snapshots have ever new names
        found: T = self._unchanged[key][1]
        return found

    # ------------------------------------------------------------ cache of a new process

    def save(self) -> None:
        """Write the cache when much was read since the last time. Errors of the file system are ignored."""
        n = sum(len(s.headers) for s in self._structures.values())
        n += sum(len(known) for methods in self._labels.values() for known in methods.values())
        if n - self._in_cache < max(WORTH, n // 10):
            return
        from aims_pax.errors import SetupError
        from aims_pax.record.files import write_bytes

        arrays: dict[str, Any] = {}
        meta: dict[str, Any] = {"read": FORMAT, "structures": [], "labels": []}
        for k, (path, seen) in enumerate(self._structures.items()):
            meta["structures"].append([os.path.relpath(path, self.restart), list(astuple(seen.mark))])
            places = [[h.n_atoms, h.offset, h.length] for h in seen.headers]
            arrays[f"places{k}"] = np.array(places, np.int64).reshape(-1, 3)
            arrays[f"entries{k}"] = _as_bytes([h.info for h in seen.headers])
        for folder, methods in self._labels.items():
            for method, known in methods.items():
                k = len(meta["labels"])
                meta["labels"].append([os.path.relpath(folder, self.restart), method])
                labels = [label for _, label in known.values()]
                arrays[f"stamps{k}"] = np.array([stamp for stamp, _ in known.values()], np.uint64)
                arrays[f"times{k}"] = np.array([[v.seconds, v.ended] for v in labels]).reshape(-1, 2)
                arrays[f"names{k}"] = _as_bytes([[name for name in known], [v.host for v in labels]])
        with contextlib.suppress(OSError, SetupError):  # a read-only folder: the next process reads all
            write_bytes(self.restart / DATA_CACHE, pack_arrays(arrays, meta))
        self._in_cache = n

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        try:
            arrays, meta = unpack_arrays((self.restart / DATA_CACHE).read_bytes())
            if meta["read"] == FORMAT:
                self._restore(arrays, meta)
        except (OSError, Torn, KeyError, TypeError, ValueError):
            self._structures, self._labels = {}, {}

    def _restore(self, arrays: dict[str, Any], meta: dict[str, Any]) -> None:
        for k, (name, mark) in enumerate(meta["structures"]):
            path, seen = self._path(name), _Structures(Mark(*mark))
            entries = json.loads(arrays[f"entries{k}"].tobytes())
            for (n, offset, length), info in zip(arrays[f"places{k}"].tolist(), entries, strict=True):
                header = StructureHeader(path, n, info, offset, length)
                seen.headers.append(header)
                seen.by_id[header.id] = header
            self._structures[path] = seen
            self._in_cache += len(entries)
        for k, (folder, method) in enumerate(meta["labels"]):
            names, hosts = json.loads(arrays[f"names{k}"].tobytes())
            columns = zip(
                names, hosts, arrays[f"stamps{k}"].tolist(), arrays[f"times{k}"].tolist(), strict=True
            )
            self._labels.setdefault(self._path(folder), {})[method] = {
                name: (stamp, StoredLabel(name.removesuffix(".json"), method, seconds, host, ended))
                for name, host, stamp, (seconds, ended) in columns
            }
            self._in_cache += len(names)

    def _path(self, relative: str) -> Path:
        return Path(os.path.normpath(self.restart / relative))


def _inode(path: Path) -> int:
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0


def _stamp(stat: os.stat_result) -> int:
    return (stat.st_ino * 1_000_003 + stat.st_mtime_ns) % 2**63


def _as_bytes(value: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.frombuffer(json.dumps(value).encode("utf-8"), np.uint8)


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [Path(entry.path) for entry in entries if entry.is_dir()]
    except OSError:
        return []


def _label_files(method: Path) -> list[tuple[str, int]]:
    """(name, stamp) of the label files of a method. The stamp changes when a file is written again: it is made of inode
    and time, since the inode of a removed file is used again."""
    try:
        with os.scandir(method) as entries:
            return [
                (e.name, _stamp(e.stat()))
                for e in entries
                if e.name.endswith(".json") and e.name != "method.json" and not e.name.startswith(".")
            ]
    except OSError:
        return []
