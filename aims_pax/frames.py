"""The central nouns: a structure (`Frame`), what the reference says of it (`Label`), and both together.

>>> water = Frame(numbers=[8, 1, 1], positions=[[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
>>> len(water), water.periodic
(3, False)
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aims_pax.errors import SettingsError

if TYPE_CHECKING:
    from ase import Atoms

Array = NDArray[np.float64]

ENERGY, FORCES, STRESS = "REF_energy", "REF_forces", "REF_stress"


@dataclass(frozen=True, eq=False)
class Frame:
    """One immutable structure. The rounded geometry is what is labelled, stored and hashed.

    numbers: (N,) atomic numbers.
    positions: (N, 3) Å, rounded once to 1e-8 Å.
    cell: (3, 3) Å, rows are lattice vectors; zeros for a molecule.
    pbc: (3,) bool.
    charge: total charge in e, or None: as the reference's own input says.
    spin: multiplicity 2S+1, or None: as the reference's own input says.
    fixed: (N, 3) bool, Cartesian components that MD must not move.
    moments: (N,) initial magnetic moments in μB, or None.
    charges: (N,) initial atomic charges in e, or None.
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

    def __post_init__(self) -> None:
        numbers = _frozen(self.numbers, np.int64)
        n = len(numbers)
        keep = object.__setattr__
        keep(self, "numbers", numbers)
        keep(self, "positions", _frozen(_on_grid(self.positions, (n, 3), "positions"), np.float64))
        keep(self, "cell", _frozen(_on_grid(self.cell, (3, 3), "cell"), np.float64))
        keep(self, "pbc", _frozen(np.broadcast_to(np.asarray(self.pbc, bool), (3,)), np.bool_))
        for name in ("moments", "charges"):
            value = getattr(self, name)
            if value is not None:
                value = np.asarray(value, float)
                keep(self, name, _frozen(_on_grid(value, (n,), name), np.float64) if value.any() else None)
        if self.fixed is not None:
            fixed = np.asarray(self.fixed, bool)
            fixed = np.broadcast_to(fixed[:, None] if fixed.ndim == 1 else fixed, (n, 3))
            keep(self, "fixed", _frozen(fixed, np.bool_) if fixed.any() else None)

    def __len__(self) -> int:
        return len(self.numbers)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frame) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    @cached_property
    def id(self) -> str:
        """Twenty hex digits of the SHA-256 of everything above; equal content, equal id, on any machine."""
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
        ]
        for name, value in parts:
            if value is not None:
                digest.update(name.encode())
                digest.update(np.ascontiguousarray(value).astype(value.dtype.newbyteorder("<")).tobytes())
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
        """Everything as named arrays, for snapshots; what is None is left out."""
        return {f.name: np.asarray(v) for f in fields(self) if (v := getattr(self, f.name)) is not None}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The inverse of `arrays`."""
        scalars = {k: v.item() for k, v in arrays.items() if v.ndim == 0}
        return cls(**{**arrays, **scalars})

    def moved(self, positions: ArrayLike, cell: ArrayLike | None = None) -> Frame:
        """The same system at other positions (N, 3) Å, and in another cell (3, 3) Å when given."""
        moved_cell = self.cell if cell is None else np.asarray(cell, float)
        return replace(self, positions=np.asarray(positions, float), cell=moved_cell)

    @classmethod
    def from_atoms(cls, atoms: Atoms) -> Self:
        """Read an `ase.Atoms`; `info['charge']` / `info['total_charge']` and `spin` / `total_spin` count.

        Raises SettingsError for a constraint that molecular dynamics here cannot honour.
        """
        charge = _first(atoms.info, "charge", "total_charge")
        spin = _first(atoms.info, "spin", "total_spin")
        return cls(
            numbers=atoms.numbers,
            positions=atoms.positions,
            cell=atoms.cell.array,
            pbc=atoms.pbc,
            charge=None if charge is None else float(charge),
            spin=None if spin is None else int(spin),
            fixed=_fixed(atoms),
            moments=atoms.get_initial_magnetic_moments() if atoms.has("initial_magmoms") else None,
            charges=atoms.get_initial_charges() if atoms.has("initial_charges") else None,
        )

    def to_atoms(self) -> Atoms:
        """A fresh `ase.Atoms` with constraints, initial moments and charges; `info` holds id, charge, spin."""
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
        if self.fixed is not None:
            whole = self.fixed.all(axis=1)
            partly = np.flatnonzero(self.fixed.any(axis=1) & ~whole)
            constraints: list[Any] = [FixAtoms(indices=np.flatnonzero(whole))] if whole.any() else []
            constraints += [FixCartesian(int(i), mask=self.fixed[i]) for i in partly]
            atoms.set_constraint(constraints)
        return atoms


@dataclass(frozen=True, eq=False)
class Label:
    """What the reference (or a model) says of a frame: raw forces, also on fixed atoms.

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
        """No NaN and no infinity anywhere."""
        stress_ok = self.stress is None or bool(np.isfinite(self.stress).all())
        return math.isfinite(self.energy) and bool(np.isfinite(self.forces).all()) and stress_ok


@dataclass(frozen=True, eq=False)
class LabelledFrame:
    """A frame, its label, and where both came from (`origin`: system, stage, trajectory, step, method …).

    Forces are rounded once to 1e-8 eV/Å, as extended XYZ keeps them: a run that reads its data back after a
    restart trains on the same numbers, bit for bit.
    """

    frame: Frame
    label: Label
    origin: Mapping[str, str | int | float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rounded = replace(self.label, forces=np.round(self.label.forces, 8) + 0.0)
        object.__setattr__(self, "label", rounded)

    @property
    def id(self) -> str:
        return self.frame.id

    def to_atoms(self) -> Atoms:
        """`ase.Atoms` in MACE's spelling: REF_energy, REF_forces, REF_stress, and the origin in `info`."""
        atoms = self.frame.to_atoms()
        atoms.info.update(self.origin)
        atoms.info[ENERGY] = self.label.energy
        atoms.arrays[FORCES] = np.array(self.label.forces)
        if self.label.stress is not None:
            atoms.info[STRESS] = np.ravel(self.label.stress)  # nine numbers: ASE reads them as (3, 3)
        return atoms

    @classmethod
    def from_atoms(
        cls, atoms: Atoms, energy_key: str = ENERGY, forces_key: str = FORCES, stress_key: str = STRESS
    ) -> Self:
        """Read a labelled `ase.Atoms`. A stored `frame_id` must fit the geometry.

        Raises SettingsError when a label is missing, of the wrong shape, or belongs to another geometry.
        """
        energy, forces, stress = _stored_label(atoms, energy_key, forces_key, stress_key)
        if energy is None or forces is None:
            missing = energy_key if energy is None else forces_key
            moved = getattr(atoms.calc, "results", {})  # where ASE puts plain `energy` and `forces`
            has = (
                ", ".join(sorted({*atoms.info, *atoms.arrays, *moved} - {"numbers", "positions"}))
                or "nothing"
            )
            raise SettingsError(
                f"no {missing} on a structure {atoms.get_chemical_formula()} (it has: {has}); "
                "name the label keys with MISC.energy_key and MISC.forces_key"
            )
        frame = Frame.from_atoms(atoms)
        if np.shape(forces) != (len(frame), 3):
            raise SettingsError(f"{forces_key} has shape {np.shape(forces)}, expected ({len(frame)}, 3)")
        told = atoms.info.get("frame_id")
        # ASE's reader makes a number of an id that looks like one (516429114334e3585263): nothing to compare then
        if isinstance(told, str) and told != frame.id:
            raise SettingsError(
                f"frame_id {told} does not fit its geometry (which hashes to {frame.id}): "
                "the structure was changed after it was labelled; remove the frame_id if that is meant"
            )
        known = {energy_key, stress_key, "frame_id", "charge", "spin", "total_charge", "total_spin"}
        origin = {
            k: v if isinstance(v, str) else v.item() if isinstance(v, np.generic) else v
            for k, v in atoms.info.items()
            if k not in known and isinstance(v, str | int | float | np.generic)
        }
        return cls(frame, Label(float(energy), forces, _as_tensor(stress)), origin)


def _stored_label(atoms: Atoms, energy_key: str, forces_key: str, stress_key: str) -> tuple[Any, Any, Any]:
    """The label under its keys, or the one ASE moved into a calculator when it read plain `energy`/`forces`."""
    results = getattr(atoms.calc, "results", {}) if atoms.calc is not None else {}
    energy = atoms.info.get(energy_key, results.get(energy_key))
    forces = atoms.arrays.get(forces_key, results.get(forces_key))
    stress = atoms.info.get(stress_key, results.get(stress_key))
    return energy, forces, stress


def _as_tensor(stress: Any) -> Array | None:
    """(3, 3) from (3, 3), (9,) or Voigt (6,) in ASE's order xx, yy, zz, yz, xz, xy."""
    if stress is None:
        return None
    stress = np.asarray(stress, float)
    if stress.size == 6:
        xx, yy, zz, yz, xz, xy = stress.ravel()
        return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    tensor: Array = stress.reshape(3, 3)
    return tensor


def _fixed(atoms: Atoms) -> NDArray[np.bool_] | None:
    from ase.constraints import FixAtoms, FixCartesian

    fixed = np.zeros((len(atoms), 3), bool)
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            fixed[constraint.index] = True
        elif isinstance(constraint, FixCartesian):
            fixed[constraint.index] |= np.asarray(constraint.mask, bool)
        else:
            raise SettingsError(
                f"constraint {type(constraint).__name__} on {atoms.get_chemical_formula()} is not supported: "
                "use FixAtoms or FixCartesian (constrain_relaxation in geometry.in), or remove it"
            )
    return fixed if fixed.any() else None


def _first(info: Mapping[str, Any], *names: str) -> Any:
    return next((info[n] for n in names if info.get(n) is not None), None)


def _on_grid(values: ArrayLike, shape: tuple[int, ...], name: str) -> Array:
    values = np.asarray(values, float)
    if values.shape != shape:
        raise ValueError(f"{name} has shape {values.shape}, expected {shape}")
    rounded: Array = np.round(values, 8) + 0.0  # + 0.0 turns -0.0 into 0.0
    return rounded


def _grid_points(values: Array) -> NDArray[np.int64]:
    """Integers in units of 1e-8 Å: equal geometries hash equally whatever their last bit."""
    return np.rint(values * 1e8).astype(np.int64)


def _frozen(values: ArrayLike, dtype: Any) -> NDArray[Any]:
    array = np.array(values, dtype=dtype)
    array.setflags(write=False)
    return array
