"""Crystals of molecules for tests: a water box, a skewed crystal, and everything wrapped at random."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import molecule
from scipy.spatial.transform import Rotation

from aims_pax.frames import Frame


def water_box(side: int = 4, spacing: float = 3.1, seed: int = 0) -> Frame:
    """side³ turned waters on a cubic lattice, unwrapped, molecule after molecule."""
    rng = np.random.default_rng(seed)
    water = molecule("H2O").positions
    water -= water.mean(0)
    places = np.indices((side,) * 3).reshape(3, -1).T * spacing
    R = [water @ Rotation.random(random_state=rng).as_matrix().T + place for place in places]
    cell = side * spacing * np.eye(3)
    return Frame([8, 1, 1] * len(places), np.concatenate(R), cell, True)


def skewed(repeat: tuple[int, int, int] = (2, 2, 1), seed: int = 0) -> Frame:
    """Ammonia in a strongly skewed triclinic cell, two molecules a cell."""
    rng = np.random.default_rng(seed)
    cell = np.array([[5.0, 0.0, 0.0], [2.2, 4.6, 0.0], [-2.1, 1.9, 7.4]])
    ammonia = molecule("NH3")
    ammonia.positions -= ammonia.positions.mean(0)
    atoms = Atoms(cell=cell, pbc=True)
    for place in ([0.0, 0.0, 0.0], [0.5, 0.5, 0.5]):
        turned = ammonia.copy()
        turned.positions = turned.positions @ Rotation.random(random_state=rng).as_matrix().T + place @ cell
        atoms += turned
    return Frame.from_atoms(atoms * repeat)


def shuffled(frame: Frame, seed: int, far: int = 3) -> Frame:
    """Every atom moved by random lattice vectors of its own."""
    steps = np.random.default_rng(seed).integers(-far, far + 1, (len(frame), 3))
    return frame.moved(frame.positions + np.where(frame.pbc, steps, 0) @ frame.cell)
