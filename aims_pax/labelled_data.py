"""The reader and writer for labelled structures in extended XYZ.

Every file of labels is read here: given training, validation and test sets, the input of `aims-PAX test` and
`aims-PAX-recalc`, and the run's own data. A file is read completely, or refused with the place of the error: empty
lines between structures are allowed, any other unexpected line is an error.

Labels in eV, eV/Å, eV/Å³. Stress has ASE's sign, σ = (1/V) dE/dε: negative under compression, tensile positive.
Virials have the sign of GAP, MACE, DeePMD and QUIP, W = −dE/dε (eV), so that σ = −W/V; programs that print the
pressure tensor (LAMMPS, VASP's kB column) have the sign of W, not that of σ. Tensors are 3x3, 9 numbers, or 6 in
Voigt order xx, yy, zz, yz, xz, xy.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aims_pax import atoms_info, comment_line
from aims_pax.errors import LabelError, SettingsError
from aims_pax.fast_extxyz import read_own_structures
from aims_pax.frames import ENERGY, FORCES, STRESS, Array, Frame, Label, LabelledFrame
from aims_pax.isolated_atoms import marks_isolated
from aims_pax.label_limits import cell_refusal, check_label
from aims_pax.tensors import symmetric
from aims_pax.xyz_blocks import (
    BlockFault,
    StructureLines,
    check_columns,
    find_damage,
    no_key_twice,
    no_text,
    nth,
    open_text,
    structure_blocks,
)

if TYPE_CHECKING:
    from ase import Atoms

VIRIALS = "REF_virials"
LARGEST = 1e9  # Å: larger positions or cells cannot be stored to 1e-8 Å
CHUNK = 2500  # atoms that are read together
AGREE = 1e-3  # relative: allowed difference of stress and virials of one structure
# belong to the frame, not to its origin
STRUCTURE = frozenset(["charge", "spin", "total_charge", "total_spin", "frame_id"])


@dataclass(frozen=True)
class LabelKeys:
    """Names of energy, forces, stress and virials in a file; `option`: the setting or option that changes them."""

    energy: str = ENERGY
    forces: str = FORCES
    stress: str = STRESS
    virials: str = VIRIALS
    option: str = "MISC.{}_key"

    @classmethod
    def of(cls, misc: Any) -> LabelKeys:
        """The names of a project, from its section MISC."""
        return cls(misc.energy_key, misc.forces_key, misc.stress_key, misc.virials_key)

    def named(self, what: str) -> str:
        """The setting or option for one of the names."""
        return self.option.format(what)


OURS = LabelKeys()  # the names that `to_extxyz` writes


def read_labelled(path: Path, keys: LabelKeys = OURS, limits: bool = True) -> Iterator[LabelledFrame]:
    """Every structure of a file with its label, in the order of the file.

    limits: apply the same limits as for labels of the reference (`label_limits.check_label`).
    Raises SettingsError with file and structure number.
    """
    for chunk in _chunks(_numbered_blocks(path)):
        own: list[LabelledFrame | None] = [None] * len(chunk)
        if keys == OURS:
            own = read_own_structures([(block.comment.removesuffix("\n"), block.atoms) for _, block in chunk])
        for (number, block), labelled in zip(chunk, own, strict=True):
            if labelled is None or block.cell_vectors:
                atoms = _by_ase(block, number, path)
                with _located(path, number):
                    labelled = labelled_frame(atoms, keys)
            if limits:
                with _located(path, number):
                    _believable(labelled)
            yield labelled


def _chunks(blocks: Iterator[tuple[int, StructureLines]]) -> Iterator[list[tuple[int, StructureLines]]]:
    """The structures in lists of some thousand atoms; an error follows those before it. Raises SettingsError."""
    chunk: list[tuple[int, StructureLines]] = []
    atoms = 0
    try:
        for numbered in blocks:
            chunk.append(numbered)
            atoms += len(numbered[1].atoms)
            if atoms >= CHUNK:
                yield chunk
                chunk, atoms = [], 0
    except SettingsError:
        yield chunk
        raise
    yield chunk


@contextmanager
def _located(path: Path, number: int) -> Iterator[None]:
    """Adds file and structure number to errors; a damaged line is the better explanation."""
    try:
        yield
    except SettingsError as error:
        where = find_damage(path) or f"{nth(number)}: {error}"
        raise SettingsError(f"{path}, {where}") from error


def read_structures(path: Path) -> Iterator[tuple[int, Atoms]]:
    """(number from 1, `ase.Atoms`) of every structure of an extended XYZ file, labelled or not.

    Raises SettingsError with file and structure number.
    """
    for number, block in _numbered_blocks(path):
        yield number, _by_ase(block, number, path)


def _numbered_blocks(path: Path) -> Iterator[tuple[int, StructureLines]]:
    """(number from 1, lines) of every structure; columns are not counted yet. Raises SettingsError."""
    number = 0
    try:
        with open_text(path) as file:
            for number, block in enumerate(structure_blocks(file), 1):
                yield number, block
    except BlockFault as error:
        raise SettingsError(f"{path}, {nth(number + 1)}: {error}") from error
    except (UnicodeDecodeError, EOFError) as error:
        raise SettingsError(f"{path}, {nth(number + 1)}: {no_text(path)}") from error
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror or error}") from error


def _by_ase(block: StructureLines, number: int, path: Path) -> Atoms:
    """The structure in these lines, by ASE's reader. Raises SettingsError with file and structure number."""
    import ase.io

    try:
        check_columns(block)
        no_key_twice(block.comment)
        atoms = ase.io.read(
            io.StringIO(block.text),
            format="extxyz",
            index=0,
            properties_parser=comment_line.parse_comment_line,
        )
        if block.cell_vectors and not isinstance(atoms, list):
            atoms.info.update(comment_line.entries_beside_vectors(block.comment))
    except Exception as error:  # ASE's reader may raise any exception
        said = str(error) if isinstance(error, SettingsError | BlockFault) else reader_error(error)
        raise SettingsError(f"{path}, {nth(number)}: {said}") from error
    assert not isinstance(atoms, list)
    return atoms


# ---------------------------------------------------------------- labels


def labelled_frame(atoms: Atoms, keys: LabelKeys = OURS) -> LabelledFrame:
    """A labelled `ase.Atoms` as frame, label and origin. A stored `frame_id` must fit the geometry.

    Raises SettingsError if a label is missing, has the wrong shape, or belongs to another geometry.
    """
    finite_structure(atoms)
    comment_line.refuse_other_units(atoms.info)
    energy, forces = _required(atoms, keys)
    frame = frame_of(atoms)
    if (reason := cell_refusal(frame.cell, frame.pbc)) is not None:
        raise SettingsError(f"periodic (pbc), but {reason}")
    label = Label(energy, forces, _stress(atoms, keys))
    labelled = LabelledFrame(frame, label, origin_of(atoms, frame, keys))
    _finite_label(labelled)
    return labelled


def frame_of(atoms: Atoms) -> Frame:
    """The structure. Raises SettingsError if it is invalid, or if a stored `frame_id` does not fit it."""
    if "frame_id" not in atoms.info:  # not written by aims-PAX
        atoms_info.refuse_other_names(atoms)
    try:
        frame = Frame.from_atoms(atoms)
    except (ValueError, TypeError, OverflowError, KeyError) as error:  # spin=two, charge=T
        raise SettingsError(reader_error(error)) from error
    if not frame.numbers.all():
        raise SettingsError(f"atom {int(frame.numbers.argmin()) + 1} is X, which is not an element")
    written = atoms.info.get("frame_id")
    if isinstance(written, str) and written != frame.id:  # not text: ASE read the id as a number
        raise SettingsError(
            f"frame_id {written} does not fit its geometry (whose id is {frame.id}): "
            "the structure was changed after it was labelled; remove the frame_id if that is intended"
        )
    return frame


def has_label(atoms: Atoms, keys: LabelKeys) -> bool:
    """Whether energy and forces are present under their keys."""
    return _value(atoms, keys.energy) is not None and _value(atoms, keys.forces) is not None


def origin_of(atoms: Atoms, frame: Frame, keys: LabelKeys) -> dict[str, str | int | float]:
    """The entries of the header that do not belong to structure or label."""
    known = {keys.energy, keys.stress, keys.virials, *STRUCTURE, *frame.to_atoms().info}
    if "frame_id" not in atoms.info:  # not written by aims-PAX: multiplicity belongs to the structure
        known.add("multiplicity")
    return {
        k: v.item() if isinstance(v, np.generic) else v
        for k, v in atoms.info.items()
        if k not in known and isinstance(v, str | int | float | np.generic)
    }


def tensor(values: Any, name: str) -> Array:
    """(3, 3) from (3, 3), (9,) or Voigt (6,) in ASE's order xx, yy, zz, yz, xz, xy. Raises SettingsError."""
    try:
        array = np.asarray(values, float)
    except (TypeError, ValueError):
        raise SettingsError(f"{name} is {values!r}; expected 6 or 9 numbers") from None
    if array.size == 6:
        xx, yy, zz, yz, xz, xy = array.ravel()
        return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    if array.size != 9:
        raise SettingsError(f"{name} has {array.size} numbers; expected 6 (xx yy zz yz xz xy) or 9")
    full: Array = array.reshape(3, 3)
    if not symmetric(full):
        raise SettingsError(
            f"{name} is not symmetric: {' '.join(f'{v:g}' for v in array.ravel())}; expected xx xy xz yx yy yz zx zy zz"
        )
    return full


def _value(atoms: Atoms, key: str) -> Any:
    """A label under its key; ASE moves plain `energy`, `forces` and `stress` into a calculator."""
    results = getattr(atoms.calc, "results", {}) if atoms.calc is not None else {}
    return next((place[key] for place in (atoms.info, atoms.arrays, results) if key in place), None)


def _required(atoms: Atoms, keys: LabelKeys) -> tuple[float, Array]:
    if "grad" in keys.forces.lower():
        raise SettingsError(
            f"{keys.named('forces')} names {keys.forces}: gradients have the opposite sign of forces; multiply them by "
            "−1, and give the column another name"
        )
    energy, forces = _value(atoms, keys.energy), _value(atoms, keys.forces)
    if forces is None and _isolated(atoms):
        forces = np.zeros((1, 3))  # by symmetry; files of MACE leave them out
    if energy is None or forces is None:
        raise SettingsError(_missing(atoms, keys, keys.energy if energy is None else keys.forces))
    if isinstance(energy, str):  # numbers in an unusual form, `-1e3`, are still text
        with suppress(ValueError):
            energy = float(energy)
    if isinstance(energy, bool | np.bool_ | str) or np.size(energy) != 1:
        raise SettingsError(f"{keys.energy} is {energy!r}; expected one number (eV)")
    if np.shape(forces) != (len(atoms), 3):
        raise SettingsError(f"{keys.forces} has shape {np.shape(forces)}, expected ({len(atoms)}, 3)")
    if np.asarray(forces).dtype.kind not in "fiu":
        raise SettingsError(f"{keys.forces} are not numbers; expected the type R in Properties")
    return float(np.reshape(energy, ())), np.asarray(forces, float)


def _isolated(atoms: Atoms) -> bool:
    """Whether this is one atom or ion alone; see `isolated_atoms.is_lone`."""
    return len(atoms) == 1 and (marks_isolated(atoms.info) or not atoms.pbc.any())


def _missing(atoms: Atoms, keys: LabelKeys, missing: str) -> str:
    results = getattr(atoms.calc, "results", {}) if atoms.calc is not None else {}
    there = sorted({*atoms.info, *atoms.arrays, *results} - {"numbers", "positions"})
    said = f"no {missing} on a structure {atoms.get_chemical_formula()} (it has: {', '.join(there) or 'nothing'})"
    energy, forces = keys.named("energy"), keys.named("forces")
    if {"energy", "forces"} <= set(results):
        colon = "" if keys.option.startswith("-") else ":"  # an option of a command, or a key of a file
        names = ["energy", "forces", *(["stress"] if "stress" in results else [])]
        written = ", ".join(f"{keys.named(name)}{colon} {name}" for name in names)
        return f"{said}; if energy and forces are its labels, write {written}"
    return f"{said}; name the label keys with {energy} and {forces}"


def _stress(atoms: Atoms, keys: LabelKeys) -> Array | None:
    """(3, 3) eV/Å³: as written, or −W/V from virials W."""
    written, virials = _value(atoms, keys.stress), _value(atoms, keys.virials)
    if written is not None and "virial" in keys.stress.lower():  # with this name the values are virials in eV
        written, virials = None, written if virials is None else virials
    stress = None if written is None else tensor(written, keys.stress)
    if virials is None:
        return stress
    if not atoms.pbc.all():
        raise SettingsError(
            f"{keys.virials} on a structure that is not periodic in three directions: it has no volume; "
            "write Lattice and pbc, or remove the virials"
        )
    volume = abs(float(np.linalg.det(atoms.cell.array)))
    if volume < 1e-6:
        raise SettingsError(f"{keys.virials} on a structure whose cell has no volume; correct its Lattice")
    of_virials: Array = -tensor(virials, keys.virials) / volume
    if stress is not None:
        _agree(stress, of_virials, keys)
    return of_virials if stress is None else stress


def _agree(stress: Array, of_virials: Array, keys: LabelKeys) -> None:
    """Raise SettingsError if stress and virials of one structure differ."""
    allowed = AGREE * max(float(abs(stress).max()), float(abs(of_virials).max())) + 1e-6
    if abs(stress - of_virials).max() <= allowed:
        return
    how = "differ"
    if abs(stress + of_virials).max() <= allowed:
        how = "have opposite signs"
    raise SettingsError(
        f"{keys.stress} and {keys.virials} {how} (expected stress = −virials/V, eV/Å³ and eV); keep the right "
        "one"
    )


# ---------------------------------------------------------------- numbers


def _believable(labelled: LabelledFrame) -> None:
    """Apply the limits for labels of the reference. Raises SettingsError."""
    try:
        check_label(labelled.frame, labelled.label)
    except LabelError as error:
        raise SettingsError(f"{error.reason}; correct or remove this structure") from error


def finite_structure(atoms: Atoms) -> None:
    """Check that positions, cell, moments and charges are finite. Raises SettingsError."""
    _finite("the position of atom {}", atoms.positions)
    _finite("lattice vector {}", atoms.cell.array)
    for name, what in (("initial_magmoms", "magnetic moment"), ("initial_charges", "charge")):
        if atoms.has(name):
            _finite(f"the initial {what} of atom {{}}", atoms.arrays[name])
    for name in ("charge", "total_charge", "spin", "total_spin"):
        if isinstance(value := atoms.info.get(name), float):
            _finite(f"{name}", [value])


def _finite_label(labelled: LabelledFrame) -> None:
    """Check that energy, forces and stress are finite. Raises SettingsError."""
    label = labelled.label
    _finite("the energy", [label.energy], np.inf)
    _finite("a force of atom {}", label.forces, np.inf)
    if label.stress is not None:
        _finite("the stress", [label.stress.ravel()], np.inf)


def _finite(what: str, values: Any, limit: float = LARGEST) -> None:
    """Check rows of numbers; `{}` in `what` is replaced by the number of the row, from 1. Raises SettingsError."""
    rows = np.asarray(values, float)
    rows = rows.reshape(len(rows), rows[:1].size)
    wrong = np.flatnonzero(~(abs(rows) < limit).all(axis=1))
    if len(wrong):
        row = rows[wrong[0]]
        kind = "NaN" if np.isnan(row).any() else "infinite" if np.isinf(row).any() else "absurdly large"
        raise SettingsError(f"{what.format(wrong[0] + 1)} is {kind}; correct or remove this structure")


def reader_error(error: Exception) -> str:
    """The message for an exception of ASE's readers; they raise KeyError for unknown symbols."""
    if isinstance(error, KeyError) and len(str(error.args[0])) < 4:
        return f"{error} is not an element"
    return f"{type(error).__name__}: {error}"


# ---------------------------------------------------------------- writing


def to_extxyz(frames: Iterable[LabelledFrame]) -> str:
    """Extended XYZ with the label names that MACE reads; names that look like numbers are read back as text."""
    return "".join(structure_text(labelled.to_atoms()) for labelled in frames)


def structure_text(atoms: Atoms, results: bool = False) -> str:
    """Extended XYZ of one structure; text in its header is read back as text, also if it looks like a number."""
    import ase.io

    atoms.info = {k: _quoted(v) if isinstance(v, str) else v for k, v in atoms.info.items()}
    buffer = io.StringIO()
    ase.io.write(buffer, atoms, format="extxyz", write_results=results)
    return buffer.getvalue()


def _quoted(text: str) -> str:
    """`001`, `F` and `1e3` as JSON, which ASE reads back as text; other text unchanged.

    >>> _quoted("001"), _quoted("water")
    ('_JSON "001"', 'water')
    """
    from ase.io.extxyz import key_val_dict_to_str, key_val_str_to_dict

    # ASE's reader drops single backslashes, and its writer does not double them
    escaped = text.replace("\\", "\\\\")
    if text and "\n" not in text and "\r" not in text:
        read = key_val_str_to_dict(key_val_dict_to_str({"k": escaped})).get("k")
        if isinstance(read, str) and read == text:
            return escaped
    return "_JSON " + json.dumps(text).replace("\\", "\\\\")
