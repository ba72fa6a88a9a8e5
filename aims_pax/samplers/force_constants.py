"""Harmonic force constants of any structure with any potential, by finite displacements with phonopy.

Φ_ia,jb = ∂²E/∂u_ia ∂u_jb from displacements of 0.01 Å, reduced by symmetry, evaluated in batches; the acoustic sum
rule is imposed. A molecule or a slab is put into a box only to find its symmetry; its forces are those of the open
system.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from aims_pax.errors import SetupError
from aims_pax.frames import Array, Frame
from aims_pax.potential import Potential
from aims_pax.sampler import SamplingError
from aims_pax.samplers.similarity import full_cell
from aims_pax.samplers.supercell import Integers, repeated

ROOM = 30.0  # Å between periodic copies of an open system in its box
AT_ONCE = 32  # displaced supercells in one batch
ONE: Integers = np.eye(3, dtype=np.int64)


def crystals(what: str) -> Any:
    """The package phonopy. Raises SetupError naming the extra to install."""
    try:
        import phonopy
    except ImportError as error:
        raise SetupError(f"{what} needs phonopy ({error}): pip install 'aims-pax[crystals]'") from error
    return phonopy


@dataclass(frozen=True, eq=False)
class ForceConstants:
    """Force constants of a crystal, from a supercell of it.

    frame: one cell, n atoms. matrix: (3, 3) whole numbers; the supercell's vectors are the rows of matrix·cell,
    as in ASE (the transpose of phonopy's). supercell: its N atoms in phonopy's order. values: (n, N, 3, 3) eV/Å², from
    each atom of the cell to each of the supercell; (N, N, 3, 3) is accepted and reduced.
    """

    frame: Frame
    matrix: Integers
    supercell: Frame
    values: Array

    @cached_property
    def phonopy(self) -> Any:
        """A phonopy object with these force constants, for phonopy's own analyses."""
        made = _phonopy(self.frame, self.matrix)
        values = np.array(self.values)
        if len(values) != len(self.frame):
            values = values[made.primitive.p2s_map]
        if values.shape != (len(self.frame), len(self.supercell), 3, 3):
            raise SamplingError(
                f"force constants of shape {self.values.shape} do not fit the structure stored with them"
            )
        made.force_constants = values
        return made

    @cached_property
    def _dynamical(self) -> Any:
        return self.phonopy.dynamical_matrix  # stored: phonopy may drop its own reference

    def dynamical(self, q: Array) -> NDArray[np.complex128]:
        """(3n, 3n) D(q) in eV/(Å² u), q in fractions of the reciprocal vectors; waves exp(2πi q·R), R the cell."""
        made = self._dynamical
        made.run(np.asarray(q, float))
        D = made.dynamical_matrix
        along = self.frame.positions @ np.linalg.inv(full_cell(_box(self.frame).cell, np.ones(3, bool)))
        phase = np.repeat(np.exp(2j * np.pi * along @ q), 3)  # phonopy's waves are exp(2πi q·r), r the atom
        return np.asarray(phase[:, None] * D * phase.conj())


def force_constants(
    frame: Frame,
    potential: Potential,
    matrix: Integers = ONE,
    distance: float = 0.01,
    check: Callable[[], None] = lambda: None,
) -> ForceConstants:
    """Force constants of a structure in the supercell matrix·cell.

    distance: Å. Residual forces of the structure cancel between +u and −u (both computed, or one found by symmetry).
    check: called between batches.
    Raises SamplingError for a supercell of an open system, SetupError without phonopy.
    """
    matrix = np.asarray(matrix, np.int64)
    if not frame.periodic and (matrix != ONE).any():
        raise SamplingError(f"{frame.formula}: only structures periodic in three directions have supercells")
    plain = replace(frame, fixed=None)
    made = _phonopy(plain, matrix)
    made.generate_displacements(distance=distance)
    base = _as_frame(made.supercell, plain, matrix)
    at_rest = made.supercell.positions  # wrapped into the cell, unlike those of an open system
    moved = [s.positions - at_rest for s in made.supercells_with_displacements]
    wanted = [base.moved(base.positions + u) for u in moved]
    forces = []
    for start in range(0, len(wanted), AT_ONCE):
        check()
        forces += [label.forces for label in potential.labels(wanted[start : start + AT_ONCE])]
    if not np.isfinite(forces).all():
        raise SamplingError(f"{frame.formula}: the potential gave forces that are not finite")
    made.forces = np.array(forces)
    made.produce_force_constants(calculate_full_force_constants=False, show_drift=False)
    made.symmetrize_force_constants(show_drift=False)
    return ForceConstants(frame, matrix, base, np.array(made.force_constants))


def _phonopy(frame: Frame, matrix: Integers) -> Any:
    phonopy = crystals("phonon sampling")
    from phonopy.structure.atoms import PhonopyAtoms

    box = _box(frame)
    cell = PhonopyAtoms(
        symbols=[chemical_symbols[z] for z in frame.numbers],
        masses=frame.all_masses,
        cell=box.cell,
        positions=box.positions,
    )
    unlike = frame.moments is not None or frame.charges is not None  # atoms of one element that differ
    with warnings.catch_warnings():  # a skewed supercell has fewer symmetries: only more evaluations
        warnings.filterwarnings("ignore", "Warning: Point group symmetries", UserWarning)
        return phonopy.Phonopy(
            cell, supercell_matrix=matrix.T, primitive_matrix=np.eye(3), is_symmetry=not unlike, log_level=0
        )


def _box(frame: Frame) -> Frame:
    """The frame, periodic in three directions: open directions get vectors that keep copies far apart."""
    if frame.periodic:
        return frame
    cell = full_cell(frame.cell, frame.pbc)
    along = frame.positions @ np.linalg.inv(cell)
    room = np.where(frame.pbc, 1.0, np.ptp(along, axis=0) + ROOM)
    return replace(frame, cell=cell * room[:, None], pbc=np.ones(3, bool), charge=None, spin=None)


def _as_frame(supercell: Any, frame: Frame, matrix: Integers) -> Frame:
    """Phonopy's supercell with all other properties of the frame; positions of an open system are unchanged."""
    grown, shifts = repeated(frame, matrix)
    if len(shifts) == 1:
        return grown if (matrix == ONE).all() else grown.moved(supercell.positions)
    n, c = len(frame), len(shifts)
    # phonopy: atom after atom
    order = np.array([k * n + a for a, k in itertools.product(range(n), range(c))])
    return grown.chosen(order, supercell.positions)
