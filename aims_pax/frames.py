"""The central data types: a structure (`Frame`), its energy and forces (`Label`), and both (`LabelledFrame`).

>>> water = Frame(numbers=[8, 1, 1], positions=[[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
>>> len(water), water.periodic
(3, False)
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aims_pax import atoms_info
from aims_pax.errors import SettingsError

if TYPE_CHECKING:
    from ase import Atoms

Array = NDArray[np.float64]

ENERGY, FORCES, STRESS = "REF_energy", "REF_forces", "REF_stress"
WEIGHT = "config_weight"  # in an origin: the weight of this structure in the loss, as in MACE
PER_ATOM = ("numbers", "fixed", "moments", "charges", "masses", "zero_moments")  # per-atom fields


class Geometry(Protocol):
    """numbers (N,), positions (N, 3) Å, cell (3, 3) Å, pbc (3,) of a structure."""

    @property
    def numbers(self) -> NDArray[np.int64]: ...
    @property
    def positions(self) -> Array: ...
    @property
    def cell(self) -> Array: ...
    @property
    def pbc(self) -> Any: ...


@dataclass(frozen=True, eq=False)
class Frame:
    """One immutable structure. The geometry is rounded before it is labelled, stored and hashed.

    numbers: (N,) atomic numbers.
    positions: (N, 3) Å, rounded to 1e-8 Å.
    cell: (3, 3) Å, rows are lattice vectors; zeros for a molecule.
    pbc: (3,) bool.
    charge: total charge in e, or None: as in the input of the reference.
    spin: multiplicity 2S+1, or None: as in the input of the reference.
    fixed: (N, 3) bool, Cartesian components that MD must not move.
    moments: (N,) initial magnetic moments in μB, or None.
    charges: (N,) initial atomic charges in e, or None.
    masses: (N,) amu, or None: the standard masses of the elements.
    zero_moments: (N,) bool, atoms whose initial moment is explicitly zero, or None. For other atoms without a moment
        FHI-aims uses `default_initial_moment`.
    statements: lines of geometry.in about the whole structure, `homogeneous_field 0.1 0.0 0.0`; only FHI-aims
        uses them.
    """

    numbers: NDArray[np.int64]
    positions: Array
    cell: Array = field(default_factory=lambda: np.zeros((3, 3)))
    pbc: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(3, bool))
    charge: float | None = None
    spin: int | None = None
    fixed: NDArray[np.bool_] | None = None
    moments: Array | None = None
    charges: Array | None = None
    masses: Array | None = None
    zero_moments: NDArray[np.bool_] | None = None
    statements: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        numbers = _frozen(self.numbers, np.int64)
        n = len(numbers)
        keep = object.__setattr__
        keep(self, "numbers", numbers)
        keep(self, "positions", _on_grid(self.positions, (n, 3), "positions"))
        keep(self, "cell", _on_grid(self.cell, (3, 3), "cell"))
        pbc = np.asarray(self.pbc, bool)
        keep(self, "pbc", _frozen(pbc if pbc.shape == (3,) else np.broadcast_to(pbc, (3,)), np.bool_))
        for name in ("moments", "charges"):
            value = getattr(self, name)
            if value is not None:
                value = np.asarray(value, float)
                keep(self, name, _on_grid(value, (n,), name) if value.any() else None)
        if self.fixed is not None:
            fixed = np.asarray(self.fixed, bool)
            fixed = np.broadcast_to(fixed[:, None] if fixed.ndim == 1 else fixed, (n, 3))
            keep(self, "fixed", _frozen(fixed, np.bool_) if fixed.any() else None)
        masses = atoms_info.own_masses(numbers, self.masses)
        keep(self, "masses", None if masses is None else _on_grid(masses, (n,), "masses"))
        keep(self, "statements", tuple(map(str, self.statements)))
        self._state_zero_moments(n)

    def _state_zero_moments(self, n: int) -> None:
        """If a moment is explicitly zero, `moments` must not be None."""
        if self.zero_moments is None:
            return
        zero = np.broadcast_to(np.asarray(self.zero_moments, bool), (n,))
        zero = zero if self.moments is None else zero & (self.moments == 0)
        keep = object.__setattr__
        keep(self, "zero_moments", _frozen(zero, np.bool_) if zero.any() else None)
        if zero.any() and self.moments is None:
            keep(self, "moments", _frozen(np.zeros(n), np.float64))

    def __len__(self) -> int:
        return len(self.numbers)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frame) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    @cached_property
    def id(self) -> str:
        """Twenty hex digits of the SHA-256 of all fields; equal content gives an equal id on any machine."""
        digest = hashlib.sha256()
        parts: list[tuple[str, Any]] = [
            ("numbers", self.numbers),
            ("positions", _grid_points(self.positions)),
            ("cell", _grid_points(self.cell)),
            ("pbc", self.pbc.astype(np.uint8)),
            ("charge", None if self.charge is None else _grid_points(np.array([self.charge]))),
            ("spin", None if self.spin is None else np.array([self.spin], np.int64)),
            ("fixed", None if self.fixed is None else self.fixed.astype(np.uint8)),
            ("moments", None if self.moments is None else _grid_points(self.moments)),
            ("charges", None if self.charges is None else _grid_points(self.charges)),
            ("masses", None if self.masses is None else _grid_points(self.masses)),
            ("zero_moments", None if self.zero_moments is None else self.zero_moments.astype(np.uint8)),
            ("statements", _bytes("\n".join(self.statements)) if self.statements else None),
        ]
        for name, value in parts:
            if value is not None:
                digest.update(name.encode())
                digest.update((value.byteswap() if sys.byteorder == "big" else value).tobytes())
        return digest.hexdigest()[:20]

    @property
    def periodic(self) -> bool:
        """Periodic in all three directions: only then is there a stress."""
        return bool(self.pbc.all())

    @cached_property
    def formula(self) -> str:
        """Chemical formula in Hill order, `C2H6O`."""
        from ase.symbols import Symbols

        return Symbols(self.numbers).get_chemical_formula("hill")

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All fields as named arrays, for snapshots; fields that are None or empty are omitted."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return {
            name: np.asarray(v)
            for name, v in found.items()
            if not (v is None or (isinstance(v, tuple) and not v))
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The inverse of `arrays`."""
        scalars = {k: v.item() for k, v in arrays.items() if v.ndim == 0}
        return cls(**{**arrays, **scalars})

    def moved(self, positions: ArrayLike, cell: ArrayLike | None = None) -> Frame:
        """The same system at other positions (N, 3) Å, and in another cell (3, 3) Å if given."""
        moved_cell = self.cell if cell is None else np.asarray(cell, float)
        return replace(self, positions=np.asarray(positions, float), cell=moved_cell)

    def chosen(self, atoms: ArrayLike, positions: ArrayLike, **changes: Any) -> Frame:
        """These atoms (indices, repeats allowed) with their per-atom fields, at positions (n, 3) Å.

        changes: new values for other fields of the structure.
        """
        own = {name: values[atoms] for name in PER_ATOM if (values := getattr(self, name)) is not None}
        return replace(self, positions=np.asarray(positions, float), **{**own, **changes})

    @cached_property
    def all_masses(self) -> Array:
        """(N,) amu: `masses`, or the standard masses."""
        from ase.data import atomic_masses

        return np.asarray(atomic_masses[self.numbers] if self.masses is None else self.masses, float)

    @property
    def constitution(self) -> tuple[Any, ...]:
        """All fields that do not change during MD, to compare and to hash."""
        values = (getattr(self, f.name) for f in fields(self) if f.name not in ("positions", "cell"))
        return tuple(v.tobytes() if isinstance(v, np.ndarray) else v for v in values)

    @classmethod
    def from_atoms(cls, atoms: Atoms) -> Self:
        """Read an `ase.Atoms`, with `charge` / `total_charge` and `spin` / `total_spin` / `multiplicity` from `info`.

        Raises SettingsError for an unsupported constraint and for an invalid charge or multiplicity.
        """
        ours = "frame_id" in atoms.info  # written by `to_atoms`
        moments = _column(atoms, "initial_magmoms")
        zero = atoms.arrays.get(atoms_info.ZERO_MOMENTS)
        if zero is None and moments is not None and not ours:
            zero = moments == 0  # a column gives the moment of every atom
        return cls(
            numbers=atoms.numbers,
            positions=atoms.positions,
            cell=atoms.cell.array,
            pbc=atoms.pbc,
            charge=atoms_info.total_charge(atoms.info),
            spin=atoms_info.multiplicity(atoms.info, foreign=not ours),
            fixed=atoms_info.fixed_components(atoms),
            moments=moments,
            charges=_column(atoms, "initial_charges"),
            masses=atoms.get_masses() if atoms.has("masses") else None,
            zero_moments=zero,
            statements=atoms_info.statements(atoms.info),
        )

    def to_atoms(self) -> Atoms:
        """A new `ase.Atoms` with constraints, masses, initial moments and charges; `info` has id, charge and spin."""
        from ase import Atoms
        from ase.constraints import FixAtoms, FixCartesian

        atoms = Atoms(numbers=self.numbers, positions=self.positions, cell=self.cell, pbc=self.pbc)
        atoms.info["frame_id"] = self.id
        if self.charge is not None:
            atoms.info["charge"] = atoms.info["total_charge"] = self.charge
        if self.spin is not None:
            atoms.info["spin"] = atoms.info["total_spin"] = self.spin
        if self.moments is not None:
            atoms.set_initial_magnetic_moments(self.moments)
        if self.charges is not None:
            atoms.set_initial_charges(self.charges)
        if self.masses is not None:
            atoms.set_masses(self.masses)
        if self.zero_moments is not None:
            atoms.set_array(atoms_info.ZERO_MOMENTS, np.array(self.zero_moments))
        if self.statements:
            atoms.info[atoms_info.STATEMENTS] = "; ".join(self.statements)
        if self.fixed is not None:
            whole = self.fixed.all(axis=1)
            partly = np.flatnonzero(self.fixed.any(axis=1) & ~whole)
            constraints: list[Any] = [FixAtoms(indices=np.flatnonzero(whole))] if whole.any() else []
            constraints += [FixCartesian(int(i), mask=self.fixed[i]) for i in partly]
            atoms.set_constraint(constraints)
        return atoms


@dataclass(frozen=True, eq=False)
class Label:
    """Energy, forces and stress of a frame, from the reference or a model. Forces on fixed atoms are not set to zero.

    energy: eV. forces: (N, 3) eV/Å. stress: (3, 3) eV/Å³ with ASE's sign, or None.
    """

    energy: float
    forces: Array
    stress: Array | None = None

    def __post_init__(self) -> None:
        keep = object.__setattr__
        keep(self, "energy", float(self.energy))
        keep(self, "forces", _frozen(self.forces, np.float64))
        if self.stress is not None:
            keep(self, "stress", _frozen(np.reshape(self.stress, (3, 3)), np.float64))

    @property
    def finite(self) -> bool:
        """Whether there is no NaN and no infinity."""
        stress_ok = self.stress is None or bool(np.isfinite(self.stress).all())
        return math.isfinite(self.energy) and bool(np.isfinite(self.forces).all()) and stress_ok


@dataclass(frozen=True, eq=False)
class LabelledFrame:
    """A frame, its label, and where both came from (`origin`: system, stage, trajectory, step, method …).

    Forces are rounded to 1e-8 eV/Å, the precision of extended XYZ: after a restart a run reads exactly the same
    numbers.
    """

    frame: Frame
    label: Label
    origin: Mapping[str, str | int | float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        label = self.label
        rounded = Label(label.energy, label.forces.round(8) + 0.0, label.stress)
        object.__setattr__(self, "label", rounded)

    @property
    def id(self) -> str:
        return self.frame.id

    def to_atoms(self) -> Atoms:
        """An `ase.Atoms` with MACE's names: REF_energy, REF_forces, REF_stress, and the origin in `info`."""
        atoms = self.frame.to_atoms()
        atoms.info.update(self.origin)
        atoms.info[ENERGY] = self.label.energy
        atoms.arrays[FORCES] = np.array(self.label.forces)
        if self.label.stress is not None:
            atoms.info[STRESS] = np.ravel(self.label.stress)  # nine numbers: ASE reads them as (3, 3)
        return atoms


def _column(atoms: Atoms, name: str) -> Array | None:
    """(N,) finite numbers of a column of initial moments or charges, or None. Raises SettingsError."""
    if not atoms.has(name):
        return None
    values = np.asarray(atoms.arrays[name], float)
    if values.shape != (len(atoms),):
        raise SettingsError(f"{name} has shape {values.shape}, expected ({len(atoms)},): one number per atom")
    return values


def _on_grid(values: ArrayLike, shape: tuple[int, ...], name: str) -> Array:
    values = np.asarray(values, float)
    if values.shape != shape:
        raise ValueError(f"{name} has shape {values.shape}, expected {shape}")
    rounded: Array = values.round(8)
    rounded += 0.0  # turns -0.0 into 0.0
    rounded.setflags(write=False)
    return rounded


def _grid_points(values: Array) -> NDArray[np.int64]:
    """Integers in units of 1e-8 Å, so that rounding errors do not change the hash."""
    return np.rint(values * 1e8).astype(np.int64)


def _bytes(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode(), np.uint8)


def _frozen(values: ArrayLike, dtype: Any) -> NDArray[Any]:
    array = np.array(values, dtype=dtype)
    array.setflags(write=False)
    return array
