"""Directions in which the energy of a structure cannot change: translations, and rotations of a molecule.

Forces of a reference have small components along them (grids, incomplete SCF). A process that is invariant must not
count them as observations: its likelihood would see rows of zeros and choose a length scale that is far too short.
"""

from __future__ import annotations

import numpy as np

from aims_pax.frames import Array, Frame

RANK = 1e-6  # relative singular value below which directions depend on each other (linear molecules)


def external_directions(frame: Frame) -> Array:
    """(3A, K) orthonormal: K = 3 for periodic structures, 6 for molecules, 5 for linear ones, 3 for an atom."""
    n = len(frame)
    shifts = np.tile(np.eye(3), (n, 1)) / np.sqrt(n)
    if frame.pbc.any():
        return np.asarray(shifts)
    r = frame.positions - frame.positions.mean(0)
    turns = np.stack([np.cross(axis, r).ravel() for axis in np.eye(3)], 1)
    u, s, _ = np.linalg.svd(turns, full_matrices=False)
    return np.concatenate([shifts, u[:, s > RANK * max(s[0], RANK)]], 1)


def internal_directions(frame: Frame) -> Array:
    """(3A, 3A − K) orthonormal, the directions orthogonal to `external_directions`."""
    outer = external_directions(frame)
    q, _ = np.linalg.qr(outer, mode="complete")
    return np.asarray(q[:, outer.shape[1] :])


def internal_forces(frame: Frame, forces: Array) -> Array:
    """(A, 3) the forces without their components along `external_directions`."""
    outer = external_directions(frame)
    flat = np.ravel(forces)
    return np.asarray((flat - outer @ (outer.T @ flat)).reshape(-1, 3))
