"""Labelled frames and who may learn from them: append-only, keyed by frame id.

`labelled.xyz` holds every labelled frame once (extended XYZ, MACE's label names); `splits.jsonl` says in which
order and in whose training, validation or test set they were put. Adding twice is harmless. Both files only ever
grow, so their cost per new label does not depend on how many there are.
"""

from __future__ import annotations

import io
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aims_pax.errors import RestartError, SettingsError
from aims_pax.frames import ENERGY, FORCES, STRESS, LabelledFrame

if TYPE_CHECKING:
    from ase import Atoms

log = logging.getLogger(__name__)

SPLITS = ("train", "valid", "test")
POOL, ENTRIES = "labelled.xyz", "splits.jsonl"
LARGEST = 1e9  # Å: a position or cell beyond it cannot be kept to 1e-8 Å
PROPERTIES = re.compile(r"""(?:^|\s)Properties\s*=\s*["']?([^\s"']+)""")


@dataclass(frozen=True)
class Entry:
    """One line of the bookkeeping: this frame is in this set of this member (None: of every member)."""

    frame: str
    split: str
    member: int | None = None


class Dataset:
    """Frames by split and member. Without a folder it lives in memory only."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.frames: dict[str, LabelledFrame] = {}
        self.entries: list[Entry] = []
        self._known: set[Entry] = set()
        self._sets: dict[tuple[str, int | None], dict[str, None]] = {}  # what `ids` has been asked for
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._load(folder)

    # ------------------------------------------------------------ reading

    def train(self, member: int) -> list[LabelledFrame]:
        """What this member trains on, in the order it came."""
        return self._of("train", member)

    def valid(self, member: int) -> list[LabelledFrame]:
        """What this member is validated on."""
        return self._of("valid", member)

    @property
    def test(self) -> list[LabelledFrame]:
        """Frames that no decision has ever looked at."""
        return self._of("test", None)

    def union(self, split: str) -> list[LabelledFrame]:
        """The frames of this split of all members together."""
        ids = dict.fromkeys(e.frame for e in self.entries if e.split == split)
        return [self.frames[i] for i in ids]

    def __contains__(self, frame: str) -> bool:
        return frame in self.frames

    def __len__(self) -> int:
        return len(self.frames)

    def ids(self, split: str, member: int | None) -> list[str]:
        """Frame ids of a set, in the order they came. member None: what belongs to every member."""
        if (split, member) not in self._sets:
            mine = (e.frame for e in self.entries if e.split == split and e.member in (None, member))
            self._sets[split, member] = dict.fromkeys(mine)
        return list(self._sets[split, member])

    def _of(self, split: str, member: int | None) -> list[LabelledFrame]:
        return [self.frames[i] for i in self.ids(split, member)]

    # ------------------------------------------------------------ growing

    def add(self, labelled: LabelledFrame, split: str, member: int | None = None) -> bool:
        """Put a frame into a set; False when it was there already. Raises ValueError for an unknown split."""
        if split not in SPLITS:
            raise ValueError(f"split {split!r}")
        entry = Entry(labelled.id, split, member)
        if entry in self._known:
            return False
        if labelled.id not in self.frames:
            self.frames[labelled.id] = labelled
            if self.folder is not None:
                _append(self.folder / POOL, to_extxyz([labelled]))
        self._remember(entry)
        if self.folder is not None:
            _append(self.folder / ENTRIES, _line(entry))
        return True

    def keep_first(self, n: int) -> None:
        """Forget all bookkeeping after the first n entries (a restart derives them again); frames stay.

        Raises RestartError when there are fewer than n: somebody removed data the run depends on.
        """
        if len(self.entries) < n:
            raise RestartError(
                f"{self.folder}: the restart expects {n} dataset entries, there are {len(self.entries)}; "
                "put the removed files back, or start over in an empty folder"
            )
        self.entries, entries = [], self.entries[:n]
        self._known, self._sets = set(), {}
        for entry in entries:
            self._remember(entry)
        if self.folder is not None:
            path = self.folder / ENTRIES
            temporary = path.with_suffix(".new")
            temporary.write_text("".join(map(_line, entries)), encoding="utf-8")
            os.replace(temporary, path)

    def sync(self) -> None:
        """Everything added so far is on the disk."""
        for path in [] if self.folder is None else [self.folder / POOL, self.folder / ENTRIES]:
            if path.exists():
                with open(path, "rb") as file:
                    os.fsync(file.fileno())

    def _remember(self, entry: Entry) -> None:
        self.entries.append(entry)
        self._known.add(entry)
        for (split, member), known in self._sets.items():
            if split == entry.split and entry.member in (None, member):
                known[entry.frame] = None

    def _load(self, folder: Path) -> None:
        pool, splits = folder / POOL, folder / ENTRIES
        if pool.exists():
            _drop_torn_tail(pool, whole_structures)
            for labelled in read_extxyz(pool):
                self.frames.setdefault(labelled.id, labelled)
        if splits.exists():
            _drop_torn_tail(splits, lambda text: text.rfind("\n") + 1)
            for number, line in enumerate(
                splits.read_text(encoding="utf-8", errors="replace").splitlines(), 1
            ):
                try:
                    frame, split, member = json.loads(line)
                    if split not in SPLITS or not isinstance(member, int | None):
                        raise ValueError(f"split {split!r}, member {member!r}")
                except (ValueError, TypeError, RecursionError) as error:
                    raise RestartError(
                        f"{splits}:{number}: unreadable ({error}); restore this file"
                    ) from error
                if frame not in self.frames:
                    raise RestartError(
                        f"{splits}:{number}: frame {frame} is not in {pool}; restore that file"
                    )
                self._remember(Entry(frame, split, member))


# ---------------------------------------------------------------- extended XYZ


def read_extxyz(
    path: Path, energy_key: str = ENERGY, forces_key: str = FORCES, stress_key: str = STRESS
) -> Iterator[LabelledFrame]:
    """Every labelled structure of a file, all of finite numbers.

    Raises SettingsError with file and structure number.
    """
    import ase.io

    try:
        structures = ase.io.iread(path, index=":", format="extxyz")
        number = 0
        for number, atoms in enumerate(structures, 1):  # noqa: B007
            yield _labelled(atoms, energy_key, forces_key, stress_key)
    except SettingsError as error:
        raise SettingsError(f"{path}, {_nth(number)}: {error}") from error
    except Exception as error:  # ASE's reader raises whatever it trips over
        if isinstance(error, OSError) and error.strerror:  # ASE's own have none
            raise SettingsError(f"{path}: {error.strerror}") from error
        where = damage(path) or f"{_nth(number + 1)}: {unreadable(error)}"
        raise SettingsError(f"{path}, {where}") from error


def _labelled(atoms: Atoms, energy_key: str, forces_key: str, stress_key: str) -> LabelledFrame:
    """A structure that was read, of finite numbers. Raises SettingsError, also for what cannot be made a frame of."""
    try:
        _finite_structure(atoms)
        labelled = LabelledFrame.from_atoms(atoms, energy_key, forces_key, stress_key)
        _finite_label(labelled)
    except SettingsError:
        raise
    except Exception as error:  # of this structure, not of the next, which is where the reader stands
        raise SettingsError(unreadable(error)) from error
    return labelled


def only_known(
    frames: Iterable[LabelledFrame], elements: Sequence[int], path: Path
) -> Iterator[LabelledFrame]:
    """The structures of a file for a model of these elements (atomic numbers).

    Raises SettingsError with file and structure number where there is another element.
    """
    from ase.data import chemical_symbols

    for number, labelled in enumerate(frames, 1):
        others = sorted(set(labelled.frame.numbers.tolist()) - set(elements))
        if others:
            other, known = (", ".join(chemical_symbols[z] for z in zs) for zs in (others, sorted(elements)))
            raise SettingsError(
                f"{path}, {_nth(number)}: the model does not know {other} (in {labelled.frame.formula}), "
                f"only {known}; remove such structures"
            )
        yield labelled


def damage(path: Path) -> str | None:
    """Where the lines of a file stop being extended XYZ and how, or None; the numbers in them are not read."""
    from ase.io.formats import open_with_compression

    number = 0
    try:
        with open_with_compression(str(path)) as file:
            head = file.readline()
            while head.strip():
                number += 1
                fault = _broken(head, file)
                if fault is not None:
                    return f"{_nth(number)}: {fault}"
                head = file.readline()
                while head.lstrip().startswith("VEC"):  # cell vectors in a dialect that ASE reads
                    head = file.readline()
    except (UnicodeDecodeError, EOFError):
        return f"{_nth(number + 1)}: this is no text; expected extended XYZ"
    return None


def _broken(head: str, file: Any) -> str | None:
    """What is wrong with the lines of the structure that begins with this line, the others being read here."""
    try:
        n = int(head)
    except ValueError:
        return f"{head.strip()[:40]!r} where the number of atoms belongs; expected extended XYZ"
    comment = file.readline()
    if not comment:
        return f"the file ends early, before the first of {n} atoms"
    written = PROPERTIES.search(comment)
    counts = written[1].split(":")[2::3] if written else ["4"]
    columns = sum(int(c) for c in counts if c.isdecimal())
    for atom in range(1, n + 1):
        line = file.readline()
        if not line:
            return f"the file ends early, after {atom - 1} of {n} atoms"
        found = len(line.split())
        if found < columns:
            end = "" if file.readline() else "; the file ends early"
            return f"the line of atom {atom} of {n} has {found} columns, expected {columns}{end}"
    return None


def _finite_structure(atoms: Atoms) -> None:
    """Positions, cell and what else makes the structure are numbers. Raises SettingsError."""
    _finite("the position of atom {}", atoms.positions)
    _finite("lattice vector {}", atoms.cell.array)
    for name, what in (("initial_magmoms", "magnetic moment"), ("initial_charges", "charge")):
        if atoms.has(name):
            _finite(f"the initial {what} of atom {{}}", atoms.arrays[name])
    for name in ("charge", "total_charge", "spin", "total_spin"):
        if isinstance(value := atoms.info.get(name), float):
            _finite(f"{name}", [value])


def _finite_label(labelled: LabelledFrame) -> None:
    """Energy, forces and stress are numbers. Raises SettingsError."""
    label = labelled.label
    _finite("the energy", [label.energy], np.inf)
    _finite("a force of atom {}", label.forces, np.inf)
    if label.stress is not None:
        _finite("the stress", [label.stress.ravel()], np.inf)


def _finite(what: str, values: Any, limit: float = LARGEST) -> None:
    """Rows of numbers; `{}` is the place of the row, counted from 1."""
    rows = np.asarray(values, float)
    rows = rows.reshape(len(rows), rows[:1].size)
    wrong = np.flatnonzero(~(abs(rows) < limit).all(axis=1))
    if len(wrong):
        row = rows[wrong[0]]
        kind = "NaN" if np.isnan(row).any() else "infinite" if np.isinf(row).any() else "absurdly large"
        raise SettingsError(f"{what.format(wrong[0] + 1)} is {kind}; correct or remove this structure")


def _nth(number: int) -> str:
    return f"structure {number} (counted from 1)"


def unreadable(error: Exception) -> str:
    """What an exception of ASE's readers says of a structure. Of a symbol they do not know they say KeyError."""
    if isinstance(error, KeyError) and len(str(error.args[0])) < 4:
        return f"{error} is no element"
    return f"{type(error).__name__}: {error}"


def write_extxyz(path: Path, frames: Sequence[LabelledFrame]) -> None:
    """Write a whole file at once, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(to_extxyz(frames), encoding="utf-8")
    os.replace(temporary, path)


def to_extxyz(frames: Iterable[LabelledFrame]) -> str:
    """Extended XYZ with the label names MACE reads."""
    import ase.io

    buffer = io.StringIO()
    for labelled in frames:
        ase.io.write(buffer, labelled.to_atoms(), format="extxyz", write_results=False)
    return buffer.getvalue()


def whole_structures(text: str) -> int:
    """Length of the leading part of an XYZ text that consists of whole structures."""
    end = start = 0
    while start < len(text):
        newline = text.find("\n", start)
        head = text[start:newline].strip()
        if newline < 0 or not head.isdigit():
            break
        start = newline + 1
        for _ in range(int(head) + 1):
            newline = text.find("\n", start)
            if newline < 0:
                return end
            start = newline + 1
        end = start
    return end


def _drop_torn_tail(path: Path, length: Callable[[str], int]) -> None:
    """Cut off what a crash left half-written at the end of an append-only file."""
    content = path.read_bytes()
    text = content.decode("latin-1")  # one character a byte: lengths are byte counts, whatever is in there
    whole = length(text)
    if whole < len(text):
        log.warning("%s: the last entry was only half written; dropped, it will be added again", path)
        with open(path, "r+b") as file:
            file.truncate(whole)


def _append(path: Path, text: str) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(text)


def _line(entry: Entry) -> str:
    return json.dumps([entry.frame, entry.split, entry.member]) + "\n"
