"""Reads the images of a structure file: with our own readers where ASE's lose information, otherwise with ASE's."""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aims_pax import atoms_info
from aims_pax.errors import SettingsError
from aims_pax.structure_files.geometry_in import decoded
from aims_pax.structure_files.images import ADVICE, Image, choose_images, numbered
from aims_pax.structure_files.isotopes import isotope_masses
from aims_pax.structure_files.mol import read_mol, split_mol
from aims_pax.structure_files.protein import element_of, read_pdb, split_pdb
from aims_pax.structure_files.xyz import read_xyz, split_xyz

if TYPE_CHECKING:
    from ase import Atoms

# ASE's name of a format → (split the file, read one part)
_OWN: dict[str, tuple[Callable[[str], list[str]], Callable[[str], Image]]] = {
    "extxyz": (split_xyz, read_xyz),
    "xyz": (split_xyz, read_xyz),
    "sdf": (split_mol, read_mol),
    "mol": (split_mol, read_mol),
    "proteindatabank": (split_pdb, read_pdb),
}
_spin = re.compile(r"(?i)\b(tot_magnetization|multiplicity|mult|nopen)\b\"?\s*[=:,\s]\s*\"?([-+]?\d+\.?\d*)")
_charge = re.compile(r"(?i)\b(tot_?charge|total_?charge|charge)\b\"?\s*[=:,\s]\s*\"?([-+]?\d+\.?\d*)")
_box_of_lammps = re.compile(r"(?m)^.*\b(xlo\s+xhi|avec)\b")


def read_images(path: Path, index: str | None = None) -> list[tuple[int, Image]]:
    """(number in the file, image) for the images chosen by the index; without one the file must hold one structure.

    Raises SettingsError for files that cannot be used, and whatever ASE's readers raise.
    """
    from ase.io.formats import UnknownFileTypeError, filetype, get_ioformat

    try:
        kind = str(filetype(str(path)))
        if kind == "runnerdata" and _box_of_lammps.search(_text(path)):  # both end in .data
            kind = "lammps-data"
        get_ioformat(kind)
    except UnknownFileTypeError as error:
        raise SettingsError(f"unknown file format ({error}); convert it to extended XYZ") from error
    if kind in _OWN:
        split, read_part = _OWN[kind]
        parts = choose_images(split(_text(path)), index, path)
        found = []
        for k, part in parts:
            with numbered(k, len(parts) > 1):
                found.append((k, read_part(part)))
    else:
        found = [(k, _checked(atoms, kind, path)) for k, atoms in _by_ase(path, kind, index)]
    return [(k, Image(image.atoms, (*image.notes, *_unused(image.atoms)))) for k, image in found]


def _text(path: Path) -> str:
    from ase.io.formats import open_with_compression

    with open_with_compression(str(path), "rb") as file:
        return decoded(file.read())


def _by_ase(path: Path, kind: str, index: str | None) -> list[tuple[int, Atoms]]:
    import ase.io

    options: Mapping[str, Any] = {"attach_calculator": True} if kind == "gaussian-in" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        if kind in ("db", "json") and path.suffix not in (".gz", ".bz2", ".xz"):
            images = _rows(path, kind)
        else:
            images = ase.io.iread(path, ":", format=kind, do_not_split_by_at_sign=True, **options)
        if index is None:  # read only two structures: a trajectory may be long
            two = list(itertools.islice(images, 2))
            if len(two) > 1:
                raise SettingsError(f"holds more than one structure: {ADVICE.format(path.name)}")
            return choose_images(two, index, path)
        every = list(images)
    return choose_images(every, index, path)


def _rows(path: Path, kind: str) -> Iterator[Atoms]:
    """The structures of a database of ASE, with charge and multiplicity of their key-value pairs."""
    import ase.db

    for row in ase.db.connect(path, type=kind).select():
        atoms = row.toatoms()
        for key in row.key_value_pairs:
            if atoms_info.proper_name(key) is not None:
                atoms.info[key] = vars(row)[key]  # row.charge is the sum of the initial charges
        yield atoms


# ---------------------------------------------------------------- information that ASE does not return


def _checked(atoms: Atoms, kind: str, path: Path) -> Image:
    check = _CHECKS.get(kind)
    if check is None and kind.endswith(("-in", "-restart", "-cell", "cjson", "nomad-json")):
        check = _input_of_a_program
    if check is not None:
        check(atoms, path)
    if kind in _OUTPUTS:
        _output_of_a_program(atoms, kind, path)
    atoms_info.refuse_other_names(atoms)
    return Image(atoms)


def _cif(atoms: Atoms, path: Path) -> None:
    """Refuse partial occupancies and anything else that ASE's reader loses."""
    for site, written in atoms.info.get("occupancy", {}).items():
        elements = {element: 1.0 if share in (".", "?") else share for element, share in written.items()}
        if len(elements) > 1 or not all(0.995 < x < 1.005 for x in elements.values()):
            shares = ", ".join(f"{element} {share:g}" for element, share in elements.items())
            raise SettingsError(
                f"partial occupancy: site {int(site) + 1} holds {shares}; every site must hold one element: choose "
                "an ordered structure, for example with a tool for disordered crystals"
            )
    text = _text(path)
    if not atoms.has("masses") and re.search(r"(?m)^\s*D\w*\s+D\d*[+-]?\s", text):
        raise SettingsError(
            "holds deuterium (D), whose mass is not read from CIF; give an extended XYZ file with masses"
        )
    if "_atom_site_moment" in text:
        raise SettingsError(
            "holds magnetic moments, which are not read from CIF; give an extended XYZ file with initial_magmoms"
        )
    if "_atom_site_type_symbol" not in text:
        _labels_only(text)


def _labels_only(text: str) -> None:
    """Refuse labels in capitals that could be two elements: CA1."""
    from ase.data import atomic_numbers

    for label in re.findall(r"(?m)^\s*([A-Z]{2})[0-9A-Z]*\s+\S+\s", text):
        if label.capitalize() in atomic_numbers and label[0] in atomic_numbers:
            raise SettingsError(
                f"site {label}… may be {label[0]} or {label.capitalize()}: add the column _atom_site_type_symbol"
            )


def _shelx(atoms: Atoms, path: Path) -> None:
    """Refuse partial occupancies in SHELX files; full occupancy is written 1 or, fixed, 11."""
    site = r"(?m)^([A-Za-z]\w{0,3})\s+\d+(?:\s+-?\d*\.?\d+){3}\s+(\d*\.?\d+)"
    for name, share in re.findall(site, _text(path)):
        if abs(float(share)) not in (1.0, 11.0):
            raise SettingsError(
                f"partial occupancy: site {name} has {share}; every site must hold one element"
            )


def _gaussian(atoms: Atoms, path: Path) -> None:
    """Charge, multiplicity and isotopes of the input."""
    parameters = dict(getattr(atoms.calc, "parameters", {}))
    atoms.calc = None
    if parameters.get("charge") is not None:
        atoms.info["charge"] = parameters["charge"]
    if parameters.get("mult") is not None:
        atoms.info["spin"] = parameters["mult"]
    isotopes = {k: int(n) for k, n in enumerate(parameters.get("isolist") or []) if n is not None and n == n}
    if isotopes:
        atoms.set_masses(isotope_masses(np.asarray(atoms.numbers), isotopes))


# ASE's name of a format → where the program prints charge and multiplicity
_OUTPUTS: dict[str, tuple[str, str]] = {
    "aims-output": (r"Charge\s*=\s*([-+.\dE]+)\s*:\s*Charged system", r"(?!)"),
    "gamess-us-out": (r"CHARGE OF MOLECULE\s*=\s*(-?\d+)", r"SPIN MULTIPLICITY\s*=\s*(\d+)"),
    "gaussian-out": (r"Charge\s*=\s*(-?\d+)\s+Mult", r"Charge\s*=\s*-?\d+\s+Multiplicity\s*=\s*(\d+)"),
    "nwchem-out": (r"(?m)^\s*Charge\s*:\s*(-?\d+)\s*$", r"(?i)\bmultiplicity\s*:\s*(\d+)"),
    "orca-output": (r"Total Charge\s+Charge\s+\.+\s*(-?\d+)", r"Multiplicity\s+Mult\s+\.+\s*(\d+)"),
}


def _output_of_a_program(atoms: Atoms, kind: str, path: Path) -> None:
    """Charge and multiplicity of an output, which ASE does not read, unless it is a neutral closed shell."""
    text = _text(path)
    charges, spins = (re.findall(pattern, text) for pattern in _OUTPUTS[kind])
    charge, spin = float(charges[-1]) if charges else 0.0, int(spins[-1]) if spins else 1
    if charge or spin > 1:
        atoms.info["charge"] = charge
    if spin > 1:
        atoms.info["spin"] = spin


def _gromacs(atoms: Atoms, path: Path) -> None:
    """Find elements as for PDB files: the format has only atom names."""
    from ase.data import atomic_numbers

    names, residues = atoms.arrays["atomtypes"], atoms.arrays["residuenames"]
    symbols = [element_of(str(n), str(r)) for n, r in zip(names, residues, strict=True)]
    atoms.numbers = np.array([atomic_numbers["H" if s == "D" else s] for s in symbols])
    if "D" in symbols:
        deuterium = {k: 2 for k, s in enumerate(symbols) if s == "D"}
        atoms.set_masses(isotope_masses(np.asarray(atoms.numbers), deuterium))


def _lammps_data(atoms: Atoms, path: Path) -> None:
    if not re.search(r"(?m)^\s*Atoms\s*#\s*\w", _text(path)):
        raise SettingsError(
            "does not name its atom style: write it after the word Atoms, as in 'Atoms # full'"
        )
    if not re.search(r"(?m)^\s*(Masses|Atom Type Labels)\b", _text(path)):
        raise SettingsError("has no Masses section, so the elements of its atom types are unknown; add one")


def _lammps_dump(atoms: Atoms, path: Path) -> None:
    found = re.search(r"(?m)^ITEM: ATOMS (.*)$", _text(path))
    if found and not {"element", "mass"} & set(found[1].split()):
        raise SettingsError("has atom types but no elements: add the column element to the dump")


def _turbomole(atoms: Atoms, path: Path) -> None:
    """Refuse charge and spin in $eht, coordinates that ASE would read as bohr, and cells that it ignores."""
    unit = re.search(r"(?im)^\s*\$coord\b.*\b(angs|frac)|^\s*\$(periodic|cell|lattice)\b", _text(path))
    if unit:
        raise SettingsError(
            f"contains {unit[0].strip()}, which is not read from this format; give an extended XYZ file"
        )
    _input_of_a_program(atoms, path)
    unpaired = re.search(r"(?im)^\s*\$eht\b.*\bunpaired\s*=?\s*([1-9]\d*)", _text(path))
    if unpaired:
        raise SettingsError(
            f"contains unpaired={unpaired[1]}, which is not read from this format; give an extended XYZ file with "
            "spin=… (2S+1)"
        )


def _input_of_a_program(atoms: Atoms, path: Path) -> None:
    """Refuse input files of other programs with a charge or a spin, which ASE does not read."""
    text = _text(path)
    for name, value in _charge.findall(text):
        if float(value) != 0:
            raise SettingsError(
                f"contains {name} {value}, which is not read from this format; give an extended XYZ file with charge=…"
            )
    for name, value in _spin.findall(text):
        if float(value) > float(name.lower().startswith("mult")):  # 2S+1 of a closed shell, or 2S
            raise SettingsError(
                f"contains {name} {value}, which is not read from this format; give an extended XYZ file with spin=… "
                "(2S+1)"
            )


_CHECKS: dict[str, Callable[[Atoms, Path], None]] = {
    "cif": _cif,
    "gaussian-in": _gaussian,
    "gromacs": _gromacs,
    "lammps-data": _lammps_data,
    "res": _shelx,
    "lammps-dump-text": _lammps_dump,
    "turbomole": _turbomole,
}


def _unused(atoms: Atoms) -> list[str]:
    """Notes about contents of a file that have no effect."""
    notes = []
    if atoms.has("momenta") and np.any(atoms.get_momenta()):
        notes.append(
            "its velocities are not used: trajectories start with velocities drawn at MD.temperature"
        )
    results = getattr(atoms.calc, "results", {}) if atoms.calc is not None else {}
    moments = results.get("magmoms", atoms.arrays.get("magmoms"))
    if moments is not None and np.any(moments) and not atoms.has("initial_magmoms"):
        notes.append(
            "magmoms are read as results of a calculation; name them initial_magmoms to use them as initial moments"
        )
    return notes
