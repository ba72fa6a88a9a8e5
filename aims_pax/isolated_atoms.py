"""Isolated atoms in their ground states: their energies are the zero of energy of a force field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from aims_pax.errors import SettingsError
from aims_pax.frames import Frame

# Unpaired electrons where ASE's table has the wrong parity or no value. Np, Es, Lr: ground terms of the NIST Atomic
# Spectra Database (6L, 4I, 2P). Ce: 3H of 4f 5d 6s2 by Hund's rule; the observed 1G is not a single determinant.
UNPAIRED = {58: 2, 93: 5, 99: 3, 103: 1}
# config_type of isolated atoms in files of MACE and of GAP, in any case
MARKS = (
    "isolatedatom",
    "isolated_atom",
)


class StructureOfFile(Protocol):
    """A frame and the further entries of its header, labelled or not."""

    @property
    def frame(self) -> Frame: ...

    @property
    def origin(self) -> Mapping[str, Any]: ...


def is_lone(labelled: StructureOfFile) -> bool:
    """Whether the frame is one atom or ion alone: without a cell, or in one and marked as isolated."""
    return len(labelled.frame) == 1 and (is_marked(labelled) or not labelled.frame.pbc.any())


def is_marked(labelled: StructureOfFile) -> bool:
    """Whether its file says that it is an isolated atom."""
    return marks_isolated(labelled.origin)


def marks_isolated(header: Mapping[str, Any]) -> bool:
    """Whether the entries of a header mark an isolated atom."""
    return str(header.get("config_type", "")).lower() in MARKS


def is_isolated_atom(labelled: StructureOfFile) -> bool:
    """Whether the frame is an isolated neutral atom: its energy is the zero of energy of its element."""
    return is_lone(labelled) and not labelled.frame.charge


def isolated(number: int) -> Frame:
    """One atom without a cell, with the multiplicity 2S+1 of its ground state and a moment of 2S μB.

    Raises SettingsError for an element with unknown ground state.
    """
    unpaired = unpaired_electrons(number)
    moments = np.array([float(unpaired)])
    return Frame(np.array([number]), np.zeros((1, 3)), spin=unpaired + 1, moments=moments)


def in_ground_state(frame: Frame) -> Frame:
    """An isolated atom with the moment of its multiplicity; of its ground state, if it has none.

    Raises SettingsError for an element with unknown ground state.
    """
    spin = isolated(int(frame.numbers[0])).spin if frame.spin is None else frame.spin
    assert spin is not None
    return replace(frame, spin=spin, moments=np.array([spin - 1.0]), zero_moments=None)


def unpaired_electrons(number: int) -> int:
    """2S of the ground state of the neutral atom: ASE's table of ground-state moments, corrected where it is wrong.

    >>> [unpaired_electrons(z) for z in (1, 2, 6, 7, 24)]
    [1, 0, 2, 3, 6]
    """
    from ase.data import chemical_symbols
    from ase.data import ground_state_magnetic_moments as known

    if number in UNPAIRED:
        return UNPAIRED[number]
    if not 0 < number < len(known) or not np.isfinite(known[number]):
        raise SettingsError(
            f"the ground state of an isolated {chemical_symbols[number]} atom is unknown; set its energy in "
            "ARCHITECTURE.atomic_energies of mace.yaml"
        )
    return int(known[number])
