"""Whether the energies and forces of a dataset belong together, from pairs of structures that are near each other.

Between two near structures the energy changes by −½ (F₁ + F₂)·(R₂ − R₁), exactly so in a harmonic potential. Energies
in hartree beside forces in eV/Å, gradients in place of forces, or energies per atom are on another line, and recognised
without a reference.

>>> mismatch(1 / 51.4221 * 27.2114)
'the forces are per bohr'
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aims_pax.frames import Array, LabelledFrame

FAR = 1.7  # factor between the two from which they do not belong together
ALIKE = 0.9  # cosine of the two, from which a factor between them means something
NEAR = 0.2  # Å: largest displacement of an atom within a pair
PAIRS = 4  # at least
MOST = 200  # structures of one kind that are compared
UNITS = {  # changes of energy by the forces, as a factor of those of the energies
    "the forces are per bohr": 0.529177,
    "the forces are in hartree/bohr": 1 / 51.4221,
    "the forces are in hartree/Å": 1 / 27.2114,
    "the forces are in kcal/mol/Å": 23.0605,
    "the energies are in kcal/mol": 1 / 23.0605,
    "the energies are in hartree": 27.2114,
    "the energies are in rydberg": 13.6057,
}
SAME_UNIT = 0.1  # relative


def mismatch(factor: float) -> str | None:
    """What is wrong when forces give `factor` times the change of the energy; None if nothing is."""
    if 1 / FAR < factor < FAR:
        return None
    if factor < 0:
        return "the forces have the opposite sign, that of gradients"
    known = (name for name, unit in UNITS.items() if abs(factor / unit - 1) < SAME_UNIT)
    return next(known, f"the changes of energy by the forces are {factor:.3g} times those of the energies")


def refusal(frames: Sequence[LabelledFrame]) -> str | None:
    """Why the energies and forces of these structures do not belong together, or None, also where that is unknown."""
    kinds: dict[object, list[LabelledFrame]] = {}
    for f in frames:
        kinds.setdefault((f.frame.constitution, f.frame.cell.tobytes()), []).append(f)
    pairs = [pair for kind in kinds.values() for pair in _near(kind[:MOST])]
    if len(pairs) < PAIRS:
        return None
    work, energy = np.array(pairs).T
    norms = float(np.linalg.norm(work) * np.linalg.norm(energy))
    product = float(work @ energy)
    if norms == 0 or abs(product) < ALIKE * norms:
        return None
    wrong = mismatch(product / float(energy @ energy))
    if wrong is None:
        return None
    return (
        f"energies and forces do not belong together, from {len(pairs)} pairs of near structures: {wrong}; expected "
        "energies in eV and forces −dE/dx in eV/Å"
    )


def _near(frames: Sequence[LabelledFrame]) -> list[tuple[float, float]]:
    """(change of energy by the forces, change of energy) eV between each structure and the nearest of the others."""
    found = []
    positions = np.array([f.frame.positions for f in frames])
    for i, one in enumerate(frames[:-1]):
        steps = _nearest_images(positions[i + 1 :] - positions[i], one)
        largest = np.linalg.norm(steps, axis=2).max(axis=1)
        largest[largest == 0] = np.inf  # the same structure
        k = int(largest.argmin())
        if largest[k] < NEAR:
            other = frames[i + 1 + k]
            mean = (one.label.forces + other.label.forces) / 2
            found.append((-float((mean * steps[k]).sum()), other.label.energy - one.label.energy))
    return found


def _nearest_images(steps: Array, labelled: LabelledFrame) -> Array:
    """Displacements (F, N, 3) Å modulo lattice vectors."""
    frame = labelled.frame
    if not frame.periodic:
        return steps
    shifts = np.rint(steps @ np.linalg.inv(frame.cell))
    return np.asarray(steps - shifts @ frame.cell)
