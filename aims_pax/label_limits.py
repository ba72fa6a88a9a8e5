"""Limits for labels, and for cells, from any source: the reference, a given file, or the run's own data.

Limits are generous: they reject labels that no force field should be trained on, but no strained real structure.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from aims_pax.errors import NotFinite, Unphysical, WrongShape
from aims_pax.frames import Array, Frame, Label
from aims_pax.tensors import symmetric

LARGEST_FORCE = 1e3  # eV/Å; H2 squeezed to a quarter of its bond length is at about 400
PARALLEL = 1e-6  # smallest singular value of unit vectors that are independent
LARGEST_STRESS = 1e2  # eV/Å³ = 16 000 GPa, fifty times the centre of the Earth
ENERGY_OFFSET = 1e3  # eV per atom, added to the largest possible electronic energy of an atom
# eV by atomic number: twice the energy of a neutral atom after Thomas and Fermi, E = −20.9 eV · Z^(7/3), which is
# within 20 % of every all-electron result
DEEPEST = 2 * 20.9 * np.arange(256) ** (7 / 3) + ENERGY_OFFSET


def check_label(frame: Frame, label: Label) -> None:
    """Raise WrongShape, NotFinite or Unphysical, with the reason, for a label that must not be in a dataset."""
    n = len(frame)
    if label.forces.shape != (n, 3):
        raise WrongShape(f"forces have shape {label.forces.shape}, expected ({n}, 3)")
    if not label.finite:
        parts: dict[str, Any] = {"energy": label.energy, "forces": label.forces, "stress": label.stress}
        names = [k for k, v in parts.items() if v is not None and not np.isfinite(v).all()]
        raise NotFinite(f"NaN or infinity in {', '.join(names)}")
    _plausible(frame, label)


def constrained(frame: Frame, label: Label) -> bool:
    """Whether all fixed components have a force of exactly zero, which FHI-aims and ASE give for constrained atoms."""
    return frame.fixed is not None and not label.forces[frame.fixed].any()


def cell_refusal(cell: Array, pbc: NDArray[np.bool_]) -> str | None:
    """Why nothing can repeat along lattice vectors (3, 3) Å, or None. Missing ones of a slab or wire may be zero."""
    lengths = np.linalg.norm(cell, axis=1)
    if not pbc.any():
        return None
    if not lengths[pbc].all():
        return "a lattice vector along which the structure repeats is zero; give it, or fewer periodic directions"
    own = cell[lengths > 0] / lengths[lengths > 0, None]
    if np.linalg.svd(own, compute_uv=False)[-1] < PARALLEL:
        return "the lattice vectors lie in one plane or line, so they span no cell; correct them"
    return None


def _plausible(frame: Frame, label: Label) -> None:
    force = np.sqrt((label.forces**2).sum(axis=1))
    if len(force) and force.max() > LARGEST_FORCE:
        atom = int(force.argmax())
        raise Unphysical(f"force {force[atom]:.3g} eV/Å on atom {atom}; limit {LARGEST_FORCE:g} eV/Å")
    deepest = float(DEEPEST[frame.numbers].sum())
    highest = ENERGY_OFFSET * len(frame)
    if not -deepest <= label.energy <= highest:
        raise Unphysical(f"energy {label.energy:.6g} eV is outside [{-deepest:.3g}, {highest:.3g}] eV")
    if label.stress is not None and abs(label.stress).max() > LARGEST_STRESS:
        raise Unphysical(f"stress {abs(label.stress).max():.3g} eV/Å³; limit {LARGEST_STRESS:g} eV/Å³")
    if label.stress is not None and not symmetric(label.stress):
        written = " ".join(f"{v:g}" for v in label.stress.ravel())
        raise Unphysical(f"the stress is not symmetric: {written} eV/Å³")
