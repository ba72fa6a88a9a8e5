"""How much memory evaluations of the models may take, and how much they take: both known before the first of them.

    available   what Linux says is free, or less where a cgroup (of a job, a container) allows less; a GPU's free memory
    limit       MISC.memory_limit; else half of what was available when first asked, as a power of two, so that a
                repeated run cuts its work alike
    need        a·N + e·E bytes for N atoms with E edges: measured on a few atoms (`measured`), known of symmetrix

Processes that compute side by side are each given a share of the limit (`allow`).
"""

from __future__ import annotations

import logging
import math
import os
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

log = logging.getLogger(__name__)

SHARE = 0.5  # of what is available: calculations, snapshots and the rest of the machine need memory, too
FOUND = (
    1.5  # times what tensors take: operations' own workspace and the allocator's gaps (1.05 to 1.45 measured)
)
GRAPH = 300  # bytes an edge: neighbour list with its skin, vectors, and their copies while they are made
ENVIRONMENT = "AIMS_PAX_MEMORY"  # bytes: the share of a process that another one has started
GB = 1e9


@dataclass(frozen=True)
class Need:
    """Bytes an atom and an edge."""

    atom: float
    edge: float

    def of(self, atoms: float, edges: float) -> float:
        """Bytes of a structure, its neighbour list included."""
        return self.atom * atoms + (self.edge + GRAPH) * edges


@dataclass
class _Limits:
    """Bytes by device; `written`: by the user, not measured."""

    by_device: dict[str, float] = field(default_factory=dict)
    written: bool = False


_limits = _Limits()


def limit(device: str = "cpu") -> float:
    """Bytes that evaluations of this process may take on a device."""
    kind = _kind(device)
    if kind not in _limits.by_device:
        share = os.environ.get(ENVIRONMENT)
        found = float(share) if share and kind == "cpu" else power_of_two(SHARE * available_memory(kind))
        _limits.by_device[kind] = found
    return _limits.by_device[kind]


def allow(size: float, device: str = "cpu", written: bool = False) -> None:
    """From now on this process may take so many bytes. written: as the user's MISC.memory_limit says."""
    _limits.by_device[_kind(device)] = size
    _limits.written = written


def forget_measurement() -> None:
    """Ask the machine again."""
    _limits.by_device.clear()
    _limits.written = False


def is_set_by_user() -> bool:
    """Whether the limit was set by the user."""
    return _limits.written


def power_of_two(size: float) -> float:
    """The power of two at or below a size."""
    return 2.0 ** math.floor(math.log2(size)) if 1 <= size < math.inf else size


def available_memory(device: str = "cpu") -> float:
    """Bytes that can be had on a device now; inf where nothing tells."""
    if device.startswith("cuda"):
        free, _ = torch.cuda.mem_get_info(device)
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(free + held)
    if _kind(device) != "cpu":
        return math.inf
    return min(_machine(Path("/proc/meminfo")), _cgroups(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")))


def _machine(path: Path) -> float:
    for line in _lines(path):
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return float(value.split()[0]) * 1024
    return math.inf


def _cgroups(own: Path, root: Path) -> float:
    """What the control groups of this process leave: limits less what cannot be dropped, of all levels."""
    left = math.inf
    for line in _lines(own):
        _, kinds, path = line.split(":", 2)
        if kinds and "memory" not in kinds.split(","):
            continue
        names = ("memory.max", "memory.current", "inactive_file") if not kinds else _VERSION_1
        top = root if not kinds else root / "memory"
        folder = top / path.strip("/")
        for level in (folder, *folder.parents):
            left = min(left, _level(level, *names))
            if level == top:
                break
    return left


_VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _level(folder: Path, most: str, now: str, droppable: str) -> float:
    try:
        written, used = (folder / most).read_text().strip(), float((folder / now).read_text())
    except OSError:
        return math.inf
    if written == "max":
        return math.inf
    cache = [float(x.split()[1]) for x in _lines(folder / "memory.stat") if x.split()[:1] == [droppable]]
    return max(0.0, float(written) - used + sum(cache))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _kind(device: str) -> str:
    return "cpu" if device.startswith("cpu") else device


# ---------------------------------------------------------------- what an evaluation takes


def measured(evaluate: Callable[[int, int], Any], neighbours: float, device: str = "cpu") -> Need:
    """What an evaluation needs, from three small ones. evaluate(N, K): of N atoms with K neighbours each.

    neighbours: as many as the structures at hand have.
    """
    K = max(4, min(96, round(neighbours / 4) * 4))
    N = max(
        12, min(64, 1200 // K)
    )  # so few atoms that it takes a moment, so many that all operations have work
    evaluate(N, K // 2)  # what is made once

    def taken(n: int, k: int) -> float:
        return peak(lambda: evaluate(n, k), device)

    some, more, twice = taken(N, K // 2), taken(N, K), taken(2 * N, K)
    edge = max(0.0, (more - some) / (N * (K - K // 2)))
    atom = max(0.0, (twice - more) / N - K * edge)
    return Need(FOUND * atom, FOUND * edge)


def peak(work: Callable[[], Any], device: str = "cpu") -> float:
    """Bytes of tensors that are alive at the same time while `work` runs, beyond those there before."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return float(torch.cuda.max_memory_allocated(device) - before)
    with _Alive() as alive:
        work()
    return float(alive.most)


class _Alive(TorchDispatchMode):
    """Counts the bytes of all tensors that operations make, for as long as they live."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._sizes: dict[int, int] = {}
        self._now = self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._sizes:
            return
        self._sizes[key] = storage.nbytes()
        self._now += storage.nbytes()
        self.most = max(self.most, self._now)
        weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self._now -= self._sizes.pop(key, 0)
