"""300 frames of Ar13 at 15 K, Lennard-Jones, from six independent trajectories: argon.xyz."""

import ase.io
import numpy as np
from ase import Atoms, units
from ase.calculators.lj import LennardJones
from ase.cluster import Icosahedron
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

frames = []
for seed in range(6):
    rng = np.random.default_rng(seed)
    atoms = Atoms("Ar13", Icosahedron("Ar", 2, latticeconstant=5.4).positions)
    atoms.calc = LennardJones(epsilon=0.0104, sigma=3.4, rc=12.0)
    MaxwellBoltzmannDistribution(atoms, temperature_K=15, rng=rng)
    dynamics = Langevin(atoms, 10 * units.fs, temperature_K=15, friction=0.01 / units.fs, rng=rng)
    dynamics.run(200)
    for _ in range(50):
        dynamics.run(25)
        frames.append(Atoms(atoms.numbers, atoms.positions))
ase.io.write("argon.xyz", frames)
