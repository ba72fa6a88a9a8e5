"""Samplers: sources of structures, all with the same method `sample(systems, n, rng)`.

The kinds of samplers for the section SAMPLERS are in `kinds/`, one file each; shared code is here. Example without a
run: filtered rattled trees, mixed with phonons; `MDSampler` or your own sampler work in the same way.

>>> import numpy as np
>>> from ase.calculators.emt import EMT
>>> from aims_pax.frames import Frame
>>> from aims_pax.potential import CalculatorPotential
>>> from aims_pax.samplers import Mixture, Part, PhononSampler, RattleTreeSampler, duplicates, sanity
>>> from aims_pax.systems import System
>>> cu4 = System("cu4", Frame([29] * 4, [[0, 0, 0], [2.4, 0, 0], [1.2, 2.1, 0], [1.2, 0.7, 2.0]]))
>>> emt = CalculatorPotential(EMT)
>>> trees = RattleTreeSampler(emt, temperature=500, sigma_range=(0.05, 0.2), continues=True)
>>> phonons = PhononSampler(emt, temperature=300)
>>> new = Part("trees", trees, 0.6, (sanity(), duplicates(by="descriptor")))
>>> mixture = Mixture([new, Part("phonons", phonons, 0.4)])
>>> samples = list(mixture.sample([cu4], 5, np.random.default_rng(1)))
>>> [sample.origin["sampler"] for sample in samples]
['rattle_tree', 'rattle_tree', 'rattle_tree', 'phonons', 'phonons']

Molecular dynamics, one trajectory of each system, all in one batch:

>>> from aims_pax.samplers import MDSampler, equilibration, filtered
>>> from aims_pax.settings.md import MDSettings
>>> md = MDSampler(emt, lambda system: MDSettings(stat_ensemble="NVT", temperature=300), skip_steps=5)
>>> [s.origin["step"] for s in filtered(md.sample([cu4], 4, np.random.default_rng(1)), equilibration(skip=2))]
[15, 20]

Molecules in a box and finite clusters of them:

>>> from aims_pax.samplers import Rule, choose_clusters, detect, least_volume, repeated
>>> water = Frame([8, 1, 1], [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]], 3.1 * np.eye(3), True)
>>> box, _ = repeated(water, least_volume(water.cell, radius=6.0))
>>> set(detect(box).formulas)
{'H2O'}
>>> [len(cluster.cut(box)) for cluster in choose_clusters(box, Rule(n_molecules=(1, 2, 4)))]
[3, 6, 12]
"""

from __future__ import annotations

import importlib
from typing import Any

from aims_pax.sampler import Sample, Sampler, SamplingError, Stateful
from aims_pax.samplers.base import sampler
from aims_pax.samplers.clusters import Rule, choose_clusters
from aims_pax.samplers.descriptors import farthest_points, radial
from aims_pax.samplers.filter_kinds.duplicates import duplicates
from aims_pax.samplers.filter_kinds.equilibration import equilibration
from aims_pax.samplers.filter_kinds.farthest_points import farthest_filter
from aims_pax.samplers.filter_kinds.finite_clusters import finite_clusters
from aims_pax.samplers.filter_kinds.sanity import sanity
from aims_pax.samplers.filters import filtered
from aims_pax.samplers.mixture import Mixture, Part
from aims_pax.samplers.molecules import detect
from aims_pax.samplers.supercell import least_volume, repeated

_LATER = {  # these import torch or ASE's optimisers: loaded on first use
    "AbInitioMDSampler": "kinds.aimd",
    "MDSampler": "kinds.md",
    "PhononSampler": "kinds.phonons",
    "RattleTreeSampler": "kinds.rattle_tree",
}

__all__ = [
    "AbInitioMDSampler",
    "MDSampler",
    "Mixture",
    "Part",
    "PhononSampler",
    "RattleTreeSampler",
    "Rule",
    "Sample",
    "Sampler",
    "SamplingError",
    "Stateful",
    "choose_clusters",
    "detect",
    "duplicates",
    "equilibration",
    "farthest_filter",
    "farthest_points",
    "filtered",
    "finite_clusters",
    "least_volume",
    "radial",
    "repeated",
    "sampler",
    "sanity",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
