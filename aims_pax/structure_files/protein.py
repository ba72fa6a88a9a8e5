"""Protein Data Bank files: elements from the element column or, without one, from unambiguous atom names.

`CA` is carbon in an amino acid and calcium in a residue `CA`; ambiguous names are refused, as are alternate
locations, partial occupancies and cells of which a file holds one asymmetric unit. A cell of 1 × 1 × 1 Å is a
placeholder of non-periodic files and is ignored.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from aims_pax.errors import SettingsError
from aims_pax.structure_files.images import Image, parsed
from aims_pax.structure_files.isotopes import isotope_masses

_AMINO = (
    "ALA ARG ASN ASP CYS GLN GLU GLY HIS ILE LEU LYS MET PHE PRO SER THR TRP TYR VAL ACE NME NMA NH2 "
    "ASH GLH LYN CYX CYM HID HIE HIP HSD HSE HSP ASX GLX SEC PYL TYM"
)
_NUCLEIC = "A C G U T I DA DC DG DT DU DI RA RC RG RU"
_WATER = "HOH WAT H2O DOD SOL TIP TIP3 TIP4 TP3 SPC"
KNOWN = frozenset((*_AMINO.split(), *_NUCLEIC.split(), *_WATER.split()))
KNOWN |= {end + name for end in "NC" for name in _AMINO.split()[:20]}  # names of termini in AMBER


def split_pdb(text: str) -> list[str]:
    """The text of each model, with the lines before the first one."""
    head: list[str] = []
    parts: list[list[str]] = []
    inside = False
    for line in text.splitlines(keepends=True):
        if line.startswith("MODEL "):
            parts.append([])
            inside = True
        elif line.startswith("ENDMDL"):
            inside = False
        elif inside:
            parts[-1].append(line)
        elif not parts:  # lines between later models are ignored
            head.append(line)
    if not parts:
        return [text]
    return ["".join([*head, *p]) for p in parts]


def read_pdb(part: str) -> Image:
    """The structure of one model."""
    lines, deuterium, charges, count = [], {}, [], 0
    for line in part.splitlines():
        if line.startswith("CRYST1"):
            if _placeholder(line):
                continue
            _whole_cell(line)
        if line.startswith(("ATOM", "HETATM")):
            _whole_atom(line)
            element = _element(line)
            if element == "D":
                element, deuterium[count] = "H", 2
            charges.append(_formal_charge(line))
            line = f"{line[:76]:<76}{element:>2}"
            count += 1
        lines.append(line)
    atoms = parsed("\n".join(lines) + "\n", "proteindatabank")
    if deuterium:
        atoms.set_masses(isotope_masses(np.asarray(atoms.numbers), deuterium))
    if not any(charges):
        return Image(atoms)
    atoms.info["charge"] = sum(charges)
    note = f"the total charge {sum(charges):+d} is the sum of the formal charges in columns 79-80"
    return Image(atoms, (note,))


def element_of(name: str, residue: str) -> str:
    """The element of an atom, from its name and its residue. Raises SettingsError if that is ambiguous.

    >>> element_of("CA", "GLY"), element_of("CA", "CA"), element_of("1HB2", "ALA"), element_of("CL", "CL")
    ('C', 'Ca', 'H', 'Cl')
    """
    from ase.data import atomic_numbers

    letters = re.sub("[^A-Za-z].*", "", name.strip().lstrip("0123456789'*\""))
    first, two = letters[:1].upper(), letters[:2].capitalize()
    residue = residue.strip().upper()
    if residue in KNOWN:
        if two == "Se" and residue == "SEC":
            return "Se"
        if first in tuple("HCNOSPD"):
            return first
    elif residue == "MSE" and two == "Se":
        return "Se"
    elif re.sub("[^A-Z]", "", residue) == letters.upper() and letters.capitalize() in atomic_numbers:
        return letters.capitalize()  # an ion: the residue has the name of the element
    else:
        found = [e for e in dict.fromkeys((first, two)) if atomic_numbers.get(e, 0) > 0]
        if found[:1] == ["H"]:
            return "H"
        if len(found) == 1:
            return found[0]
        if found:
            raise SettingsError(
                f"atom {name.strip()} of residue {residue or '(none)'} may be {' or '.join(found)}: write the element "
                "into columns 77-78 (PDB), or give an extended XYZ file"
            )
    raise SettingsError(
        f"atom {name.strip()} of residue {residue or '(none)'} has no element: write it into columns 77-78 (PDB), or "
        "give an extended XYZ file"
    )


def _element(line: str) -> str:
    from ase.data import atomic_numbers

    written = line[76:78].strip().capitalize()
    if written == "D" or atomic_numbers.get(written, 0) > 0:
        return written
    return element_of(line[12:16], line[17:21])


def _whole_atom(line: str) -> None:
    """Raises SettingsError for alternate locations and partial occupancies."""
    where = (
        f"atom {line[6:11].strip()} ({line[12:16].strip()} of {line[17:21].strip()} {line[22:26].strip()})"
    )
    if line[16:17].strip():
        raise SettingsError(
            f"{where} is an alternate location ({line[16]}): keep one of them and remove the letter in column 17"
        )
    try:
        occupancy = float(line[54:60])
    except ValueError:
        return
    if 0 < occupancy < 0.995:  # programs without occupancies write 0.00
        raise SettingsError(f"{where} has occupancy {occupancy:g}: remove the atom, or write 1.00")


def _formal_charge(line: str) -> int:
    """Columns 79-80: 2+, 1-."""
    written = line[78:80].strip()
    found = re.fullmatch(r"(\d?)([+-])|([+-])(\d)", written)
    if not found:
        return 0
    sign = found[2] or found[3]
    return int(found[1] or found[4] or 1) * (1 if sign == "+" else -1)


def _whole_cell(line: str) -> None:
    """Raises SettingsError for a space group: the file holds one asymmetric unit, the cell several."""
    group = line[55:66].strip()
    if group.replace(" ", "").upper() not in ("", "P1"):
        raise SettingsError(
            f"space group {group} (CRYST1), so that the file holds only a part of the atoms of a cell: write all of "
            "them and the space group P 1, or remove the line CRYST1 if it is a molecule"
        )


def _placeholder(line: str) -> bool:
    lengths: Sequence[str] = line[6:33].split()
    return all(x.replace(".", "", 1).isdecimal() and float(x) <= 1.0 for x in lengths)
