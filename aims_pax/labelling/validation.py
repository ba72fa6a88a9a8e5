"""Checks of a structure before its calculation, and of the label after it.

Limits are generous: they reject structures that no force field should be trained on, never merely strained ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from aims_pax.errors import Unphysical
from aims_pax.frames import Array, Frame
from aims_pax.label_limits import check_label, constrained

__all__ = ["check_geometry", "check_label", "constrained"]

CLOSEST = 0.5  # × the sum of covalent radii: nuclei nearer than that overlap
LONGEST_VECTOR = 1e3  # Å, a lattice vector beyond it belongs to an exploded cell
SMALL = 200  # atoms of a molecule up to which all distances take less time than a search for neighbours
THINNEST_CELL = 0.5  # Å between opposite faces; no atom fits into less


def check_geometry(frame: Frame) -> None:
    """Raise Unphysical, with the reason, for a structure that should not be computed."""
    reason = _finite(frame) or _cell(frame) or _overlap(frame)
    if reason:
        raise Unphysical(f"not calculated: {reason}")


def _finite(frame: Frame) -> str | None:
    if len(frame) == 0:
        return "there are no atoms"
    if not np.isfinite(frame.positions).all():
        return f"position of atom {int(np.argwhere(~np.isfinite(frame.positions))[0, 0])} is not a number"
    if not np.isfinite(frame.cell).all():
        return "the cell is not a number"
    return None


def _cell(frame: Frame) -> str | None:
    if not frame.pbc.any():
        return None
    lengths = np.linalg.norm(frame.cell, axis=1)
    if lengths.max() > LONGEST_VECTOR:
        return f"a lattice vector is {lengths.max():.3g} Å long; limit {LONGEST_VECTOR:g} Å"
    if frame.periodic:
        volume = abs(np.linalg.det(frame.cell))
        faces = [np.linalg.norm(np.cross(frame.cell[i - 2], frame.cell[i - 1])) for i in range(3)]
        heights = volume / np.maximum(faces, 1e-12)
    else:  # a slab or a wire may leave out the vectors along which it does not repeat
        heights = lengths[frame.pbc]
    if heights.min() < THINNEST_CELL:
        return f"the cell is {heights.min():.3g} Å thin; limit {THINNEST_CELL:g} Å"
    return None


def _overlap(frame: Frame) -> str | None:
    from ase.data import chemical_symbols, covalent_radii

    radii = covalent_radii[frame.numbers]
    i, j, d = overlapping_pairs(frame, CLOSEST * radii)
    if len(d) == 0:
        return None
    worst = int(np.argmin(d / (radii[i] + radii[j])))
    a, b = int(i[worst]), int(j[worst])
    pair = f"{chemical_symbols[frame.numbers[a]]}{a} and {chemical_symbols[frame.numbers[b]]}{b}"
    limit = CLOSEST * (radii[a] + radii[b])
    return f"atoms {pair} are {d[worst]:.3f} Å apart; limit {limit:.3f} Å"


def overlapping_pairs(frame: Frame, radii: Array) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    """Pairs of atoms (indices, indices, distances in Å) that are nearer than the sum of their radii; images count."""
    if not frame.pbc.any() and len(frame) <= SMALL:
        d = np.linalg.norm(frame.positions[:, None] - frame.positions, axis=2)
        i, j = np.nonzero(np.triu(d < radii[:, None] + radii, 1))
        return i, j, d[i, j]
    from ase.neighborlist import primitive_neighbor_list

    i, j, d = primitive_neighbor_list(
        "ijd", frame.pbc, _complete(frame), frame.positions, radii, self_interaction=False
    )
    return i, j, d


def _complete(frame: Frame) -> Array:
    """(3, 3) Å: the cell, with missing vectors (of a molecule, wire or slab) filled in."""
    from ase.geometry import complete_cell

    return np.asarray(complete_cell(frame.cell))
