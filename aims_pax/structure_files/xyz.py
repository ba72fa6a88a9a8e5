"""XYZ and extended XYZ: whole structures, also behind a byte order mark or with empty lines between them."""

from __future__ import annotations

import io

from aims_pax import comment_line
from aims_pax.atoms_info import CHARGE, MULTIPLICITY, SPIN
from aims_pax.errors import SettingsError
from aims_pax.structure_files.images import Image, parsed


def split(text: str) -> list[str]:
    """The text of each structure. Raises SettingsError with the line where there is none."""
    lines = io.StringIO(text, newline=None).readlines()
    parts, at = [], 0
    while at < len(lines):
        head = lines[at].strip()
        if not head:
            at += 1
            continue
        if not head.isascii() or not head.isdecimal():
            raise SettingsError(
                f"line {at + 1}: {head[:40]!r} where the number of atoms belongs; expected XYZ"
            )
        end = at + 2 + int(head)
        if end > len(lines) or (end == len(lines) and not lines[end - 1].strip() and int(head)):
            raise SettingsError(
                f"the structure that begins in line {at + 1} ends early: expected {head} atoms"
            )
        while end < len(lines) and lines[end].lstrip().startswith("VEC"):  # cell vectors of another dialect
            end += 1
        parts.append("".join(lines[at:end]))
        at = end
    return parts


def make(part: str) -> Image:
    """The structure in the text of one."""
    atoms = parsed(part, "extxyz", properties_parser=comment_line.parse)
    for key in atoms.info:
        proper = key.lower()
        if key != proper and proper in (*CHARGE, *SPIN, MULTIPLICITY):
            raise SettingsError(f"{key}={atoms.info[key]}: write {proper}, in small letters")
    return Image(atoms)
