"""The list of schedulers: the built-in ones, and those of other packages in the entry points `aims_pax.schedulers`.

An entry point names a subclass of `Scheduler`; nothing else is needed. If one cannot be loaded, the reason is stored
and reported when a settings file uses it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from aims_pax.schedulers.base import Scheduler

GROUP = "aims_pax.schedulers"
BUILT_IN = {  # `own_scheduler` tries them in this order
    "slurm": "aims_pax.schedulers.slurm:Slurm",
    "pbs": "aims_pax.schedulers.pbs:PBSPro",
    "lsf": "aims_pax.schedulers.lsf:LSF",
    "sge": "aims_pax.schedulers.grid_engine:GridEngine",
}
UNNAMED = "slurm"  # for older claims and runs, whose files do not name their scheduler
RESERVED = {"local", "worker", "launch"}  # worker_str and launch_str are existing keys


def known_schedulers() -> Mapping[str, Scheduler]:
    """CLUSTER.type → its scheduler."""
    return _loaded()[0]


def failed_schedulers() -> Mapping[str, str]:
    """Name of an entry point → why it cannot be used."""
    return _loaded()[1]


def find_scheduler(name: str | None) -> Scheduler | None:
    """The scheduler with this name (None: a file without a name); None if it is not known."""
    return known_schedulers().get(name or UNNAMED)


def own_scheduler(environment: Mapping[str, str] = os.environ) -> Scheduler | None:
    """The scheduler in whose job this process runs, or None."""
    return next((s for s in known_schedulers().values() if s.own_job(environment)), None)


def own_job(environment: Mapping[str, str] = os.environ) -> str | None:
    """The id of the job that this process runs in, or None."""
    scheduler = own_scheduler(environment)
    return None if scheduler is None else scheduler.own_job(environment)


@cache
def _loaded() -> tuple[dict[str, Scheduler], dict[str, str]]:
    found: dict[str, Scheduler] = {}
    failed: dict[str, str] = {}
    for value in BUILT_IN.values():
        module, _, name = value.partition(":")
        scheduler = getattr(import_module(module), name)()
        found[scheduler.name] = scheduler
    for point in sorted(entry_points(group=GROUP), key=lambda p: p.name):
        try:
            scheduler = _usable(point, found)
        except Exception as error:  # importing another package may raise any exception
            failed[point.name] = f"{point.value}: {type(error).__name__}: {error}"
        else:
            found[scheduler.name] = scheduler
    return found, failed


def _usable(point: EntryPoint, found: Mapping[str, Scheduler]) -> Scheduler:
    """The scheduler of an entry point. Raises TypeError, ValueError, or what its import raises."""
    loaded = point.load()
    scheduler = loaded() if isinstance(loaded, type) else loaded
    if not isinstance(scheduler, Scheduler):
        raise TypeError(f"expected a subclass of {Scheduler.__module__}.Scheduler, got {loaded!r}")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", scheduler.name) or scheduler.name in RESERVED | found.keys():
        raise ValueError(
            f"name {scheduler.name!r}: expected letters, digits and _, and none of {sorted(found)}"
        )
    return scheduler
