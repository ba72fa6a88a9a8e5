"""Number of processes in active learning: those that train the members, and those that move trajectories."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from aims_pax.fork_server import fork_server
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


def moving_processes(settings: Settings, trajectories: int) -> int:
    """Number of processes that move trajectories: as set, else one per core.

    Training has priority on the cores that both use (`dynamics.LOWER`), and leaves them most of the time.
    """
    if not kind_of_run(settings).moves_in_processes:
        return 1
    if settings.cluster.executor == "inline" or settings.model.device != "cpu":
        return 1
    profile = settings.cluster.dynamics
    if profile is not None and profile.workers is not None:
        return min(profile.workers, trajectories)
    return max(1, min(cores() // _threads(profile), trajectories))


def calculator_processes(settings: Settings) -> int:
    """Number of processes that move trajectories with cheap calculators, which compute on the CPU: as set, else one
    per core.
    """
    profile = settings.cluster.dynamics
    if settings.cluster.executor == "inline":
        return 1
    if profile is not None and profile.workers is not None:
        return profile.workers
    return max(1, cores() // _threads(profile))


@contextmanager
def prepared_processes(settings: Settings) -> Iterator[None]:
    """Inside the block these processes are forks of one that imports the modules they need, from now on.

    Does nothing where a run has less than two of them, or uses GPUs, which a fork cannot.
    """
    members, al = settings.ensemble_size, settings.active_learning
    n = processes(settings, members)
    if al is not None:
        moving = moving_processes(settings, al.num_trajectories)
        n += moving if moving > 1 else 0
    several = n > 1 and settings.model.device == "cpu"
    with fork_server(kind_of_run(settings).slow_imports if several else ()):
        yield


def _threads(profile: TrainingProfile | DynamicsProfile | None) -> int:
    """Threads of each process."""
    return 1 if profile is None else profile.threads
