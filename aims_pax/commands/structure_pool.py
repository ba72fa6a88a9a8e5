"""Pools of structures: extended XYZ files that are too large for memory, read in pieces and copied byte for byte."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from aims_pax.errors import SettingsError
from aims_pax.frames import Frame, Label
from aims_pax.labelled_data import LabelKeys, finite_structure, frame_of, read_labelled, read_structures
from aims_pax.suggestions import no_such
from aims_pax.xyz_blocks import nth

COLUMNS = re.compile(rb"""(?:^|\s)Properties\s*=\s*["']?([^\s"']+)""")
MODELS = (".model", ".pt", ".pth")
ENDINGS = (".xyz", ".extxyz", ".gz", ".bz2", ".xz")


@dataclass(frozen=True)
class PoolPlace:
    """Where a structure is: its file, and its number in it from 0, as in ASE's `FILE@0`."""

    path: Path
    index: int


@dataclass(frozen=True)
class PoolStructure:
    """One structure of a pool; label: None where it was not asked for."""

    place: PoolPlace
    frame: Frame
    label: Label | None = None


@dataclass(frozen=True)
class PoolContents:
    """What a first look at the files has found. counts: structures in each file; numbers: atomic numbers, ascending."""

    paths: tuple[Path, ...]
    counts: tuple[int, ...]
    numbers: tuple[int, ...]

    def __len__(self) -> int:
        return sum(self.counts)

    def place(self, k: int) -> PoolPlace:
        """The place of the k-th structure of all files."""
        for path, count in zip(self.paths, self.counts, strict=True):
            if k < count:
                return PoolPlace(path, k)
            k -= count
        raise IndexError(k)


def look_through(paths: Sequence[Path]) -> PoolContents:
    """Count structures and elements without reading numbers. Raises SettingsError for files that cannot be used."""
    from ase.data import atomic_numbers

    counts, symbols = [], set[str]()
    for path in paths:
        _check_name(path)
        count = 0
        for block in structure_bytes(path):
            count += 1
            symbols |= _symbols(block)
        if not count:
            raise SettingsError(f"{path}: no structures in it")
        counts.append(count)
    numbers = {int(s) if s.isdigit() else atomic_numbers.get(s.capitalize(), 0) for s in symbols}
    return PoolContents(tuple(paths), tuple(counts), tuple(sorted(numbers - {0})))


def structure_bytes(path: Path) -> Iterator[bytes]:
    """The bytes of each structure as they are in the file. Raises SettingsError where it is not extended XYZ."""
    from ase.io.formats import open_with_compression

    number = 0
    try:
        with open_with_compression(str(path), "rb") as file:
            head = file.readline().removeprefix(b"\xef\xbb\xbf")  # a byte order mark
            while head:
                if not head.strip():
                    head = file.readline()
                    continue
                number += 1
                lines = [head, *(file.readline() for _ in range(_atoms(head) + 1))]
                if not lines[-1]:
                    raise ValueError("the file is incomplete")
                head = file.readline()
                while head.lstrip().startswith(b"VEC"):  # cell vectors in an XYZ dialect that ASE reads
                    lines.append(head)
                    head = file.readline()
                yield b"".join(lines)
    except (ValueError, EOFError) as error:
        raise SettingsError(f"{path}, {nth(number)}: {error}") from error
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror or error}") from error


def read_pool(paths: Sequence[Path], keys: LabelKeys | None = None) -> Iterator[PoolStructure]:
    """Every structure of the files, one after another; with its label if keys are given.

    Raises SettingsError with file and structure number for structures that are invalid, or that lack a label within the
    limits of `label_limits.check_label`.
    """
    for path in paths:
        if keys is not None:
            for index, read in enumerate(read_labelled(path, keys)):
                yield PoolStructure(PoolPlace(path, index), read.frame, read.label)
            continue
        for number, atoms in read_structures(path):
            try:
                finite_structure(atoms)
                yield PoolStructure(PoolPlace(path, number - 1), frame_of(atoms))
            except SettingsError as error:
                raise SettingsError(f"{path}, {nth(number)}: {error}") from error


def in_batches(structures: Iterator[PoolStructure], atoms: int) -> Iterator[list[PoolStructure]]:
    """Lists of consecutive structures with about so many atoms together."""
    batch: list[PoolStructure] = []
    room = atoms
    for structure in structures:
        batch.append(structure)
        room -= len(structure.frame)
        if room <= 0:
            yield batch
            batch, room = [], atoms
    if batch:
        yield batch


def copied_structures(contents: PoolContents, chosen: Sequence[int]) -> list[bytes]:
    """The bytes of the chosen structures (numbers over all files), in the order of `chosen`, each with a line end."""
    wanted, found, k = set(chosen), dict[int, bytes](), 0
    for path in contents.paths:
        for block in structure_bytes(path):
            if k in wanted:
                found[k] = block if block.endswith(b"\n") else block + b"\n"
            k += 1
    return [found[k] for k in chosen]


def _check_name(path: Path) -> None:
    if not path.is_file():
        raise SettingsError(f"{path}: {no_such(path)}; expected extended XYZ")
    if path.suffix in MODELS:
        raise SettingsError(f"{path}: a pool is a file of structures; a model is named with --model {path}")
    if path.suffix not in ENDINGS:
        raise SettingsError(
            f"{path}: expected extended XYZ (.xyz, .extxyz); convert it: ase convert {path} pool.xyz"
        )


def _atoms(head: bytes) -> int:
    try:
        n = int(head)
    except ValueError:
        text = head.strip()[:40].decode("utf-8", "replace")
        raise ValueError(f"{text!r} instead of the number of atoms; expected extended XYZ") from None
    if n < 1:
        raise ValueError(f"{n} atoms; expected at least one")
    return n


def _symbols(block: bytes) -> set[str]:
    """The chemical symbols, or atomic numbers, in the lines of a structure."""
    lines = block.split(b"\n")
    written = COLUMNS.search(lines[1])
    column = 0
    if written:
        fields = written[1].split(b":")
        names, counts = fields[::3], fields[2::3]
        for name, count in zip(names, counts, strict=False):
            if name in (b"species", b"Z", b"numbers"):
                break
            column += int(count) if count.isdigit() else 1
        else:
            return set()
    rows = (line.split() for line in lines[2 : 2 + int(lines[0].removeprefix(b"\xef\xbb\xbf"))])
    return {row[column].decode("ascii", "replace") for row in rows if len(row) > column}
