"""How many CPU cores this process may use: limited by affinity, by the CPU quota of its cgroup, and by its job."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from aims_pax.schedulers.registry import own_scheduler


def cores(environment: Mapping[str, str] | None = None, system: Path = Path("/")) -> int:
    """Cores this process may use: the smallest limit of affinity, cgroup quota and job.

    system: the folder that contains proc and sys.
    """
    environment = os.environ if environment is None else environment
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits = [own, *cpu_quotas(system)]
    scheduler = own_scheduler(environment)
    allotted = None if scheduler is None else scheduler.allotted_cores(environment)
    limits += [] if allotted is None else [allotted]
    return max(1, int(min(limits)))


def cpu_quotas(system: Path = Path("/")) -> list[float]:
    """CPU quotas (in cores) of this process's cgroup and its parent groups, in cgroup versions 1 and 2."""
    try:
        lines = (system / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    root, found = system / "sys/fs/cgroup", []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":  # version 2
            found += [_share(*_words(folder / "cpu.max")) for folder in _around(root, path)]
        elif "cpu" in controllers.split(","):
            for mount in (root / controllers, root / "cpu"):
                for folder in _around(mount, path):
                    quota, period = _words(folder / "cpu.cfs_quota_us"), _words(folder / "cpu.cfs_period_us")
                    found.append(_share(*quota, *period))
    return [share for share in found if share > 0]


def _around(mount: Path, path: str) -> list[Path]:
    """A cgroup and its parents; inside a container its path may be that of the host."""
    inner = mount / path.lstrip("/")
    return [p for p in (inner, *inner.parents) if p == mount or mount in p.parents]


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _share(*words: str) -> float:
    """Quota divided by period; 0 if there is no limit: `max`, -1, no such file."""
    if len(words) != 2 or not all(word.isdigit() for word in words) or int(words[1]) == 0:
        return 0.0
    return int(words[0]) / int(words[1])
