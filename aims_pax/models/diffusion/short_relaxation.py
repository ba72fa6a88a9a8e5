"""A few steps downhill for many structures at once, to remove strain that sampling leaves; no minimum is sought.

FIRE (Bitzek et al., PRL 97, 170201) with the displacement of an atom capped at each step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np
from ase.calculators.calculator import CalculatorError

from aims_pax.errors import LabelError
from aims_pax.frames import Array, Frame, Label
from aims_pax.potential import Potential

log = logging.getLogger(__name__)

STEP = 0.1  # Å, largest displacement of an atom in one step
START, LARGEST = 0.1, 0.3  # time steps, for unit mass in eV, Å


def relax_a_little(
    frames: Sequence[Frame], potential: Potential, steps: int, check: Callable[[], None] = lambda: None
) -> list[Frame | None]:
    """The frames after this many steps, fixed components unmoved; None for those that the potential fails on.

    check: called before every evaluation.
    """
    current, n = list(frames), len(frames)
    whole = list(range(n))
    v: list[Array] = [np.zeros((len(f), 3)) for f in frames]
    dt, alpha, downhill = np.full(n, START), np.full(n, 0.1), np.zeros(n, int)
    for _ in range(steps):
        check()
        labels = labels_or_none(potential, [current[k] for k in whole])
        known = [(k, label) for k, label in zip(whole, labels, strict=True) if label is not None]
        whole = [k for k, _ in known]
        for k, label in known:
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
    return [frame if k in whole else None for k, frame in enumerate(current)]


def labels_or_none(potential: Potential, frames: Sequence[Frame]) -> list[Label | None]:
    """The labels of one evaluation; when it fails, those of the frames one by one, and None for the failed ones."""
    try:
        return [*potential.labels(frames)] if frames else []
    except (LabelError, CalculatorError) as error:
        if len(frames) == 1:
            log.debug("%s: %s: %s", frames[0].formula, type(error).__name__, error)
            return [None]
        return [label for frame in frames for label in labels_or_none(potential, [frame])]
