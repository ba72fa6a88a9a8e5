"""Reads from an `ase.Atoms` what is not geometry: charge, multiplicity, masses, constraints.

Every entry is read, or refused with one line that names the entry, its value and what was expected.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aims_pax.errors import SettingsError

if TYPE_CHECKING:
    from ase import Atoms

CHARGE = ("charge", "total_charge")
SPIN = ("spin", "total_spin")
MULTIPLICITY = "multiplicity"  # in files not written by aims-PAX: the same as spin
STATEMENTS = "geometry_in"  # statements of a geometry.in about the whole structure, separated by semicolons
STATEMENT_NUMBERS = {"homogeneous_field": 3, "set_vacuum_level": 1}  # these, and how many numbers each has
ZERO_MOMENTS = "zero_moment"  # column of atoms whose initial moment is stated to be zero
OTHER_SPINS = "mult uhf unpaired n_unpaired unpaired_electrons spin_mult spin_multiplicity total_multiplicity"
OTHER_CHARGES = (
    "chrg net_charge totalcharge formal_charge tot_charge molecular_charge mol_charge system_charge"
)
OTHERWISE = {  # names in other programs → name here
    **{name: name for name in (*CHARGE, *SPIN, MULTIPLICITY)},
    **dict.fromkeys(OTHER_SPINS.split(), "spin"),
    **dict.fromkeys(OTHER_CHARGES.split(), "charge"),
}
_PROPER = {name.replace("_", ""): proper for name, proper in OTHERWISE.items()}
MASS_COLUMNS = frozenset(("mass", "masses", "isotope", "isotopes", "atomic_mass", "atomic_masses"))
CELL_ENTRIES = frozenset(("lattice", "latticevectors", "cell", "unitcell", "cellvectors", "box"))
SAME_MASS = 2e-4  # tables of standard masses differ by less than this fraction


def total_charge(info: Mapping[str, Any]) -> float | None:
    """The total charge (e) in `charge` or `total_charge`, or None. Raises SettingsError for anything but one number."""
    found = {
        name: _number(name, info[name], "the total charge in e") for name in CHARGE if _given(info, name)
    }
    return _agreed(found)


def multiplicity(info: Mapping[str, Any], foreign: bool = True) -> int | None:
    """The multiplicity 2S+1 in `spin` or `total_spin`, or None; if `foreign`, also in `multiplicity`.

    Raises SettingsError unless it is a whole number ≥ 1.
    """
    names = (*SPIN, MULTIPLICITY) if foreign else SPIN
    expected = "the multiplicity 2S+1, a whole number of at least 1 (1: all electrons are paired)"
    found = {name: _number(name, info[name], expected) for name in names if _given(info, name)}
    for name, value in found.items():
        if value < 1 or value != int(value):
            raise SettingsError(f"{name}={value:g}: expected {expected}")
    agreed = _agreed(found)
    return None if agreed is None else int(agreed)


def electrons_in(info: Mapping[str, Any]) -> tuple[Any, ...]:
    """Charge and multiplicity as they are written, to see whether they changed: ASE's calculators ignore `info`."""
    return tuple(info.get(name) for name in (*CHARGE, *SPIN, MULTIPLICITY))


def changes_with_electrons(changes: list[str], info: Mapping[str, Any], before: tuple[Any, ...]) -> list[str]:
    """ASE's list of what has changed in atoms; one entry where only charge or spin in `info` differ from before."""
    return changes or (["initial_charges"] if electrons_in(info) != before else [])


def own_masses(numbers: NDArray[np.int64], masses: ArrayLike | None) -> NDArray[np.float64] | None:
    """(N,) amu, or None if they are the standard masses of the elements. Raises SettingsError.

    Tables of standard masses differ (H 1.008, 1.00794); only differences above 0.02 % count as isotopes.
    """
    if masses is None:
        return None
    from ase.data import atomic_masses

    given = np.asarray(masses, float)
    if given.shape != (len(numbers),):
        raise SettingsError(f"masses have shape {given.shape}, expected ({len(numbers)},)")
    wrong = np.flatnonzero(~((given > 0) & (given < 1e6)))
    if len(wrong):
        raise SettingsError(
            f"the mass of atom {wrong[0] + 1} is {given[wrong[0]]:g}: expected a positive number in u"
        )
    standard = atomic_masses[numbers]
    return None if (abs(given - standard) <= SAME_MASS * standard).all() else given


def refuse_other_names(atoms: Atoms) -> None:
    """Raise SettingsError for a charge, multiplicity, mass or cell whose name is not one that is read."""
    for key, value in atoms.info.items():
        proper = proper_name(key)
        if proper is not None and key not in (*CHARGE, *SPIN, MULTIPLICITY):
            raise SettingsError(f"{key}={value}: write it as {proper}=… (spin is the multiplicity 2S+1)")
        name = _joined(key)
        if name == "pbc":
            raise SettingsError(f"{key}: write it as pbc=…, in lower case")
        if name in CELL_ENTRIES and not atoms.cell.array.any() and _a_cell(value):
            raise SettingsError(
                f'{key}, but no Lattice: write the cell as Lattice="ax ay az bx by bz cx cy cz"'
            )
    for column in atoms.arrays:
        if column.lower() in MASS_COLUMNS and column != "masses":
            raise SettingsError(f"the column {column} is not read: rename it to masses")


def proper_name(written: str) -> str | None:
    """The name here of a charge or multiplicity under any name and spelling, else None.

    >>> proper_name("Net-Charge"), proper_name("spinMultiplicity"), proper_name("energy")
    ('charge', 'spin', None)
    """
    return _PROPER.get(_joined(written))


def _joined(name: str) -> str:
    """The letters alone: `tot_charge`, `Tot-Charge` and `totCharge` are one name."""
    return re.sub("[^a-z]", "", name.lower())


def _a_cell(value: Any) -> bool:
    """Whether these numbers span a cell: lengths, lengths and angles, or vectors."""
    array = np.asarray(value)
    return array.dtype.kind in "iuf" and array.size in (3, 6, 9) and bool(array.any())


def statements(info: Mapping[str, Any]) -> tuple[str, ...]:
    """Statements of geometry.in about the whole structure, as `Frame.statements`. Raises SettingsError for others."""
    written = info.get(STATEMENTS)
    found: dict[str, str] = {}
    for said in () if written is None else str(written).split(";"):
        keyword, *values = said.split() or [""]
        if not keyword:
            continue
        if keyword not in STATEMENT_NUMBERS or len(values) != STATEMENT_NUMBERS[keyword] or keyword in found:
            expected = ", ".join(f"{name} ({n} numbers)" for name, n in STATEMENT_NUMBERS.items())
            raise SettingsError(
                f'{STATEMENTS}="{said.strip()[:80]}": expected {expected}, each once, separated by semicolons'
            )
        for value in values:
            _number(keyword, value, "in V/Å, or in Å for the vacuum level")
        found[keyword] = said.strip()
    return tuple(found.values())


def fixed_components(atoms: Atoms) -> NDArray[np.bool_] | None:
    """(N, 3) bool, the Cartesian components that the constraints fix. Raises SettingsError for other constraints."""
    from ase import constraints as ase

    fixed = np.zeros((len(atoms), 3), bool)
    for constraint in atoms.constraints:
        if isinstance(constraint, ase.FixAtoms):
            fixed[constraint.index] = True
        elif isinstance(constraint, ase.FixCartesian):
            fixed[constraint.index] |= np.asarray(constraint.mask, bool)
        elif isinstance(constraint, ase.FixScaled):
            fixed[constraint.index] |= _along_axes(atoms, np.asarray(constraint.mask, bool))
        elif isinstance(constraint, ase.FixedPlane | ase.FixedLine):
            along = abs(np.asarray(constraint.dir, float)) > 1e-6
            if along.sum() != 1:
                raise _unsupported(atoms, constraint, "along a direction that is not x, y or z ")
            fixed[constraint.index] |= along if isinstance(constraint, ase.FixedPlane) else ~along
        else:
            raise _unsupported(atoms, constraint)
    return fixed if fixed.any() else None


def _along_axes(atoms: Atoms, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Convert fixed lattice directions to fixed Cartesian components. Raises SettingsError if that is impossible."""
    cell = np.asarray(atoms.cell.array, float)
    moves = abs(cell[~mask]).max(0, initial=0.0) > 1e-6 * abs(cell).max()
    if moves.sum() != (~mask).sum():
        flags = " ".join("F" if m else "T" for m in mask)
        raise SettingsError(
            f"selective dynamics {flags} along the lattice vectors of {atoms.get_chemical_formula()} is not a "
            "constraint on x, y or z (F: fixed): free the atom (T T T), fix it completely (F F F), or rotate the cell"
        )
    still: NDArray[np.bool_] = ~moves
    return still


def _unsupported(atoms: Atoms, constraint: Any, where: str = "") -> SettingsError:
    return SettingsError(
        f"constraint {type(constraint).__name__} {where}on {atoms.get_chemical_formula()} is not supported: "
        "use FixAtoms or FixCartesian (constrain_relaxation in geometry.in), or remove it"
    )


def _given(info: Mapping[str, Any], name: str) -> bool:
    return info.get(name) is not None


def _number(name: str, value: Any, expected: str) -> float:
    """One finite real number, also from text. Raises SettingsError for a truth value, a list or a complex number."""
    array = np.asarray(value)
    kind = array.dtype.kind
    if array.ndim == 0 and kind in "iufU":
        try:
            number = float(value)
        except ValueError:
            number = np.nan
        if np.isfinite(number) and abs(number) < 1e9:
            return number
    shown = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    written = " ".join(map(str, shown)) if isinstance(shown, list) else str(shown)
    raise SettingsError(f'{name}="{written}": expected one number, {expected}')


def _agreed(found: Mapping[str, float]) -> float | None:
    if len(set(found.values())) > 1:
        said = " but ".join(f"{name}={value:g}" for name, value in found.items())
        raise SettingsError(f"{said}: contradicting values; keep the right one")
    return next(iter(found.values()), None)
