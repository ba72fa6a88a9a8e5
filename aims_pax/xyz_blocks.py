"""The lines of an extended XYZ file, structure by structure, and where such a file is damaged or incomplete."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TextIO

from aims_pax.errors import SettingsError

PROPERTIES = re.compile(r"""(?:^|\s)Properties\s*=\s*["']?([^\s"']+)""")
PAIR = re.compile(
    r"""([^\s="'{\[]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'|\{([^}]*)\}|\[([^\]]*)\]|(\S*))"""
)

OF_ASE = (".traj", ".db", ".json")  # files of structures that ASE converts
TRUTH = frozenset(("T", "F", "True", "False"))


class BlockFault(Exception):
    """Lines that are not extended XYZ."""


def open_text(path: Path) -> TextIO:
    """A file, compressed or not, as UTF-8 with or without a byte order mark."""
    from ase.io.formats import open_with_compression

    return io.TextIOWrapper(open_with_compression(str(path), "rb"), encoding="utf-8-sig")


@dataclass(frozen=True)
class StructureLines:
    """The lines of one structure, with their line breaks. last: the file ends after them."""

    head: str
    comment: str
    atoms: list[str]
    cell_vectors: list[str] = field(default_factory=list)
    last: bool = False

    @property
    def text(self) -> str:
        return "".join([self.head, self.comment, *self.atoms, *self.cell_vectors])


def structure_blocks(file: TextIO) -> Iterator[StructureLines]:
    """The lines of each structure. Raises BlockFault at the first line that belongs to no structure."""
    head = file.readline()
    while head:
        if not head.strip():  # between structures
            head = file.readline()
            continue
        comment, atoms = _comment_and_atoms(head, file)
        vectors: list[str] = []
        number, head = head, file.readline()
        while head.lstrip().startswith("VEC"):  # cell vectors in an XYZ dialect that ASE reads
            vectors.append(head)
            head = file.readline()
        yield StructureLines(number, comment, atoms, vectors, not head)


def _comment_and_atoms(head: str, file: TextIO) -> tuple[str, list[str]]:
    """The comment and the atoms of the structure that begins with this line."""
    try:
        n = int(head)
    except ValueError:
        raise BlockFault(
            f"{head.strip()[:40]!r} instead of the number of atoms; expected extended XYZ"
        ) from None
    if n < 1:
        raise BlockFault(f"{n} atoms; expected at least one")
    comment = file.readline()
    if not comment:
        raise BlockFault(f"the file is incomplete: it ends before the first of {n} atoms")
    atoms = list(islice(file, n))
    if len(atoms) < n:
        check_columns(StructureLines(head, comment, atoms, last=True))
        raise BlockFault(f"the file is incomplete: it ends after {len(atoms)} of {n} atoms")
    return comment, atoms


def check_columns(block: StructureLines) -> None:
    """Raise BlockFault for the first line of an atom that has not the columns of the header."""
    if block.comment.count("Properties=") > 1:
        raise BlockFault("Properties appears twice in one header: two structures in one line")
    written = PROPERTIES.search(block.comment)
    counts = written[1].split(":")[2::3] if written else ["4"]
    columns = sum(int(c) for c in counts if c.isdecimal())
    for atom, line in enumerate(block.atoms, 1):
        found = len(line.split())
        if found < columns or (written and found > columns):
            ended = found < columns and block.last and atom == len(block.atoms)
            end = "; the file is incomplete" if ended else ""
            n = int(block.head)
            raise BlockFault(f"the line of atom {atom} of {n} has {found} columns, expected {columns}{end}")
    check_truth_values(block.comment, block.atoms)
    check_elements(block.comment, block.atoms)


def check_truth_values(comment: str, atoms: Sequence[str]) -> None:
    """Raise BlockFault for a column of type L with other words than T and F: ASE reads each of them as F."""
    for name, kind, start, end in _columns(comment):
        for atom, line in enumerate(atoms if kind == "L" else (), 1):
            if odd := set(line.split()[start:end]) - TRUTH:
                raise BlockFault(f"{name} of atom {atom} is {min(odd)[:20]!r}; expected T or F")


def check_elements(comment: str, atoms: Sequence[str]) -> None:
    """Raise BlockFault for symbols that contradict the atomic numbers beside them: ASE takes the numbers."""
    columns = {name: start for name, _, start, _ in _columns(comment)}
    symbols, numbers = (
        next((n for n in names if n in columns), None) for names in (("species", "symbols"), ("Z", "numbers"))
    )
    if symbols is None or numbers is None:
        return
    from ase.data import atomic_numbers

    for atom, line in enumerate(atoms, 1):
        words = [*line.split(), ""]
        symbol, number = (words[min(columns[name], len(words) - 1)] for name in (symbols, numbers))
        expected = atomic_numbers.get(symbol.capitalize())
        if expected is not None and number.isdecimal() and int(number) != expected:
            raise BlockFault(
                f"atom {atom} is {symbol} in the column {symbols} and {number} in the column {numbers} (the atomic "
                "numbers); keep the right column"
            )


def _columns(comment: str) -> Iterator[tuple[str, str, int, int]]:
    """(name, type, first column, end) of each entry of Properties."""
    written = PROPERTIES.search(comment)
    words = written[1].split(":") if written else []
    start = 0
    for name, kind, count in zip(words[::3], words[1::3], words[2::3], strict=False):
        end = start + (int(count) if count.isdecimal() else 1)
        yield name, kind, start, end
        start = end


def no_key_twice(comment: str) -> None:
    """Raise SettingsError for a key that occurs twice with different values."""
    seen: dict[str, str] = {}
    for match in PAIR.finditer(comment):
        key, value = match[1], next((g for g in match.groups()[1:] if g is not None), "")
        if seen.setdefault(key, value) != value:
            raise SettingsError(f"{key} appears twice, as {seen[key]!r} and as {value!r}; keep one")


def torn_tail(text: str) -> tuple[int, str | None]:
    """(length of the leading part that consists of whole structures, message about an unexpected line or None).

    None: after that length there is nothing, or an incomplete structure as left by a crash.
    """
    lines = text.split("\n")  # the last one has no line break
    end = k = 0
    while k < len(lines) - 1:
        head = lines[k].strip()
        if head and not head.isdigit():
            return end, f"{k + 1}: {head[:40]!r} instead of the number of atoms"
        after = k + (int(head[:18]) + 2 if head else 1)
        if after >= len(lines):
            several = text.count("Properties=", end) > 1
            said = f"{k + 1}: fewer lines than {head} atoms, and other structures follow"
            return end, said if several else None
        end += sum(map(len, lines[k:after])) + after - k
        k = after
    head = lines[k].strip()
    unfinished = head.isdigit() or not head.strip("\0")
    return end, None if unfinished else f"{k + 1}: {head[:40]!r} is not part of a structure"


def whole_structures(text: str) -> int:
    """Length of the leading part of an XYZ text that consists of whole structures."""
    return torn_tail(text)[0]


def find_damage(path: Path) -> str | None:
    """The first structure whose lines are not extended XYZ, and why, or None; numbers are not parsed."""
    number = 0
    try:
        with open_text(path) as file:
            for block in structure_blocks(file):
                check_columns(block)
                number += 1
    except BlockFault as fault:
        return f"{nth(number + 1)}: {fault}"
    except (UnicodeDecodeError, EOFError, OSError):
        return f"{nth(number + 1)}: {no_text(path)}"
    return None


def no_text(path: Path) -> str:
    """Why a file cannot be read as text in UTF-8."""
    from ase.io.formats import open_with_compression

    try:
        with open_with_compression(str(path), "rb") as file:
            for number, line in enumerate(file, 1):
                if b"\0" in line:
                    break
                try:
                    line.decode("utf-8")
                except UnicodeDecodeError as error:
                    return (
                        f"line {number} of the file holds the byte {line[error.start]:#x}, which is not UTF-8; save it "
                        f"as UTF-8 (iconv -f latin1 -t utf-8 {path.name})"
                    )
    except (EOFError, OSError):
        pass
    convert = f"; convert it: ase convert {path.name} {path.stem}.xyz" if path.suffix in OF_ASE else ""
    return f"not a text file; expected extended XYZ{convert}"


def nth(number: int) -> str:
    return f"structure {number} (counted from 1)"
