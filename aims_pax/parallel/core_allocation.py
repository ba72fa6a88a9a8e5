"""Number of processes in active learning: those that train the members, and those that move trajectories."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aims_pax.models.kinds import kind_of_run
from aims_pax.schedulers.usable_cores import cores

if TYPE_CHECKING:
    from aims_pax.settings import Settings
    from aims_pax.settings.cluster import DynamicsProfile, TrainingProfile


def processes(settings: Settings, members: int) -> int:
    """Number of training processes: as set, else one per device or core. 0: training alternates with MD.

    A kind of model that cannot train in other processes trains in this one.
    """
    if not kind_of_run(settings).trains_in_processes:
        return 0
    profile = settings.cluster.training
    devices = None if profile is None else profile.devices
    if settings.cluster.executor == "inline" or (settings.model.device != "cpu" and not devices):
        return 0
    if profile is not None and profile.workers is not None:
        return min(profile.workers, members)
    own = cores()
    places = len(devices) if devices else max(1, own // _threads(profile)) if own > 1 else 0
    return min(places, members)


def moving_processes(settings: Settings, members: int, trajectories: int) -> int:
    """Number of processes that move trajectories: as set, else one per core that training does not use."""
    if not kind_of_run(settings).moves_in_processes:
        return 1
    if settings.cluster.executor == "inline" or settings.model.device != "cpu":
        return 1
    profile = settings.cluster.dynamics
    if profile is not None and profile.workers is not None:
        return min(profile.workers, trajectories)
    left = cores() - processes(settings, members) * _threads(settings.cluster.training)
    return max(1, min(left // _threads(profile), trajectories))


def _threads(profile: TrainingProfile | DynamicsProfile | None) -> int:
    """Threads of each process."""
    return 1 if profile is None else profile.threads
