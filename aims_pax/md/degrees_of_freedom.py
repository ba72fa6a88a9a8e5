"""The number of degrees of freedom with kinetic energy, for all thermostats, barostats and temperatures.

    N_f = 3N − fixed components − 3 where the centre of mass is at rest,   ⟨2K⟩ = N_f k_B T

Random initial momenta include a momentum of the centre of mass, which NVE, Langevin dynamics and velocity rescaling do
not remove: 3N. Barostats remove it, and so do other programs whose momenta are continued here: 3N − 3. A single atom
is its own centre of mass and has three.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

AT_REST = 1e-6  # share of the kinetic energy: far above rounding (1e-9), far below that of thermal momenta


def degrees(n: int, fixed: NDArray[np.bool_] | None, *, at_rest: bool) -> int:
    """N_f of n atoms. fixed: (N, 3) bool. at_rest: whether their centre of mass does not move."""
    if fixed is not None and fixed.any():  # fixed atoms: the momentum of the centre of mass is not conserved
        return 3 * n - int(fixed.sum())
    return 3 * n - 3 if at_rest and n > 1 else 3 * n


def centre_at_rest(momenta: NDArray[np.float64], masses: NDArray[np.float64]) -> bool:
    """Whether the centre of mass has no kinetic energy: P²/2M against Σ p²/2m. momenta: (N, 3). masses: (N,)."""
    whole = float((momenta.sum(0) ** 2).sum() / masses.sum())
    parts = float((momenta**2 / masses[:, None]).sum())
    return parts > 0 and whole <= AT_REST * parts
