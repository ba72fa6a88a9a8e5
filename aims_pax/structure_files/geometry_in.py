"""FHI-aims' geometry.in: every line is read, or refused with its line number.

Atoms, lattice, initial moments and charges, and constraints are read as FHI-aims reads them: list-directed, with
Fortran exponents (`1.0d0`) and commas. Constraints after a lattice vector apply to the cell, not to an atom.
Statements about the whole structure (`homogeneous_field`, `set_vacuum_level`) are stored with every frame. Objects at
a fixed position in space (`multipole`, `empty`, `pseudocore`) would have to move with the atoms, and are refused.

>>> found = parse_geometry_in("homogeneous_field 0 0 1d-1\\natom 0. 0. 0. H\\n  initial_moment 1\\natom 0 0 0.74 H")
>>> found.frame.formula, found.frame.statements, found.frame.moments.tolist()
('H2', ('homogeneous_field 0.0 0.0 0.1',), [1.0, 0.0])
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from aims_pax.atoms_info import STATEMENT_NUMBERS
from aims_pax.errors import SettingsError
from aims_pax.fortran import fortran_number
from aims_pax.frames import Array, Frame

# keywords of FHI-aims that a frame cannot store, with the reason
_AT_A_PLACE = "has a fixed position in space, but the atoms move"
_MAGNETIC = "is about magnetic response, which is not computed here"
_SYMMETRY = "constrains the motion of the atoms by symmetry, which molecular dynamics here does not support"
REFUSED = {
    **dict.fromkeys(("multipole", "empty", "empty_frac", "pseudocore", "pseudocore_frac"), _AT_A_PLACE),
    **dict.fromkeys(("magnetic_moment", "magnetic_response", "nuclear_spin", "isotope"), _MAGNETIC),
    **dict.fromkeys(("symmetry_n_params", "symmetry_params", "symmetry_lv", "symmetry_frac"), _SYMMETRY),
    "RT_TDDFT_initial_velocity": "is about electron dynamics, which is not computed here",
}

# lines that a relaxation or MD of FHI-aims writes (geometry.in.next_step) and a single point ignores
LEFT_BEHIND = frozenset(
    (
        *("hessian_block", "hessian_block_lv", "hessian_block_lv_atom", "hessian_file", "trust_radius"),
        *("verbatim_writeout", "calculate_friction", "symmetry_frac_change_threshold"),
    )
)
READ = (
    *("atom", "atom_frac", "lattice_vector", "initial_moment", "initial_charge"),
    *("velocity", "constrain_relaxation"),
)


@dataclass(frozen=True)
class GeometryIn:
    """The contents of a geometry.in.

    frame: the structure. fixed_cell: (3, 3) bool, components of the lattice vectors that a constraint fixes, or None.
    velocities: whether atoms have initial velocities, which are not used.
    """

    frame: Frame
    fixed_cell: NDArray[np.bool_] | None = None
    velocities: bool = False


def decoded(content: bytes) -> str:
    """The text of a file in UTF-8 or UTF-16, with or without byte order mark. Raises SettingsError for binary data."""
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(encoding, errors="strict" if encoding == "utf-16" else "surrogateescape")
    except UnicodeDecodeError as error:
        raise SettingsError(f"this is not a text file: {error.reason}") from error
    if "\0" in text:
        raise SettingsError("this is not a text file")
    return text


def parse_geometry_in(text: str, name: str = "geometry.in") -> GeometryIn:
    """The structure in the text of a geometry.in. name: name of the file, for errors.

    Raises SettingsError with file and line for every line that cannot be used.
    """
    reader = _Reader()
    for count, line in enumerate(re.split(r"\r\n|\n|\r", text), 1):
        words = line.partition("#")[0].replace(",", " ").split()
        if not words:
            continue
        try:
            reader.read(words[0], words[1:])
        except ValueError as error:
            raise SettingsError(f"{name}:{count}: {error}") from error
    try:
        return reader.result()
    except ValueError as error:
        raise SettingsError(f"{name}: {error}") from error


@dataclass
class _Atom:
    position: list[float]
    element: int
    fractional: bool
    moment: float | None = None
    charge: float | None = None
    velocity: list[float] | None = None
    fixed: set[str] = field(default_factory=set)


@dataclass
class _Vector:
    vector: list[float]
    fixed: set[str] = field(default_factory=set)


class _Reader:
    """The state while lines are read. Methods raise ValueError for a line that cannot be used."""

    def __init__(self) -> None:
        self.atoms: list[_Atom] = []
        self.vectors: list[_Vector] = []
        self.statements: dict[str, str] = {}
        self.last: _Atom | _Vector | None = None  # the atom or vector that a constraint applies to
        self.kinds: dict[str, Callable[[str, Sequence[str]], None]] = {
            "atom": self._atom,
            "atom_frac": self._atom,
            "lattice_vector": self._lattice_vector,
            "initial_moment": self._of_an_atom,
            "initial_charge": self._of_an_atom,
            "velocity": self._velocity,
            "constrain_relaxation": self._constraint,
            **dict.fromkeys(STATEMENT_NUMBERS, self._statement),
        }

    def read(self, keyword: str, values: Sequence[str]) -> None:
        if keyword in self.kinds:
            self.kinds[keyword](keyword, values)
        elif keyword in REFUSED:
            raise ValueError(f"{keyword} {REFUSED[keyword]}; remove the line if it is not needed")
        elif keyword not in LEFT_BEHIND:
            from aims_pax.suggestions import nearest

            near = nearest(keyword, [*self.kinds, *REFUSED, *LEFT_BEHIND])
            hint = f"; nearest: {near}" if near else f"; known: {', '.join(self.kinds)}"
            raise ValueError(f"unknown keyword {keyword[:40]!r}{hint}")

    def _atom(self, keyword: str, values: Sequence[str]) -> None:
        position = _numbers(keyword, values, 3, "x y z and an element", more=1)
        self.last = _Atom(position, _element(values[3]), keyword == "atom_frac")
        self.atoms.append(self.last)

    def _lattice_vector(self, keyword: str, values: Sequence[str]) -> None:
        if len(self.vectors) == 3:
            raise ValueError("a fourth lattice_vector: expected three")
        self.last = _Vector(_numbers(keyword, values, 3, "x y z"))
        self.vectors.append(self.last)

    def _of_an_atom(self, keyword: str, values: Sequence[str]) -> None:
        atom, name = self._previous_atom(keyword), keyword.removeprefix("initial_")
        (value,) = _numbers(keyword, values, 1, "one number")
        if getattr(atom, name) is not None:
            raise ValueError(f"{keyword} appears twice for one atom; keep one")
        setattr(atom, name, value)

    def _velocity(self, keyword: str, values: Sequence[str]) -> None:
        self._previous_atom(keyword).velocity = _numbers(keyword, values, 3, "x y z")

    def _previous_atom(self, keyword: str) -> _Atom:
        if not isinstance(self.last, _Atom):
            raise ValueError(f"{keyword} must follow an atom, and there is none before it")
        return self.last

    def _constraint(self, keyword: str, values: Sequence[str]) -> None:
        if self.last is None:
            raise ValueError(
                f"{keyword} must follow an atom or a lattice_vector, and there is none before it"
            )
        said = [v.lower() for v in values]
        if len(said) != 1 or said[0] not in (".true.", ".false.", "x", "y", "z"):
            raise ValueError(f"{keyword} {' '.join(values)}: expected one of .true., .false., x, y, z")
        if said[0] != ".false.":
            self.last.fixed.update("xyz" if said[0] == ".true." else said[0])

    def _statement(self, keyword: str, values: Sequence[str]) -> None:
        n = STATEMENT_NUMBERS[keyword]
        numbers = _numbers(keyword, values, n, "x y z (V/Å)" if n == 3 else "one number (Å)")
        if keyword in self.statements:
            raise ValueError(f"{keyword} appears twice; keep one")
        self.statements[keyword] = " ".join([keyword, *map(repr, numbers)])

    def result(self) -> GeometryIn:
        atoms, vectors = self.atoms, self.vectors
        if not atoms:
            raise ValueError("no atoms in the file")
        if len(vectors) not in (0, 3):
            raise ValueError(f"{len(vectors)} lattice_vector: FHI-aims expects three or none")
        if not vectors and any(a.fractional for a in atoms):
            raise ValueError(
                "atom_frac needs three lattice_vector, and there are none; use atom for positions in Å"
            )
        cell = np.array([v.vector for v in vectors]) if vectors else np.zeros((3, 3))
        frame = Frame(
            numbers=np.array([a.element for a in atoms]),
            positions=np.array([_cartesian(a, cell) for a in atoms]),
            cell=cell,
            pbc=np.full(3, bool(vectors)),
            fixed=np.array([_mask(a.fixed) for a in atoms]),
            moments=_values([a.moment for a in atoms]),
            charges=_values([a.charge for a in atoms]),
            zero_moments=np.array([a.moment == 0 for a in atoms]),
            statements=tuple(sorted(self.statements.values())),
        )
        fixed_cell = np.array([_mask(v.fixed) for v in vectors], bool)
        return GeometryIn(
            frame,
            fixed_cell if fixed_cell.any() else None,
            any(a.velocity is not None and any(a.velocity) for a in atoms),
        )


def _cartesian(atom: _Atom, cell: Array) -> Array:
    return np.asarray(atom.position @ cell if atom.fractional else atom.position, float)


def _mask(fixed: set[str]) -> list[bool]:
    return [axis in fixed for axis in "xyz"]


def _values(values: Sequence[float | None]) -> Array | None:
    return None if all(v is None for v in values) else np.array([v or 0.0 for v in values])


def _numbers(keyword: str, values: Sequence[str], n: int, expected: str, more: int = 0) -> list[float]:
    """The first n values as numbers. Raises ValueError unless there are n + `more` values."""
    written = f"{keyword} {' '.join(values)}"[:80]
    if len(values) < n + more:
        raise ValueError(f"{written}: expected {expected}")
    if len(values) > n + more:
        raise ValueError(
            f"{written}: expected {expected}, but found also {' '.join(values[n + more :])[:40]!r} "
            "(a comment begins with #)"
        )
    try:
        return [fortran_number(v) for v in values[:n]]
    except ValueError as error:
        raise ValueError(f"{written}: expected {expected}, but {error}") from error


def _element(symbol: str) -> int:
    from ase.data import atomic_numbers

    if atomic_numbers.get(symbol, 0) > 0:
        return atomic_numbers[symbol]
    proper = re.match("[A-Za-z]*", symbol)
    near = proper[0].capitalize() if proper else ""
    hint = f"; expected {near}?" if atomic_numbers.get(near, 0) > 0 and near != symbol else ""
    if symbol in ("D", "T"):
        hint = "; write isotopes as H, with a column masses, in an extended XYZ file"
    raise ValueError(f"{symbol!r} is not an element{hint}")
