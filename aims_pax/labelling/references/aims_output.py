"""Reads the label from aims.out, or raises the reason why there is none.

A label is accepted when the SCF cycle has converged, the program has ended normally, and the output belongs to the
requested calculation: these atoms in this order at these positions, this number of electrons and spin channels,
one structure only, forces without relaxation constraints. Everything else raises an error with the reason.

Energy: `Electronic free energy`, from which the forces derive. Stress: ASE's sign and unit (eV/Å³, positive under
tension), which is also how FHI-aims prints it; the pressure printed below it must be −1/3 of its trace.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from aims_pax.errors import LabelError, Mismatch, NotConverged, NotFinite, SetupError, Truncated, WrongShape
from aims_pax.fortran import fortran_number
from aims_pax.frames import Array, Frame, Label

if TYPE_CHECKING:
    from aims_pax.settings.control_in import Control

GOODBYE = "Have a nice day."
BEGIN = "Invoking FHI-aims"
UNCONVERGED = ("SELF-CONSISTENCY CYCLE DID NOT CONVERGE", "scf_solver: SCF cycle not converged")
CONVERGED = "Self-consistency cycle converged"
SCF_BEGINS = "Begin self-consistency loop"
OTHER_STRUCTURES = (  # only relaxations, dynamics and i-PI's socket print these
    "Geometry optimization: Attempting to predict improved coordinates",
    "Updated atomic structure:",
    "Atomic structure (and velocities) as used in the preceding time step",
    "Atomic structure that was used in the preceding time step of the wrapper",
)
PLACE = 1e-2  # Å: far above the rounding of printed positions, far below the difference of two structures
ELECTRONS = 1e-2  # printed with three decimals
MOMENT = 2e-2  # μB, printed with two decimals
PRESSURE = 1e-5  # eV/Å³, printed with eight decimals

_energy = re.compile(r"\| Electronic free energy\s*:\s*(\S+)\s+eV")
_forces = re.compile(r"Total atomic forces(.*)")
_atom = re.compile(r"\|\s*[\d*]+:\s+Species\s+(\S+)\s+(\S+)\s+(\S+)\s+(\S+)")
_row = re.compile(r"\|\s+([xyz])\s+(\S+)\s+(\S+)\s+(\S+)\s+\|")
_moment = re.compile(r"\| N = N_up - N_down[^:]*:\s*(\S+)")


def looks_like_output(text: str) -> bool:
    """Whether a text was printed by FHI-aims, finished or not."""
    return any(
        mark in text
        for mark in (BEGIN, SCF_BEGINS, "Begin self-consistency iteration", "| Number of atoms  ")
    )


def converged(text: str) -> bool:
    """Whether no SCF cycle has failed. FHI-aims may end normally after a failure (postprocess_anyway)."""
    return not any(mark.lower() in text.lower() for mark in UNCONVERGED)


def last_calculation(text: str) -> str:
    """The output of the last start, where a launch command has started the program again after a failure.

    Raises SetupError when several have ended normally: the right one cannot be known.
    """
    if text.count(GOODBYE) > 1 and text.count(BEGIN) > 1:
        raise SetupError(
            f"CLUSTER.launch_str: the output holds {text.count(GOODBYE)} finished calculations of FHI-aims; expected "
            "one. Is the program built without MPI and started by mpirun or srun on every core? Or is it started twice?"
        )
    begins = text.rfind(BEGIN)
    return text if begins < 0 else text[text.rfind("\n", 0, begins) + 1 :]


def read_label(
    text: str,
    frame: Frame,
    stress: bool,
    control: Control | None = None,
    nuclei: Mapping[str, float] | None = None,
) -> Label:
    """The label in the output of a calculation that has ended.

    control: the input, to compare charge and spin. nuclei: charge of a species' nucleus where it is not the atomic
    number (pseudo-hydrogen of 1.25 e). stress: whether a stress is required.
    Raises Truncated, NotConverged, WrongShape, NotFinite or Mismatch (the output is of another calculation).
    """
    lines = text.splitlines()
    try:
        _check_atoms(lines, frame)
        _check_one_structure(lines)
        if control is not None:
            _check_electrons(lines, frame, control, nuclei or {})
            _check_spin(lines, control)
        _check_converged(lines)
        at, energy = _last(lines, _energy, "no 'Electronic free energy' in aims.out")
        forces = _read_forces(lines[at + 1 :], len(frame))
        tensor = _read_stress(lines) if stress else None
        return Label(_number(energy), forces, tensor)
    except LabelError:
        raise
    except (ValueError, LookupError) as error:
        raise Truncated(f"aims.out is garbled: {error}") from error


def _check_atoms(lines: Sequence[str], frame: Frame) -> None:
    """Check that FHI-aims has read the frame's atoms, in this order, at these positions."""
    statement = next((line for line in lines if "| Number of atoms  " in line), None)
    if statement is None:
        raise Truncated("aims.out lacks lines it should have: the number of atoms")
    n = int(statement.split(":")[1].split()[0])
    if n != len(frame):
        raise WrongShape(f"aims.out is about {n} atoms, the frame has {len(frame)}")
    title = next((i for i, line in enumerate(lines) if "Atomic structure:" in line), None)
    atoms = [] if title is None else [_atom.search(line) for line in lines[title + 2 : title + 2 + n]]
    if len(atoms) < n or None in atoms:
        raise Truncated("aims.out lacks lines it should have: the atomic structure")
    found = [a for a in atoms if a is not None]
    symbols = [re.match(r"[A-Za-z]+", a[1]) for a in found]
    for i, (symbol, expected) in enumerate(zip(symbols, _symbols(frame), strict=True), 1):
        if symbol is None or symbol[0] != expected:
            raise Mismatch(f"aims.out is of another structure: atom {i} is {found[i - 1][1]}, not {expected}")
    places = np.array([[_number(x) for x in a.groups()[1:]] for a in found])
    away = _distances(places - frame.positions, frame)
    if not (away < PLACE).all():
        i = int(np.nanargmax(away))
        raise Mismatch(
            f"aims.out is of another structure: atom {i + 1} is {away[i]:.3g} Å away from its position"
        )


def _distances(difference: Array, frame: Frame) -> Array:
    """(N,) Å, modulo lattice vectors: FHI-aims may print an atom in a neighbouring cell."""
    if frame.pbc.any():
        # for FHI-aims, a slab repeats in three directions
        steps = np.rint(difference @ np.linalg.inv(frame.cell))
        difference = difference - steps @ frame.cell
    return np.asarray(np.linalg.norm(difference, axis=1))


def _symbols(frame: Frame) -> list[str]:
    from ase.data import chemical_symbols

    return [chemical_symbols[z] for z in frame.numbers]


def _check_one_structure(lines: Sequence[str]) -> None:
    for line in lines:
        if any(mark in line for mark in OTHER_STRUCTURES):
            raise Mismatch(
                f"aims.out holds several structures ({line.strip().rstrip(':')!r}), a label is one; remove relaxation, "
                "dynamics and socket from control.in and from what launch_str starts"
            )


def _check_electrons(
    lines: Sequence[str], frame: Frame, control: Control, nuclei: Mapping[str, float]
) -> None:
    """Check the number of electrons against the requested charge."""
    statement = next((line for line in lines if "and a total of" in line and "electrons" in line), None)
    if statement is None or "force_n_electrons" in control:
        return
    electrons, charge = _number(statement.split()[-2]), control.number("charge") or 0.0
    neutral = float(frame.numbers.sum())
    given = sum(
        nuclei.get(symbol, float(z)) for symbol, z in zip(_symbols(frame), frame.numbers, strict=True)
    )
    if min(abs(electrons - n + charge) for n in (neutral, given)) > ELECTRONS:
        raise Mismatch(
            f"aims.out is about {electrons:g} electrons; with charge {charge:g} there are {neutral - charge:g}"
        )


def _check_spin(lines: Sequence[str], control: Control) -> None:
    """Check spin channels and moment against control.in."""
    statement = next((line for line in lines if "| Number of spin channels" in line), None)
    spin = (control.get("spin") or "none").split()[0]
    if statement is not None and spin in ("none", "collinear"):
        channels, expected = int(statement.split(":")[1]), 2 if spin == "collinear" else 1
        if channels != expected:
            raise Mismatch(f"aims.out is about {channels} spin channels; spin {spin} has {expected}")
    moment = control.number("fixed_spin_moment") if spin == "collinear" else None
    printed = [found[1] for line in lines if (found := _moment.search(line))]
    if moment is not None and printed and abs(abs(_number(printed[-1])) - abs(moment)) > MOMENT:
        raise Mismatch(f"aims.out ends with a moment of {printed[-1]} μB; fixed_spin_moment is {moment:g}")


def _check_converged(lines: Sequence[str]) -> None:
    """Check that the last SCF cycle has converged. FHI-aims itself may have restarted earlier cycles."""
    for line in reversed(lines):
        if CONVERGED in line:
            return
        if SCF_BEGINS in line:
            break
    raise NotConverged("aims.out does not say that its last self-consistency cycle has converged")


def _read_forces(lines: Sequence[str], n: int) -> Array:
    """(N, 3) eV/Å below the last energy. Raises Mismatch for forces after constraints."""
    title = next((i for i, line in enumerate(lines) if _forces.search(line)), None)
    if title is None:
        raise WrongShape("no forces in aims.out")
    if "constraint" in lines[title]:
        raise Mismatch(
            "the forces in aims.out are after relaxation constraints, zero on fixed atoms; a label needs raw forces: "
            "use no constrain_relaxation and no empty site in the input of FHI-aims"
        )
    if "[eV/Ang]" not in lines[title]:
        raise Mismatch(f"forces in aims.out in a unit that is not eV/Å: {lines[title].strip()}")
    rows = lines[title + 1 : title + 1 + n]
    forces = np.full((n, 3), np.nan)
    for i, row in enumerate(rows):
        words = row.replace("|", " ").split()
        number = words[0] if words else ""
        if len(words) != 4 or not (number == str(i + 1) or set(number) == {"*"}):
            raise ValueError(f"{row.strip()!r} where the force on atom {i + 1} should be")
        forces[i] = [_number(x) for x in words[1:]]
    if len(rows) < n:
        raise Truncated(f"aims.out ends within the forces: {len(rows)} of {n}")
    return forces


def _read_stress(lines: Sequence[str]) -> Array:
    """(3, 3) eV/Å³: the last analytical stress, else the numerical one."""
    for title in ("Analytical stress tensor - Symmetrized", "Numerical stress tensor"):
        for at in range(len(lines) - 1, -1, -1):
            if title in lines[at]:
                return _tensor(lines[at : at + 14])
    raise WrongShape(
        "no stress in aims.out; if this functional has no analytical stress, "
        "write compute_numerical_stress .true. into control.in"
    )


def _tensor(lines: Sequence[str]) -> Array:
    if not any("[eV/A**3]" in line for line in lines[:3]):
        raise Mismatch("stress in aims.out in a unit that is not eV/Å³")
    rows: dict[str, list[float]] = {}
    for line in lines:
        if found := _row.search(line):
            rows.setdefault(found[1], [_number(x) for x in found.groups()[1:]])
    tensor = np.array([rows[axis] for axis in "xyz"])
    statement = next((line for line in lines if "Pressure:" in line), None)
    if statement is not None:
        pressure, expected = _number(statement.split("Pressure:")[1].split()[0]), -np.trace(tensor) / 3
        if abs(pressure - expected) > PRESSURE + 1e-4 * abs(expected):
            raise Mismatch(
                f"the pressure {pressure:g} eV/Å³ in aims.out is not that of its stress, {expected:g}"
            )
    return np.asarray((tensor + tensor.T) / 2)


def _last(lines: Sequence[str], pattern: re.Pattern[str], missing: str) -> tuple[int, str]:
    for i in range(len(lines) - 1, -1, -1):
        if found := pattern.search(lines[i]):
            return i, found[1]
    raise WrongShape(missing)


def _number(word: str) -> float:
    """A printed number; NaN stays NaN. Raises NotFinite for stars, ValueError for other text."""
    if "*" in word:
        raise NotFinite("aims.out holds numbers too large to be printed (***)")
    if word.lower().lstrip("+-") in ("nan", "inf", "infinity"):
        return math.nan
    return fortran_number(word)


def out_of_space(text: str) -> str | None:
    """The line with an error message about a full or read-only disk, or None."""
    found: Any = re.search(
        r".*(no space left on device|disk quota exceeded|read-only file system).*", text, re.I
    )
    return None if found is None else found[0].strip()
