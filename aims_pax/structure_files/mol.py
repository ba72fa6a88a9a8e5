"""MDL molfiles (V2000) and SDF: reads formal charges, radicals and isotopes, which ASE ignores.

`M  CHG`, `M  RAD` and `M  ISO` lines are used; without `M  CHG` and `M  RAD`, the charge column is used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aims_pax.atoms_info import MULTIPLICITY, SPIN, proper_name
from aims_pax.errors import SettingsError
from aims_pax.structure_files.images import Image, parsed
from aims_pax.structure_files.isotopes import isotope_masses

_COLUMN = {1: 3, 2: 2, 3: 1, 5: -1, 6: -2, 7: -3}  # code of the charge column: formal charge
_item = re.compile(r"(?m)^>.*<([^<>\n]+)>.*\n(.*)$")
_DOUBLET = 4  # code of a radical in the charge column


def split_mol(text: str) -> list[str]:
    """The text of each record."""
    parts: list[list[str]] = [[]]
    for line in text.splitlines(keepends=True):
        if line.startswith("$$$$"):
            parts.append([])
        else:
            parts[-1].append(line)
    return ["".join(p) for p in parts if any(line.strip() for line in p)]


def read_mol(part: str) -> Image:
    """The structure of one record, with `charge` and `spin` in `info` if the record has them."""
    lines = part.splitlines()
    if len(lines) > 3 and "V3000" in lines[3]:
        raise SettingsError("a V3000 molfile, which is not read: convert it to V2000 or extended XYZ")
    atoms = parsed(part, "sdf")
    block = lines[4 : 4 + len(atoms)]
    charges, radicals = _pairs(lines, "CHG"), _pairs(lines, "RAD")
    if not charges and not radicals:
        codes = [_code(line, 36) for line in block]
        charges = [(k, _COLUMN[c]) for k, c in enumerate(codes) if c in _COLUMN]
        radicals = [(k, 2) for k, c in enumerate(codes) if c == _DOUBLET]
    if charges:
        atoms.info["charge"] = sum(q for _, q in charges)
    if len(radicals) > 1:
        raise SettingsError(
            f"{len(radicals)} radical centres (M  RAD): the total multiplicity is undefined; write the structure "
            "as extended XYZ with spin=…, the multiplicity 2S+1"
        )
    if radicals:
        atoms.info["spin"] = radicals[0][1]
    _data_items(part, atoms.info)
    if any(_code(line, 34) for line in block) and not _pairs(lines, "ISO"):
        raise SettingsError("mass differences in the atom lines: write isotopes as M  ISO lines")
    if isotopes := dict(_pairs(lines, "ISO")):
        atoms.set_masses(isotope_masses(np.asarray(atoms.numbers), isotopes))
    return Image(atoms)


def _data_items(part: str, info: Mapping[str, Any]) -> None:
    """Raise SettingsError for data items whose charge or multiplicity contradicts the lines of the molecule."""
    for name, written in _item.findall(part):
        proper = proper_name(name.lower().removeprefix("pubchem_"))
        if proper is None:
            continue
        kind = "spin" if proper in (*SPIN, MULTIPLICITY) else "charge"
        try:
            same = float(written) == info.get(kind, 0 if kind == "charge" else 1)
        except ValueError:
            same = False
        if not same:
            raise SettingsError(
                f"its data item <{name}> has {written.strip()!r}, but its M  CHG and M  RAD lines do not; data items "
                "are not read: add these lines, or give an extended XYZ file with charge=… spin=… (2S+1)"
            )


def _pairs(lines: Sequence[str], kind: str) -> list[tuple[int, int]]:
    """(atom from 0, value) of all `M  KIND` lines."""
    found = []
    for line in lines:
        if line.startswith(f"M  {kind}"):
            words = line[9:].split()
            try:
                numbers = [int(w) for w in words]
            except ValueError as error:
                raise SettingsError(f"{line!r}: expected pairs of whole numbers") from error
            if len(numbers) % 2:  # an incomplete line: a charge would be lost
                raise SettingsError(f"{line!r}: expected pairs of whole numbers")
            found += [(a - 1, v) for a, v in zip(numbers[::2], numbers[1::2], strict=True)]
    return found


def _code(line: str, start: int) -> int:
    """The whole number in a column of an atom line; an empty column is 0."""
    text = line[start : start + (2 if start == 34 else 3)].strip()
    return int(text) if text.lstrip("-").isdecimal() else 0
