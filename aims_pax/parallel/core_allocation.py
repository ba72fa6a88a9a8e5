"""Which cores do what while a run explores: processes that train the members, and processes that move trajectories."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aims_pax.processes import cores

if TYPE_CHECKING:
    from aims_pax.settings import Settings


def processes(settings: Settings, members: int) -> int:
    """Training processes; 0: in turns with MD. As many as were asked for, else one a device or core."""
    profile = settings.cluster.training
    devices = None if profile is None else profile.devices
    if settings.cluster.executor == "inline" or (settings.mace.misc.device != "cpu" and not devices):
        return 0
    if profile is not None and profile.workers is not None:
        return min(profile.workers, members)
    own = cores()
    places = len(devices) if devices else own if own > 1 else 0
    return min(places, members)


def moving_processes(settings: Settings, members: int, trajectories: int) -> int:
    """Processes that move trajectories; as many as were asked for, else one a core that training leaves."""
    if settings.cluster.executor == "inline" or settings.mace.misc.device != "cpu":
        return 1
    profile = settings.cluster.dynamics
    if profile is not None and profile.workers is not None:
        return min(profile.workers, trajectories)
    left = cores() - processes(settings, members)
    return max(1, min(left, trajectories))
