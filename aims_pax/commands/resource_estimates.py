"""Estimates the disk space of a run from settings and geometries; each kind of model estimates its own memory."""

from __future__ import annotations

import math
from collections.abc import Sequence

from aims_pax.models.kinds import kind_of_run
from aims_pax.settings import Settings
from aims_pax.systems import System, elements


def estimate_disk(
    settings: Settings, systems: Sequence[System], calls: Sequence[int | None], steps: int | None
) -> list[float | None]:
    """Labels and datasets (about 500 bytes per atom), snapshots and models: [least, most] MB, None: no limit.

    calls: [least, most] calculations. steps: MD steps of all trajectories, None: no limit.
    """
    zs = len(elements(s.frame for s in systems))
    fixed = 3 * kind_of_run(settings).estimate_snapshot(settings, zs)
    mean = sum(len(s.frame) for s in systems) / len(systems)
    every = settings.misc.save_trajectories
    written = 0.0 if not every else math.inf if steps is None else steps / every * 120 * mean
    return [
        None if n is None or math.isinf(w) else _mega(fixed + n * (2000 + 500 * mean) + w)
        for n, w in zip(calls, (0.0, written), strict=True)
    ]


def _mega(size: float) -> float:
    return float(f"{size / 1e6:.2g}")
