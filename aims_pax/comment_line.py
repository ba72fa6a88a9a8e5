"""Parses the comment line of extended XYZ so that names stay text.

ASE's reader converts everything that looks like a number or truth value: a system named 001 becomes 1, F becomes
False, 1e3 becomes 1000.0, and the frame id 516429114334e3585263 becomes infinity. `parse_comment_line` is ASE's parser
without this loss; pass it to ASE's reader as `properties_parser`.

>>> found = parse_comment_line('system=001 name=F frame_id=516429114334e3585263 step=7 T=300.0 label=1e3')
>>> found["system"], found["name"], found["frame_id"], int(found["step"]), float(found["T"]), found["label"]
('001', 'F', '516429114334e3585263', 7, 300.0, '1e3')
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from aims_pax.errors import SettingsError
from aims_pax.tensors import symmetric

# entries that are always names
NAMES = frozenset(
    (
        *("frame_id", "system", "stage", "sampler", "cluster", "method", "reason", "failure"),
        *(
            "name",
            "id",
            "parent",
            "label",
            "title",
            "comment",
            "config_type",
            "source",
            "settings",
            "node",
            "file",
        ),
    )
)
# entries that are always numbers
NUMBERS = frozenset(("charge", "total_charge", "spin", "total_spin", "multiplicity"))

# must occur once: of two, ASE's reader silently takes the last
ONCE = NUMBERS | {
    "Lattice",
    "pbc",
    "Properties",
}

OTHER_LENGTHS = frozenset(  # words for other units of length than Å
    (
        *("bohr", "bohrs", "bohrradius", "au", "atomic", "atomicunits", "atomicunit", "a0", "hartree"),
        *("nm", "nanometer", "nanometers", "nanometre", "nanometres", "pm", "picometer", "picometre"),
        *("m", "meter", "metre", "cm", "mm", "um", "electron", "si", "cgs", "lj", "micro", "nano"),
    )
)
FRACTIONAL = frozenset(("fractional", "frac", "direct", "scaled", "reduced", "relative"))
OTHER_LABELS = frozenset(  # words for other units of energies, forces and stresses than eV and Å
    (
        *("hartree", "hartrees", "ha", "eh", "au", "atomic", "atomicunits"),
        *("ry", "rydberg", "rydbergs", "bohr", "kcal", "kj", "mol", "mev", "kev"),
        *("gpa", "mpa", "pa", "bar", "kbar", "kb", "atm"),
    )
)

MOST_COLUMNS = 1000  # per entry of Properties; ASE's reader allocates memory for any number

_pairs = re.compile(
    r"""(?:^|(?<=\s))(?P<key>"[^"]*"|[^\s="']+)\s*=\s*
    (?:"(?P<double>(?:[^"\\]|\\.)*)" | '(?P<single>(?:[^'\\]|\\.)*)' | (?P<plain>[^\s"'{\[]\S*))""",
    re.VERBOSE,
)
_six = re.compile(  # ASE reads these two as 9 numbers only
    r"""(?<!\S)(?P<key>stress|virial)\s*=\s*(?P<quote>["'])\s*(?P<numbers>[^\s"']+(?:[\s,]+[^\s"',]+){5})\s*(?P=quote)"""
)
_unit_of_length = re.compile(
    r"units?|(lengths?|distances?|coord(inate)?s?|pos(ition)?s?|geometry|cell|lattice)units?"
    r"|units?(of)?(lengths?|distances?|coord(inate)?s?|pos(ition)?s?|geometry|cell|lattice)|coord(inate)?s?|pos(ition)?s?"
)
_unit_of_labels = re.compile(
    r"units?|(energ(y|ies)|forces?|stress(es)?|virials?)units?|units?(of)?(energ(y|ies)|forces?|stress(es)?|virials?)"
)
_escaped = re.compile(r"\\(.)")
_whole = re.compile(r"[+-]?(0|[1-9]\d*)")
_decimal = re.compile(r"[+-]?(\d+\.\d*|\.\d+)([eE][+-]?\d+)?")


def parse_comment_line(text: str) -> dict[str, Any]:
    """Entries of a comment line as ASE reads them; names, and numbers in an unusual form, stay text.

    Raises SettingsError for an entry of the structure that occurs twice with different values, and for invalid
    Properties.
    """
    from ase.io.extxyz import key_val_str_to_dict

    text = _six.sub(_nine, text)
    found: dict[str, Any] = key_val_str_to_dict(text)
    seen: dict[str, str] = {}
    for pair in _pairs.finditer(text):
        key = pair["key"].strip('"')
        written = next(v for v in (pair["double"], pair["single"], pair["plain"]) if v is not None)
        if key in ONCE and seen.setdefault(key, written) != written:
            raise SettingsError(f"{key} appears twice: {seen[key]} and {written}; keep the right one")
        if key in found and _is_text(key, found[key], written):
            found[key] = _escaped.sub(r"\1", written)
    if "Properties" in found:
        _check_columns(str(found["Properties"]))
    if "pbc" in found:
        _check_pbc(found["pbc"])
    _keep_asymmetry(found)
    _refuse_other_lengths(found)
    return found


def _refuse_other_lengths(found: dict[str, Any]) -> None:
    """Raise SettingsError where the line states another unit of the positions than Å, or fractions of a cell."""
    for key, value in found.items():
        name, text = _letters(key), str(value)
        if value is True and name in ("bohr", "bohrs"):  # a word of a comment
            written = key
        elif _unit_of_length.fullmatch(name) and set(_words(text)) & (OTHER_LENGTHS | FRACTIONAL):
            written = f"{key}={text}"
        else:
            continue
        raise SettingsError(
            f"{written[:80]}: positions and Lattice are read in Å; convert them (1 bohr = 0.529177 Å, 1 nm = 10 Å) and "
            f"remove {key[:80]}, also if they are in Å"
        )


def refuse_other_units(info: Mapping[str, Any]) -> None:
    """Raise SettingsError where a header states other units of labels than eV, eV/Å and eV/Å³."""
    for key, value in info.items():
        if _unit_of_labels.fullmatch(_letters(key)) and set(_words(str(value))) & OTHER_LABELS:
            raise SettingsError(
                f"{key}={value}: labels are read in eV, eV/Å and eV/Å³; convert them and remove {key}, also if they are"
            )


@lru_cache(maxsize=4096)
def may_state_a_unit(key: str) -> bool:
    """Whether an entry of this name is looked at for a unit of the positions or of the labels."""
    name = _letters(key)
    patterns = (_unit_of_length, _unit_of_labels)
    return name in ("bohr", "bohrs") or any(pattern.fullmatch(name) is not None for pattern in patterns)


def entries_beside_vectors(comment: str) -> dict[str, Any]:
    """Entries of the comment of a structure with lines `VEC1 x y z`, which ASE's reader does not read.

    Raises SettingsError for those about cell and columns, which these files cannot have.
    """
    found = {key: value for key, value in parse_comment_line(comment).items() if value is not True}
    for key in ("Properties", "Lattice", "pbc"):
        if key in found:
            raise SettingsError(
                f"{key}=… beside lines VEC1, VEC2, VEC3: write the cell as Lattice=… and pbc=…, and remove these lines"
            )
    return found


def _letters(key: str) -> str:
    return re.sub("[^a-z]", "", key.lower())


def _words(text: str) -> list[str]:
    """The words of a unit in lower case; dots belong to them: `a.u.` is `au`."""
    return re.findall("[a-z]+0?", re.sub(r"[._]", "", text.lower()))


def _nine(entry: re.Match[str]) -> str:
    """The entry with 9 numbers instead of the 6 of Voigt's order xx, yy, zz, yz, xz, xy."""
    xx, yy, zz, yz, xz, xy = re.split(r"[\s,]+", entry["numbers"])
    return f'{entry["key"]}="{xx} {xy} {xz} {xy} {yy} {yz} {xz} {yz} {zz}"'


def _check_columns(properties: str) -> None:
    """Raise SettingsError unless it is name:type:count:name:type:count…, with a possible number of columns each."""
    words = properties.split(":")
    counts = words[2::3]
    fits = (
        len(words) % 3 == 0
        and set(words[1::3]) <= {"R", "I", "S", "L"}
        and all(c.isdecimal() for c in counts)
    )
    if not fits or not all(0 < int(c[:9]) <= MOST_COLUMNS for c in counts):
        raise SettingsError(
            f"Properties={properties[:200]}: expected name:type:columns, and so on, with types R, I, S, L and 1 to "
            f"{MOST_COLUMNS} columns each"
        )
    for needed, others, what in (
        ("pos", "positions", "positions in Å"),  # without it ASE puts all atoms at the origin
        ("species", "symbols Z numbers", "symbols of the elements"),
    ):
        if not {needed, *others.split()}.intersection(words[::3]):
            raise SettingsError(
                f"Properties={properties[:200]}: no column {needed} ({what}); expected species:S:1:pos:R:3, and so on"
            )
    if ("move_mask", "S") in zip(words[::3], words[1::3], strict=True):
        raise SettingsError(
            "the column move_mask has the type S, text; expected L (T: the atom moves, F: it does not)"
        )


def _check_pbc(value: Any) -> None:
    """Raise SettingsError unless it is one or three truth values: ASE takes every other word for true."""
    values = np.asarray(value)
    if values.shape not in ((), (3,)) or values.dtype.kind not in "biuf" or not np.isin(values, (0, 1)).all():
        written = " ".join(map(str, values.ravel()))
        raise SettingsError(f'pbc={written[:80]}: expected three of T and F, pbc="T T F"')


def _keep_asymmetry(found: dict[str, Any]) -> None:
    """A stress that is not symmetric stays nine numbers: ASE's reader would take six of them without a word."""
    stress: Any = found.get("stress")
    if np.shape(stress) == (3, 3) and not symmetric(np.asarray(stress, float)):
        found["stress"] = np.ravel(stress)


def _is_text(key: str, value: Any, written: str) -> bool:
    if isinstance(value, str) or written.startswith("_JSON") or key in NUMBERS or "energy" in key.lower():
        return False
    if key in NAMES:
        return True
    if isinstance(value, bool) or np.ndim(value) or isinstance(value, list | dict):
        return False
    return not (_whole.fullmatch(written) or _decimal.fullmatch(written) or _same(written))


def _same(written: str) -> bool:
    """Whether this is a number as Python writes it (1e-05), NaN, infinity, or no number at all."""
    try:
        number = float(written)
    except ValueError:
        return True
    return repr(number) == written or number != number or written.strip("+-").lower().startswith("inf")
