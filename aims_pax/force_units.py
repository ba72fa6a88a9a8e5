"""Recognise forces in another unit than eV/Å by comparing them with forces that are in eV/Å."""

from __future__ import annotations

import numpy as np

from aims_pax.frames import Array

UNITS = {  # factors of eV/Å; only those far from 1, which no difference between methods explains
    "hartree/bohr": 1 / 51.4221,
    "hartree/Å or rydberg/bohr": 1 / 26.45,
    "kcal/mol/Å": 23.0605,
    "kJ/mol/Å": 96.4853,
    "meV/Å": 1000.0,
    "gradients of the energy, with the opposite sign,": -1.0,
}
NEAR = 0.25  # relative distance of the measured factor from one of them
ALIKE = 0.7  # cosine between the forces from which a factor means something


def other_unit(forces: Array, others: Array) -> str | None:
    """The unit in which `forces` (any shape) are like `others` in eV/Å (same shape), or None.

    >>> other_unit(np.array([0.0195, -0.04]), np.array([1.0, -2.1]))
    'hartree/bohr'
    """
    norms = float(np.linalg.norm(forces) * np.linalg.norm(others))
    product = float((forces * others).sum())
    if not np.isfinite(norms) or norms == 0 or abs(product) < ALIKE * norms:
        return None
    factor = product / float((others * others).sum())
    near = {name: abs(np.log(factor / unit)) for name, unit in UNITS.items() if factor / unit > 0}
    if not near:
        return None
    best = min(near, key=lambda name: near[name])
    return best if near[best] < NEAR else None
