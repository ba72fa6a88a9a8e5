"""Small systems with labels from ASE's EMT and Lennard-Jones calculators."""

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.cluster import Icosahedron

from aims_pax.frames import Frame, LabelledFrame
from aims_pax.potential import calculate


def labelled(atoms, calculator=EMT):
    frame = Frame.from_atoms(atoms)
    return LabelledFrame(frame, calculate(frame, calculator()))


def rattled(atoms, count, sigma, seed, calculator=EMT):
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        moved = atoms.copy()
        moved.positions += rng.normal(0, sigma, moved.positions.shape)
        out.append(labelled(moved, calculator))
    return out


def cu13(count, sigma=0.05, seed=0):
    atoms = Icosahedron("Cu", 2)
    atoms.positions *= 0.95
    return rattled(atoms, count, sigma, seed)


def copper(count, sigma=0.08, seed=0):
    return rattled(bulk("Cu", cubic=True), count, sigma, seed)


def alloy(count, sigma=0.08, seed=0):
    atoms = bulk("Cu", cubic=True)
    atoms.numbers[0] = 79
    return rattled(atoms, count, sigma, seed)


def h2(lengths):
    atoms = [Atoms("H2", [[-r / 2, 0, 0], [r / 2, 0, 0]]) for r in lengths]
    return [labelled(a, LennardJones) for a in atoms]


def trimer(count, seed=0):
    """Molecules of one carbon and two hydrogen atoms of a Lennard-Jones potential, in random orders."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        r = np.array([[0, 0, 0], [1.15, 0, 0], [-0.4, 1.1, 0]]) + rng.normal(0, 0.03, (3, 3))
        order = rng.permutation(3)
        out.append(labelled(Atoms(np.array([6, 1, 1])[order], r[order]), LennardJones))
    return out
