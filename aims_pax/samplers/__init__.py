"""Where structures come from, each source with the same shape: `sample(systems, n, rng)`.

Stand-alone: molecules in a box and finite clusters of them, supercells, filters. (Phonons, relaxation and MD are in
modules of their own: `samplers.phonons`, `samplers.relax`, `samplers.foundation_md`.)

>>> import numpy as np
>>> from aims_pax.frames import Frame
>>> from aims_pax.samplers import Rule, choose, detect, least_volume, repeated
>>> water = Frame([8, 1, 1], [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]], 3.1 * np.eye(3), True)
>>> box, _ = repeated(water, least_volume(water.cell, radius=6.0))
>>> set(detect(box).formulas)
{'H2O'}
>>> [len(cluster.cut(box)) for cluster in choose(box, Rule(n_molecules=(1, 2, 4)))]
[3, 6, 12]
"""

from aims_pax.samplers.base import Sample, Sampler, SamplingError, sampler
from aims_pax.samplers.clusters import Rule, choose, finite_clusters
from aims_pax.samplers.molecules import detect
from aims_pax.samplers.supercell import least_volume, repeated

__all__ = [
    "Rule",
    "Sample",
    "Sampler",
    "SamplingError",
    "choose",
    "detect",
    "finite_clusters",
    "least_volume",
    "repeated",
    "sampler",
]
