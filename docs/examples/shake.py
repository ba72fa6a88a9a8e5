"""Twenty shaken copies of geometry.in for `aims-PAX-recalc shaken.xyz`."""

from pathlib import Path

import ase.io
import numpy as np
import shaken  # noqa: F401  (registers the sampler)

from aims_pax.samplers import sampler
from aims_pax.systems import read_systems

systems = read_systems(Path("geometry.in"))
samples = sampler("shaken", sigma=0.08).sample(systems, 20, np.random.default_rng(1))
ase.io.write("shaken.xyz", [s.frame.to_atoms() for s in samples])
