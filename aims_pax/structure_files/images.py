"""Chooses structures of a file by an index: `trajectory.xyz@0`, `@-1`, `@:`, `@10:20`."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from aims_pax.errors import SettingsError

if TYPE_CHECKING:
    from ase import Atoms

Part = TypeVar("Part")
_index = re.compile(r"(?P<name>.+)@(?P<index>-?\d+|(-?\d*):(-?\d*)(:-?\d*)?)")
ADVICE = "choose one with {0}@0 (counted from 0; {0}@-1 is the last), or take all with {0}@:"


@dataclass(frozen=True)
class Image:
    """One structure of a file. notes: messages about contents of the file that are not used."""

    atoms: Atoms
    notes: tuple[str, ...] = field(default=())


@contextmanager
def numbered(number: int, several: bool) -> Iterator[None]:
    """Adds the number of the structure to errors, if the file has several. Raises SettingsError."""
    try:
        yield
    except Exception as error:  # ASE's readers may raise any exception
        if not several:
            raise
        raise SettingsError(f"structure {number} (from 0): {unreadable_image(error)}") from error


def unreadable_image(error: Exception) -> str:
    """The message of an exception of a reader, in one line. ASE's readers raise KeyError for unknown symbols."""
    if isinstance(error, SettingsError):
        return str(error)
    if isinstance(error, KeyError):
        isotope = error.args[:1] in (("D",), ("T",))
        hint = "; write isotopes as H, with a column masses, in an extended XYZ file" if isotope else ""
        return f"unreadable: {error} is not an element{hint}"
    said = f"{type(error).__name__}: {' '.join(str(error).split())}"
    if isinstance(error, AttributeError | IndexError | TypeError):  # the reader did not expect what it found
        return f"unreadable ({said}); is it complete? if so, convert it to extended XYZ"
    return said


def parsed(text: str, kind: str, **options: Any) -> Atoms:
    """The single structure in a text, read with ASE's reader for this format."""
    import ase.io

    atoms = ase.io.read(io.StringIO(text), index=0, format=kind, **options)
    assert not isinstance(atoms, list)
    return atoms


def split_index(path: Path) -> tuple[Path, str | None]:
    """The file and the index after its @; no index if a file with the whole name exists.

    >>> split_index(Path("run/a.xyz@-1")), split_index(Path("b.cif"))
    ((PosixPath('run/a.xyz'), '-1'), (PosixPath('b.cif'), None))
    """
    found = _index.fullmatch(path.name)
    if found is None or path.exists():
        return path, None
    return path.with_name(found["name"]), found["index"]


def choose_images(parts: Sequence[Part], index: str | None, path: Path) -> list[tuple[int, Part]]:
    """(number in the file, part) of the chosen parts; without an index the only one. Raises SettingsError."""
    n = len(parts)
    if n == 0:
        raise SettingsError("no structures in the file")
    if index is None:
        if n > 1:
            raise SettingsError(f"holds {n} structures, expected one: {ADVICE.format(path.name)}")
        return [(0, parts[0])]
    numbers = list(range(n))
    if ":" in index:
        picked = numbers[slice(*(int(x) if x else None for x in index.split(":")))]
    else:
        picked = [numbers[int(index)]] if -n <= int(index) < n else []
    if not picked:
        raise SettingsError(f"@{index}: no such structure; the file holds {n}, counted from 0")
    return [(k, parts[k]) for k in picked]
