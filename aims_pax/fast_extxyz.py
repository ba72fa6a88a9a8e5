"""A fast reader for the extended XYZ that aims-PAX writes itself (`labelled_data.to_extxyz`), without ASE.

ASE's reader takes 0.6 ms for a structure of 20 atoms, which is 6 s at the restart of a run with 10 000 labels. This one
reads exactly the forms that `to_extxyz` writes, many structures at once, with the same result to the last bit. For
anything else it gives None: the caller then uses ASE's reader, which also words the errors. It never
guesses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aims_pax import atoms_info, comment_line
from aims_pax.errors import SettingsError
from aims_pax.frames import ENERGY, FORCES, STRESS, Array, Frame, Label, LabelledFrame

LARGEST = 1e9  # larger values are an error, for which the slow reader has the words
ASYMMETRIC = 1e-3  # eV/Å³: a stress that differs more from its transpose is judged by the slow reader
MASK, MOMENTS, CHARGES, MASSES = "move_mask", "initial_magmoms", "initial_charges", "masses"
OWN_COLUMNS = {  # column → (type, how many it may have), of `Frame.to_atoms`
    "species": ("S", "1"),
    "pos": ("R", "3"),
    MASK: ("L", "13"),
    MOMENTS: ("R", "1"),
    CHARGES: ("R", "1"),
    MASSES: ("R", "1"),
    atoms_info.ZERO_MOMENTS: ("L", "1"),
    FORCES: ("R", "3"),
}
# entries that ASE's reader moves into a calculator, or reads in another way
OTHER_MEANING = frozenset(
    (
        *("energy", "energies", "forces", "stress", "stresses", "virial", "charges", "magmom", "magmoms"),
        *("free_energy", "dipole", "dielectric_tensor", "polarization", "born_effective_charges", "uid"),
        *("REF_virials",),
    )
)
OF_ELECTRONS = (*atoms_info.CHARGE, *atoms_info.SPIN)
TRUTH = {"T": True, "F": False}
_PBC = {f"{a} {b} {c}": np.array([TRUTH[a], TRUTH[b], TRUTH[c]]) for a in "TF" for b in "TF" for c in "TF"}
MAY_BE_VALUES = frozenset(("t", "f", "true", "false", "nan", "inf", "infinity"))  # words that ASE may convert

_entry = re.compile(r'([A-Za-z_]\w*)=(?:"([^"\\]*(?:\\"[^"\\]*)*)"|([^\s"\'\\=,{}\[\]]+))(?: |$)')
_unquoted = re.compile(r"[ !#-&(-+\-./0-9:-Z^_`a-z|~]*")
_json_text = re.compile(r'_JSON \\"([^"\\\x00-\x1f]+)\\"')  # text that looks like a number, as it is written
_whole = re.compile(r"[+-]?(0|[1-9]\d{0,14})", re.ASCII)
_real = re.compile(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?", re.ASCII)
_nine_reals = re.compile(r"([+-]?\d+(\.\d*)?(e[+-]?\d+)?( |$)){9}", re.ASCII)
_word = re.compile(r"[A-Za-z][^\s,]*")


def read_own_structures(blocks: Sequence[tuple[str, Sequence[str]]]) -> list[LabelledFrame | None]:
    """The structures with these comment lines and lines of atoms; None for each that is not understood completely."""
    headers = [_header(comment) for comment, _ in blocks]
    found: list[LabelledFrame | None] = [None] * len(blocks)
    groups: dict[_Layout, list[int]] = {}
    for k, header in enumerate(headers):
        if header is not None and set(map(len, blocks[k][1])) == {header[1].width}:
            groups.setdefault(header[1], []).append(k)
    for layout, members in groups.items():
        counts = [len(blocks[k][1]) for k in members]
        table = _Table.parse("".join("".join(blocks[k][1]) for k in members), layout, counts)
        start = 0
        for j, (k, n) in enumerate(zip(members, counts, strict=True)):
            header = headers[k]
            if header is not None and table is not None and table.valid[j]:
                found[k] = _structure(header[0], table, slice(start, start + n))
            start += n
    return found


# ---------------------------------------------------------------- comment line


@dataclass(frozen=True)
class _Layout:
    """Where the columns of one kind of line are. width: bytes, with the line break."""

    columns: tuple[tuple[str, str, int, int], ...]  # (name, type, first byte, count)
    width: int


def _header(comment: str) -> tuple[dict[str, str], _Layout] | None:
    """{key: text} and the columns of a comment line."""
    simple = comment.isascii() and "\\" not in comment
    entries = _entries(comment) if simple else _entries_by_pattern(comment)
    if entries is None or "frame_id" not in entries or comment.count("Properties=") > 1:
        return None
    layout = _layout(entries.pop("Properties", ""))
    slow = OTHER_MEANING & entries.keys() or any(map(comment_line.may_state_a_unit, entries))
    return None if layout is None or slow else (entries, layout)


def _entries(comment: str) -> dict[str, str] | None:
    """{key: text} of a comment line without backslashes: `a=1 b="2 3" c=4`."""
    entries: dict[str, str] = {}
    parts = comment.split('"')  # every second one is quoted
    if len(parts) % 2 == 0:
        return None
    number = 0
    for k in range(0, len(parts), 2):
        words = parts[k].split(" ")
        if not _unquoted.fullmatch(parts[k]) or (k and words.pop(0)):
            return None
        if k + 1 < len(parts):
            if not words:
                return None
            words[-1] += '"'  # marks the place of the quotation that follows
        number += len(words)
        for word in words:
            key, _, text = word.partition("=")
            if not key.isidentifier() or not text or "=" in text or (text[-1] == '"' and len(text) > 1):
                return None
            entries[key] = parts[k + 1] if text == '"' else text
    return entries if len(entries) == number else None


def _entries_by_pattern(comment: str) -> dict[str, str] | None:
    """{key: text} of any comment line; text written as JSON (it looks like a number) begins with a line break."""
    entries: dict[str, str] = {}
    end = 0
    for match in _entry.finditer(comment):
        key, quoted, plain = match.groups()
        if match.start() != end or key in entries:
            return None
        end = match.end()
        if quoted is not None and "\\" in quoted:
            text = _json_text.fullmatch(quoted)
            if text is None:
                return None
            entries[key] = "\n" + text[1]
        else:
            entries[key] = plain if quoted is None else quoted
    return entries if end == len(comment) else None


@lru_cache(maxsize=64)
def _layout(properties: str) -> _Layout | None:
    """The columns of `species:S:1:pos:R:3:…`, or None if `to_extxyz` does not write these."""
    words = properties.split(":")
    if len(words) % 3 or words[:6] != ["species", "S", "1", "pos", "R", "3"] or FORCES not in words[::3]:
        return None
    columns: list[tuple[str, str, int, int]] = []
    start = 0
    for name, kind, count in zip(words[::3], words[1::3], words[2::3], strict=True):
        expected, counts = OWN_COLUMNS.get(name, ("", ""))
        if kind != expected or len(count) != 1 or count not in counts or name in [c[0] for c in columns]:
            return None
        columns.append((name, kind, start, int(count)))
        start += {"S": 2, "R": 17, "L": 3}[kind] * int(count)
    return _Layout(tuple(columns), start + 1)


@lru_cache(maxsize=4096)
def _value(key: str, text: str) -> str | int | float | bool | None:
    """The value as ASE's reader with `comment_line.parse_comment_line` gives it; None: not certain."""
    if text.startswith("\n"):
        return text[1:] if key not in comment_line.NUMBERS else None
    if key in comment_line.NAMES:
        return None if text.startswith("_JSON") else text or None
    if _real.fullmatch(text):
        if text.lstrip("+-").isdigit():
            return int(text) if _whole.fullmatch(text) else None
        as_number = "." in text or "energy" in key.lower() or key in comment_line.NUMBERS
        return float(text) if as_number or repr(float(text)) == text else None
    if key in comment_line.NUMBERS or "energy" in key.lower():
        return None
    if text in TRUTH:
        return TRUTH[text]
    word = _word.match(text)
    return None if word is None or word[0].lower() in MAY_BE_VALUES else text


def _nine(text: str) -> Array | None:
    """(3, 3) from nine numbers separated by single spaces; None also for absurdly large ones."""
    if not _nine_reals.fullmatch(text):
        return None
    numbers = list(map(float, text.split()))
    return np.array(numbers).reshape(3, 3) if min(numbers) > -LARGEST and max(numbers) < LARGEST else None


def _symmetric(tensor: Array) -> bool:
    (_, xy, xz), (yx, _, yz), (zx, zy, _) = tensor.tolist()
    return bool(abs(xy - yx) <= ASYMMETRIC and abs(xz - zx) <= ASYMMETRIC and abs(yz - zy) <= ASYMMETRIC)


@lru_cache(maxsize=16)
def _cell(text: str) -> Array | None:
    return _nine(text)


# ---------------------------------------------------------------- lines of atoms


@dataclass(frozen=True)
class _Table:
    """The columns of many structures together, T atoms. valid: of each structure, whether all were understood."""

    numbers: NDArray[np.int64]  # (T,)
    reals: Mapping[str, Array]  # name → (T, columns)
    truths: Mapping[str, NDArray[np.bool_]]  # name → (T, columns)
    valid: list[bool]

    @classmethod
    def parse(cls, text: str, layout: _Layout, counts: Sequence[int]) -> _Table | None:
        """counts: the atoms of each structure. None if the text is not ASCII."""
        if not text.isascii():
            return None
        lines = np.frombuffer(text.encode("ascii"), np.uint8).reshape(-1, layout.width)
        numbers = _elements()[lines[:, 0] + 256 * lines[:, 1].astype(np.int64)]
        good = (numbers > 0) & (lines[:, -1] == ord("\n"))
        reals, truths = {}, {}
        for name, kind, start, count in layout.columns[1:]:
            if kind == "R":
                fields = lines[:, start : start + 17 * count].reshape(-1, count, 17)
                reals[name], fits = _fixed_point(fields)
            else:
                fields = lines[:, start : start + 3 * count].reshape(-1, count, 3)
                truths[name], fits = _truth_values(fields)
            good &= fits.all(axis=1)
        first = np.cumsum([0, *counts[:-1]])
        return cls(numbers, reals, truths, np.logical_and.reduceat(good, first).tolist())


def _fixed_point(fields: NDArray[np.uint8]) -> tuple[Array, NDArray[np.bool_]]:
    """The numbers in fields (…, 17) written as " %16.8f", and which of them have this form.

    A number is k/10⁸ with an integer k < 10¹⁵, which a double holds exactly: one division rounds as `float(text)` does.
    Eight characters are handled at once as one integer, the first in its lowest byte.
    """
    halves = np.ascontiguousarray(fields[..., 1:]).view("<u8")
    whole, decimals = halves[..., 0], halves[..., 1]
    valid = (fields[..., 0] == ord(" ")) & (whole >> _U(56) == ord("."))
    whole = whole << _U(8) | _U(ord(" "))  # without the point: spaces, a sign or none, digits
    digits = (whole >> _U(4) & _each(1)) * _U(255)  # a byte is all ones where the character may be a digit
    before = ~digits
    # digits up to the end, from one place on
    valid &= (digits >> _U(56) == 255) & (before & (before + _U(1)) == 0)
    sign = (whole ^ _each(ord(" "))) & before  # 0 where there are spaces only
    valid &= (sign == 0) | (sign == (before ^ before >> _U(8)) & _each(ord("-") ^ ord(" ")))
    integer, good = _eight_digits(whole & digits | _each(ord("0")) & before)
    fraction, good_fraction = _eight_digits(decimals)
    values = (integer.astype(np.float64) * 1e8 + fraction.astype(np.float64)) / 1e8
    return np.where(sign == 0, values, -values), valid & good & good_fraction


_U = np.uint64


def _each(byte: int) -> np.uint64:
    """Eight times the same byte."""
    return _U(byte * 0x0101010101010101)


def _eight_digits(text: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """The numbers that eight characters each form, and whether all of them are digits."""
    digits = text ^ _each(ord("0"))
    # every byte below 10; they are below 0x80 before the addition
    valid = (digits + _each(0x76)) & _each(0x80) == 0
    pairs = digits * _U(10) + (digits >> _U(8))  # two digits in every second byte
    low, high = pairs & _U(0x000000FF000000FF), pairs >> _U(16) & _U(0x000000FF000000FF)
    return low * _U(1000000 << 32 | 100) + high * _U(10000 << 32 | 1) >> _U(32), valid


def _truth_values(fields: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The truth values in fields (…, 3) written as "  T", and which of them have this form."""
    true = fields[..., 2] == ord("T")
    return true, (fields[..., :2] == ord(" ")).all(axis=-1) & (true | (fields[..., 2] == ord("F")))


@lru_cache(maxsize=1)
def _elements() -> NDArray[np.int64]:
    """Atomic number by the two bytes of a symbol, 0 for others."""
    from ase.data import chemical_symbols

    table = np.zeros(65536, np.int64)
    for z, symbol in enumerate(chemical_symbols):
        first, second = f"{symbol:2}".encode("ascii")
        table[first + 256 * second] = z
    return table


# ---------------------------------------------------------------- structure


def _structure(entries: dict[str, str], table: _Table, atoms: slice) -> LabelledFrame | None:
    """The structure with these entries and these rows of the table; None for entries that are not understood."""
    frame_id = entries.pop("frame_id").removeprefix("\n")
    energy = _value(ENERGY, entries.pop(ENERGY, ""))
    if not isinstance(energy, int | float) or not abs(energy) < np.inf:
        return None
    stress = None
    if (written := entries.pop(STRESS, None)) is not None:
        stress = _nine(written)
        if stress is None or not _symmetric(stress):
            return None
    try:
        state = _state(entries)
        if state is None:
            return None
        frame = Frame(table.numbers[atoms], table.reals["pos"][atoms], **state, **_per_atom(table, atoms))
    except SettingsError:  # a charge that is not a number, a mass of 0
        return None
    if frame.id != frame_id:
        return None
    origin: dict[str, str | int | float] = {}
    for key, text in entries.items():
        value = _value(key, text)
        if value is None:
            return None
        origin[key] = value
    return LabelledFrame(frame, Label(energy, table.reals[FORCES][atoms], stress), origin)


def _state(entries: dict[str, str]) -> dict[str, Any] | None:
    """Cell, periodicity, charge, multiplicity and statements, taken out of the entries. Raises SettingsError."""
    pbc = _PBC.get(entries.pop("pbc", ""))
    lattice = entries.pop("Lattice", None)
    found: dict[str, Any] = {"pbc": pbc}
    if lattice is not None:
        found["cell"] = _cell(lattice)
    if pbc is None or found.get("cell", pbc) is None:
        return None
    info = {key: _value(key, entries.pop(key)) for key in OF_ELECTRONS if key in entries}
    if info:
        if None in info.values():
            return None
        found |= {
            "charge": atoms_info.total_charge(info),
            "spin": atoms_info.multiplicity(info, foreign=False),
        }
    if (written := entries.pop(atoms_info.STATEMENTS, None)) is not None:
        text = _value(atoms_info.STATEMENTS, written)
        found["statements"] = atoms_info.statements({atoms_info.STATEMENTS: text})
        if text is None or not found["statements"]:
            return None
    return found


def _per_atom(table: _Table, atoms: slice) -> dict[str, Any]:
    """The fields of `Frame` that few structures have."""
    found: dict[str, Any] = {}
    for name, field in ((MOMENTS, "moments"), (CHARGES, "charges"), (MASSES, "masses")):
        if name in table.reals:
            found[field] = table.reals[name][atoms, 0]
    if MASK in table.truths:
        moves = table.truths[MASK][atoms]
        found["fixed"] = ~np.broadcast_to(moves, (len(moves), 3))
    if atoms_info.ZERO_MOMENTS in table.truths:
        found["zero_moments"] = table.truths[atoms_info.ZERO_MOMENTS][atoms, 0]
    return found
