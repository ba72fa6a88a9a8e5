"""The input of FHI-aims: control.in and geometry.in of one frame, and the species defaults of its elements.

Every keyword of the user's control.in stays as it was written; what must change is listed in `control_for`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aims_pax.charge_and_spin import check_electrons, default_initial_moment
from aims_pax.errors import SettingsError, SetupError, Unsupported
from aims_pax.fortran import fortran_number
from aims_pax.frames import Frame
from aims_pax.settings.control_in import MOVES_ATOMS

if TYPE_CHECKING:
    from aims_pax.settings.control_in import Control

log = logging.getLogger(__name__)

PERIODIC_ONLY = ("k_grid", "k_offset", "k_grid_density", "k_points_external", "compute_analytical_stress",
                 "compute_numerical_stress", "compute_heat_flux", "symmetry_reduced_k_grid")  # fmt: skip

# keywords about the electrons of a molecule or crystal, or without meaning for a single atom
NOT_OF_ATOMS = ("charge", "spin", "fixed_spin_moment", "multiplicity", "default_initial_moment", "output", "cube",
                "use_dipole_correction", "set_vacuum_level", "evaluate_work_function", "external_pressure")  # fmt: skip


def control_for_atoms(control: Control) -> Control:
    """The same method for isolated atoms, which have their own spin: without charge, moments, k-points, stress."""
    return control.without(*NOT_OF_ATOMS, *PERIODIC_ONLY, *MOVES_ATOMS)


def control_for(control: Control, frame: Frame, stress: bool) -> Control:
    """The control.in of one frame: the user's, with the changes that a label and this frame need.

    Relaxation and MD are removed; forces are requested; stress and k-points only for periodic frames.
    The frame's charge overrides `charge`; its multiplicity 2S+1 becomes `fixed_spin_moment` 2S.
    """
    moving = [k for k in MOVES_ATOMS if control.get(k) is not None]
    if moving:
        _once(f"control.in: {', '.join(moving)} ignored: a label is a single point")
    control = control.without(*moving).replaced("compute_forces", ".true.")
    if not frame.pbc.any():
        control = control.without(*PERIODIC_ONLY)
    else:
        _check_periodic(control, frame)
        if stress and frame.periodic and control.get("compute_numerical_stress") is None:
            control = control.replaced("compute_analytical_stress", ".true.")
    if frame.charge is not None:
        written = control.get("charge")
        if written is not None and control.number("charge") != frame.charge:
            _once(f"control.in: charge {written} overridden by the geometry's charge {frame.charge:g}")
        if written is not None or frame.charge != 0:
            control = control.replaced("charge", repr(float(frame.charge)))
    if frame.spin is not None:
        _check_electrons(control, frame)
        control = _with_spin(control, frame)
    return control


def _check_electrons(control: Control, frame: Frame) -> None:
    """Raise Unsupported for a multiplicity that is impossible with this number of electrons."""
    try:
        check_electrons(frame, control.number("charge"))
    except SettingsError as error:
        raise Unsupported(f"{frame.formula}: {error}") from error


def _with_spin(control: Control, frame: Frame) -> Control:
    """Multiplicity 2S+1 → fixed_spin_moment 2S; a singlet without `spin collinear` needs no keyword.

    `multiplicity` is removed: FHI-aims obeys it rather than `fixed_spin_moment`.
    """
    assert frame.spin is not None
    control = control.without("multiplicity")
    unpaired = frame.spin - 1
    polarised = control.collinear
    if not polarised and unpaired == 0:
        return control.without("fixed_spin_moment")
    if not polarised and (control.get("spin") or "none").split()[0] != "none":
        raise Unsupported(
            f"{frame.formula} has multiplicity {frame.spin}, which FHI-aims can fix only with spin collinear; "
            f"control.in has spin {control.get('spin')}: change it, or remove the multiplicity"
        )
    if not polarised:
        _once("control.in: spin collinear added for geometries with unpaired electrons")
        control = control.replaced("spin", "collinear")
        if frame.moments is None and control.get("default_initial_moment") is None:
            control = control.replaced("default_initial_moment", default_initial_moment(frame))
    written = control.get("fixed_spin_moment")
    if written is not None and control.number("fixed_spin_moment") != unpaired:
        _once(
            f"control.in: fixed_spin_moment {written} overridden by the geometry's multiplicity {frame.spin}"
        )
    return control.replaced("fixed_spin_moment", repr(float(unpaired)))


def _check_periodic(control: Control, frame: Frame) -> None:
    if abs(np.linalg.det(frame.cell)) < 1e-3:
        raise SetupError(
            "FHI-aims repeats a structure in three directions or none: give a slab or wire three lattice "
            f"vectors, with vacuum ({frame.formula})"
        )
    if all(control.get(k) is None for k in ("k_grid", "k_grid_density", "k_points_external")):
        raise SetupError(f"control.in has no k_grid, but {frame.formula} is periodic: add one")


def geometry_text(frame: Frame) -> str:
    """geometry.in: lattice, other statements, atoms with 8 decimals, initial charges and moments.

    No constraints: FHI-aims would print zero forces on constrained atoms, in single points too, but a label needs
    the raw forces. The integrator applies the constraints.
    """
    from ase.data import chemical_symbols

    lines = [f"# frame {frame.id}"]
    if frame.pbc.any():
        lines += ["lattice_vector " + _vector(v) for v in frame.cell]
    lines += frame.statements
    for i, (z, position) in enumerate(zip(frame.numbers, frame.positions, strict=True)):
        lines.append(f"atom {_vector(position)} {chemical_symbols[z]}")
        if frame.charges is not None and frame.charges[i]:
            lines.append(f"    initial_charge {frame.charges[i]:.8f}")
        stated = frame.zero_moments is not None and frame.zero_moments[i]
        if frame.moments is not None and (frame.moments[i] or stated):
            lines.append(f"    initial_moment {frame.moments[i]:.8f}")
    return "\n".join(lines) + "\n"


def species_text(species_dir: Path, frame: Frame) -> str:
    """The species defaults of the elements of a frame. Raises SetupError naming the missing ones."""
    files = species_files(species_dir, {int(z) for z in frame.numbers})
    return "\n".join(file.read_text(errors="replace") for file in files)


def species_files(species_dir: Path, numbers: Iterable[int]) -> list[Path]:
    """`{Z:02d}_{El}_default` of these elements. Raises SetupError naming the missing ones."""
    from ase.data import chemical_symbols

    names = [f"{z:02d}_{chemical_symbols[z]}_default" for z in sorted(numbers)]
    missing = [name for name in names if not (species_dir / name).is_file()]
    if missing:
        raise SetupError(f"species_dir: {', '.join(missing)} missing in {species_dir}")
    return [species_dir / name for name in names]


def nuclear_charges(species: str) -> dict[str, float]:
    """{species: charge of its nucleus} in species defaults; unreadable lines are left out."""
    found: dict[str, float] = {}
    name = None
    for line in species.splitlines():
        words = line.partition("#")[0].split()
        if len(words) > 1 and words[0] == "species":
            name = words[1]
        elif len(words) > 1 and words[0] == "nucleus" and name is not None:
            with suppress(ValueError):
                found[name] = fortran_number(words[1])
    return found


def _vector(v: Any) -> str:
    return " ".join(f"{x:.8f}" for x in v)


_warned: set[str] = set()


def _once(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        log.warning(message)
