"""A few steps downhill for many structures at once, to remove strain that sampling leaves; no minimum is sought.

FIRE (Bitzek et al., PRL 97, 170201) with the displacement of an atom capped at each step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from aims_pax.frames import Array, Frame
from aims_pax.potential import Potential

STEP = 0.1  # Å, largest displacement of an atom in one step
START, LARGEST = 0.1, 0.3  # time steps, for unit mass in eV, Å


def relax_a_little(
    frames: Sequence[Frame], potential: Potential, steps: int, check: Callable[[], None] = lambda: None
) -> list[Frame]:
    """The frames after this many steps, fixed components unmoved. check: called before every evaluation."""
    current, n = list(frames), len(frames)
    v: list[Array] = [np.zeros((len(f), 3)) for f in frames]
    dt, alpha, downhill = np.full(n, START), np.full(n, 0.1), np.zeros(n, int)
    for _ in range(steps):
        check()
        for k, label in enumerate(potential.labels(current)):
            force = np.array(label.forces)
            if not np.isfinite(force).all():
                continue
            if current[k].fixed is not None:
                force[current[k].fixed] = 0.0
            power = float((force * v[k]).sum())
            if power > 0:
                size = np.linalg.norm(v[k]) / max(float(np.linalg.norm(force)), 1e-12)
                v[k] = (1 - alpha[k]) * v[k] + alpha[k] * force * size
                downhill[k] += 1
                if downhill[k] > 5:
                    dt[k], alpha[k] = min(1.1 * dt[k], LARGEST), 0.99 * alpha[k]
            else:
                v[k] = np.zeros_like(force)
                dt[k], alpha[k], downhill[k] = (0.5 * dt[k] if downhill[k] else dt[k]), 0.1, 0
            v[k] = v[k] + dt[k] * force
            move = dt[k] * v[k]
            longest = float(np.linalg.norm(move, axis=1).max())
            current[k] = current[k].moved(current[k].positions + move * min(1.0, STEP / max(longest, 1e-12)))
    return current
