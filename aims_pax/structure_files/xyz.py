"""XYZ and extended XYZ, also with empty lines between structures; incomplete structures are refused."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

import numpy as np

from aims_pax import atoms_info, comment_line
from aims_pax.errors import SettingsError
from aims_pax.structure_files.images import Image, parsed
from aims_pax.xyz_blocks import BlockFault, check_elements, check_truth_values


def split_xyz(text: str) -> list[str]:
    """The text of each structure. Raises SettingsError with the line that is not XYZ."""
    lines = io.StringIO(text, newline=None).readlines()
    parts, at = [], 0
    while at < len(lines):
        head = lines[at].strip()
        if not head:
            at += 1
            continue
        if not head.isascii() or not head.isdecimal():
            raise SettingsError(f"line {at + 1}: {head[:40]!r} instead of the number of atoms; expected XYZ")
        end = at + 2 + int(head)
        if end > len(lines) or (end == len(lines) and not lines[end - 1].strip() and int(head)):
            raise SettingsError(
                f"the structure that begins in line {at + 1} is incomplete: expected {head} atoms"
            )
        # cell vectors of another XYZ dialect
        while end < len(lines) and lines[end].lstrip().startswith("VEC"):
            end += 1
        parts.append("".join(lines[at:end]))
        at = end
    return parts


# columns of other programs → their name here
_COLUMNS = {
    **dict.fromkeys(("charge", "charges", "partial_charges", "q"), "initial_charges"),
    **dict.fromkeys(("magmom", "spin", "moment", "moments"), "initial_magmoms"),
    **dict.fromkeys(("fixed", "fix", "frozen", "freeze", "constraints"), "move_mask (F: does not move)"),
    **dict.fromkeys(("movable", "mobile", "moves"), "move_mask (F: does not move)"),
}
_two_numbers = re.compile(r"\s*[+-]?\d+\s+[1-9]\s*")


def read_xyz(part: str) -> Image:
    """The structure in a text. Raises SettingsError for charges, multiplicities and masses under unknown names."""
    comment, *rows = [*part.split("\n"), ""][1:]
    try:
        check_truth_values(comment, rows)
        check_elements(comment, rows)
    except BlockFault as error:
        raise SettingsError(str(error)) from error
    atoms = parsed(part, "extxyz", properties_parser=comment_line.parse_comment_line)
    if any(row.lstrip().startswith("VEC") for row in rows):
        atoms.info.update(comment_line.entries_beside_vectors(comment))
    atoms_info.refuse_other_names(atoms)
    # ASE moves some columns there
    results = getattr(atoms.calc, "results", {}) if atoms.calc is not None else {}
    columns = {*atoms.arrays, *(name for name, values in results.items() if np.ndim(values) == 1)}
    return Image(atoms, tuple(_notes(part, columns)))


def _notes(part: str, columns: set[str]) -> Iterator[str]:
    """Notes about columns and comments that are not used because their names are unknown."""
    comment, *rows = [*part.split("\n"), ""][1:]
    for column, proper in _COLUMNS.items():
        if column in columns:
            what = "constraints" if proper.startswith("move_mask") else "initial values"
            yield f"its column {column} is not used; a column of {what} must be named {proper}"
    if "Properties" not in comment and len(rows[0].split()) > 4:
        yield "columns after x y z have no names (Properties=…) and are not used"
    if _two_numbers.fullmatch(comment):
        charge, spin = comment.split()
        yield f"its comment {comment.strip()!r} is not read; write it as charge={charge} spin={spin} (2S+1)"
