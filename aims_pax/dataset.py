"""Labelled frames and their training, validation and test sets: append-only, keyed by frame id and label.

`labelled.xyz` holds every labelled frame once for each method (extended XYZ, MACE's label names); `splits.jsonl`
lists, in order, which frame was added to which set of which member, and with which label. Adding twice is harmless.
Both files are only appended to, so the cost per new label does not depend on their size.
"""

from __future__ import annotations

import gc
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aims_pax.errors import RestartError, SettingsError
from aims_pax.frames import ENERGY, FORCES, STRESS, LabelledFrame
from aims_pax.labelled_data import VIRIALS, LabelKeys, read_labelled, reader_error, to_extxyz
from aims_pax.record.files import append_text, cut_torn_tail, sync, write_text
from aims_pax.xyz_blocks import find_damage, nth, torn_tail, whole_structures

__all__ = [
    "Dataset",
    "Entry",
    "find_damage",
    "only_known",
    "read_extxyz",
    "reader_error",
    "to_extxyz",
    "whole_structures",
    "write_extxyz",
]  # fmt: skip

log = logging.getLogger(__name__)

SPLITS = ("train", "valid", "test")
POOL, ENTRIES = "labelled.xyz", "splits.jsonl"
EARLIER = "splits.earlier.jsonl"  # entries of earlier attempts, and of runs whose restart/ was removed


@dataclass(frozen=True)
class Entry:
    """One line of splits.jsonl: this frame is in this set of this member (None: of every member).

    label: which label, if a frame has several: the hash of the reference method, or `given:FILE#index`.
    """

    frame: str
    split: str
    member: int | None = None
    label: str = ""

    @property
    def place(self) -> tuple[str, str, int | None]:
        return self.frame, self.split, self.member


def label_key(labelled: LabelledFrame) -> str:
    """Distinguishes labels of one frame: the file of a given label, otherwise the reference method."""
    source = str(labelled.origin.get("source", ""))
    return source if source.startswith("given:") else str(labelled.origin.get("method", ""))


class Dataset:
    """Frames by split and member. Without a folder it exists only in memory."""

    def __init__(self, folder: Path | str | None = None) -> None:
        folder = None if folder is None else Path(folder)
        self.folder = folder
        self.frames: dict[str, LabelledFrame] = {}  # with the label in use, or the first one
        self.entries: list[Entry] = []
        self._pool: dict[tuple[str, str], LabelledFrame] = {}
        self._known: set[tuple[str, str, int | None]] = set()
        self._sets: dict[tuple[str, int | None], dict[str, str]] = {}  # cache of `_set`: id → label
        self._split: dict[str, str] = {}  # frame → the set it was put into first
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            with _without_collection():
                self._load(folder)

    # ------------------------------------------------------------ reading

    def train(self, member: int) -> list[LabelledFrame]:
        """The training set of this member, in the order of addition."""
        return self.chosen("train", member)

    def valid(self, member: int) -> list[LabelledFrame]:
        """The validation set of this member."""
        return self.chosen("valid", member)

    @property
    def test(self) -> list[LabelledFrame]:
        """The test set: frames that no decision of the run uses."""
        return self.chosen("test", None)

    def union(self, *splits: str) -> list[LabelledFrame]:
        """The frames of these splits of all members together, each once, in the order of addition."""
        labels: dict[str, str] = {}
        for entry in self.entries:
            if entry.split in splits:
                labels.setdefault(entry.frame, entry.label)
        return [self._pool[item] for item in labels.items()]

    def __contains__(self, frame: str) -> bool:
        return frame in self.frames

    def __len__(self) -> int:
        return len(self.frames)

    def ids(self, split: str, member: int | None) -> list[str]:
        """Frame ids of a set, in the order of addition. member None: entries that belong to every member."""
        return list(self._set(split, member))

    def chosen(self, split: str, member: int | None, ids: Iterable[str] | None = None) -> list[LabelledFrame]:
        """The frames of a set with their labels in this set; only these ids, or all."""
        labels = self._set(split, member)
        return [self._pool[i, labels[i]] for i in (labels if ids is None else ids)]

    def labelled(self, frame: str, label: str) -> LabelledFrame | None:
        """This frame with the label of this method (or `given:FILE#index`), whether or not it is in a set."""
        return self._pool.get((frame, label))

    def _set(self, split: str, member: int | None) -> dict[str, str]:
        if (split, member) not in self._sets:
            mine = (e for e in self.entries if e.split == split and e.member in (None, member))
            labels = self._sets[split, member] = {}
            for entry in mine:
                labels.setdefault(entry.frame, entry.label)
        return self._sets[split, member]

    def split_of(self, frame: str) -> str | None:
        """The split to which a frame was first added, for any member; None: it is in no set."""
        return self._split.get(frame)

    # ------------------------------------------------------------ growing

    def add(self, labelled: LabelledFrame, split: str, member: int | None = None) -> bool:
        """Add a frame to a set; False if it was there already. Raises ValueError for an unknown split."""
        if split not in SPLITS:
            raise ValueError(f"split {split!r}")
        entry = Entry(labelled.id, split, member, label_key(labelled))
        if entry.place in self._known:
            return False
        if (entry.frame, entry.label) not in self._pool:
            self._pool[entry.frame, entry.label] = labelled
            if self.folder is not None:
                append_text(self.folder / POOL, to_extxyz([labelled]))
        self._remember(entry)
        if self.folder is not None:
            append_text(self.folder / ENTRIES, _line(entry))
        return True

    def require(self, n: int) -> None:
        """Raise RestartError if there are fewer than n entries: data that the run needs is not in this folder."""
        _require(self.folder, len(self.entries), n)

    def keep_first(self, n: int) -> None:
        """Remove all entries after the first n (a restart adds them again); labelled frames are not removed.

        Raises RestartError like `require`.
        """
        self.require(n)
        self.entries, entries = [], self.entries[:n]
        self._known, self._sets, self._split = set(), {}, {}
        for entry in entries:
            self._remember(entry)
        if self.folder is not None:
            write_text(self.folder / ENTRIES, "".join(map(_line, entries)))

    def begin_again(self, n: int) -> None:
        """Restart a stage that adds to the first n entries: move the entries that it added to `splits.earlier.jsonl`.

        All labelled frames stay in the pool. Without this, the sets would hold frames that the new attempt did not
        count. Raises RestartError like `require`.
        """
        earlier = self.entries[n:]
        if not earlier:
            return
        if self.folder is not None:
            append_text(self.folder / EARLIER, "".join(map(_line, earlier)), sync=True)
            log.info(
                "%s: %d entries of an earlier attempt moved to %s; their labels remain stored",
                self.folder / ENTRIES, len(earlier), EARLIER,
            )  # fmt: skip
        self.keep_first(n)

    def sync(self) -> None:
        """Write everything added so far to disk."""
        for path in [] if self.folder is None else [self.folder / POOL, self.folder / ENTRIES]:
            if path.exists():
                sync(path)

    def _remember(self, entry: Entry) -> None:
        self.entries.append(entry)
        self._known.add(entry.place)
        self._split.setdefault(entry.frame, entry.split)
        self.frames[entry.frame] = self._pool[entry.frame, entry.label]
        for (split, member), known in self._sets.items():
            if split == entry.split and entry.member in (None, member):
                known.setdefault(entry.frame, entry.label)

    def _load(self, folder: Path) -> None:
        pool, splits = folder / POOL, folder / ENTRIES
        first: dict[str, str] = {}  # frame → its first label: entries of older versions name no label
        if pool.exists():
            cut_torn_structure(pool)
            for labelled in read_labelled(pool):
                self._pool.setdefault((labelled.id, label_key(labelled)), labelled)
                self.frames.setdefault(labelled.id, labelled)
                first.setdefault(labelled.id, label_key(labelled))
        if splits.exists():
            content = splits.read_bytes()
            cut_torn_tail(splits, content.rfind(b"\n") + 1)
            for number, line in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), 1):
                try:
                    self._remember(_entry(line.decode("utf-8", "replace"), first))
                except (ValueError, TypeError, RecursionError) as error:
                    raise RestartError(
                        f"{splits}:{number}: unreadable ({error}); restore this file"
                    ) from error
                except KeyError as error:
                    raise RestartError(
                        f"{splits}:{number}: frame {error.args[0]} is not in {pool}; restore that file"
                    ) from error


def require_stored(folder: Path, n: int) -> None:
    """`Dataset.require` for a folder that is not opened: only the lines of its list of entries are counted."""
    splits = folder / ENTRIES
    _require(folder, splits.read_bytes().count(b"\n") if splits.exists() else 0, n)


def _require(folder: Path | None, found: int, n: int) -> None:
    if found < n:
        raise RestartError(
            f"{folder}: the restart expects {n} dataset entries, found {found}; restore the removed files (or "
            "MISC.dataset_dir, where it was changed), or start again in an empty folder"
        )


@contextmanager
def _without_collection() -> Iterator[None]:
    """Reading makes many objects and no garbage; the collector would look at all of them again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def cut_torn_structure(path: Path) -> None:
    """Remove an incomplete structure at the end of a file, as left by a crash; a copy remains.

    Raises RestartError with the line of any other damage, and then changes nothing.
    """
    content = path.read_bytes()
    text = content.decode("latin-1")  # one character per byte, so that lengths are byte counts
    whole, fault = torn_tail(text)
    if fault is not None:
        raise RestartError(f"{path}:{fault}; correct that line, or restore the file. Nothing was changed")
    cut_torn_tail(path, whole)


# ---------------------------------------------------------------- extended XYZ


def read_extxyz(
    path: Path | str,
    energy_key: str = ENERGY,
    forces_key: str = FORCES,
    stress_key: str = STRESS,
    virials_key: str = VIRIALS,
) -> Iterator[LabelledFrame]:
    """Every labelled structure of a file; see `labelled_data.read_labelled`. Raises SettingsError."""
    return read_labelled(Path(path), LabelKeys(energy_key, forces_key, stress_key, virials_key))


def write_extxyz(path: Path | str, frames: Sequence[LabelledFrame]) -> None:
    """Write a whole file at once, atomically."""
    write_text(Path(path), to_extxyz(frames))


def only_known(
    frames: Iterable[LabelledFrame], elements: Sequence[int], path: Path
) -> Iterator[LabelledFrame]:
    """The structures of a file for a model of these elements (atomic numbers).

    Raises SettingsError with file and structure number for other elements.
    """
    from ase.data import chemical_symbols

    for number, labelled in enumerate(frames, 1):
        others = sorted(set(labelled.frame.numbers.tolist()) - set(elements))
        if others:
            other, known = (", ".join(chemical_symbols[z] for z in zs) for zs in (others, sorted(elements)))
            raise SettingsError(
                f"{path}, {nth(number)}: the model does not know {other} (in {labelled.frame.formula}), "
                f"only {known}; remove such structures"
            )
        yield labelled


def _line(entry: Entry) -> str:
    label = [entry.label] if entry.label else []
    return json.dumps([entry.frame, entry.split, entry.member, *label]) + "\n"


def _entry(line: str, first: dict[str, str]) -> Entry:
    """Parse an entry. Raises ValueError or TypeError for an invalid one, KeyError for an unknown frame."""
    frame, split, member, *label = json.loads(line)
    if split not in SPLITS or not isinstance(member, int | None) or isinstance(member, bool):
        raise ValueError(f"split {split!r}, member {member!r}")
    if not isinstance(frame, str) or len(label) > 1 or not all(isinstance(k, str) for k in label):
        raise ValueError(f"frame {frame!r}, label {label!r}")
    return Entry(frame, split, member, label[0] if label else first[frame])
