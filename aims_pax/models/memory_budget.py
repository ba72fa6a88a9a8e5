"""Memory that model evaluations may use, and memory that they need, both known before the first evaluation.

    available   free memory as Linux reports it, or less if a cgroup (of a job, a container) allows less; on a GPU its
                free memory
    limit       MISC.memory_limit; else half of the memory available at the first call, rounded down to a power of two,
                so that a repeated run splits its work in the same way
    need        a·N + e·E bytes for N atoms with E edges: measured on a few atoms (`measured`); constants for symmetrix

Processes that compute at the same time each get a share of the limit (`allow`).
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

SHARE = 0.5  # of the available memory: calculations, snapshots and other programs also need some
FOUND = 1.5  # times the memory of tensors: workspace of operations and gaps of the allocator (1.05 to 1.45 measured)
GRAPH = 300  # bytes per edge: neighbour list with its skin, vectors, and temporary copies
ENVIRONMENT = "AIMS_PAX_MEMORY"  # bytes: the share of a process, set by the process that starts it
GB = 1e9


@dataclass(frozen=True)
class Need:
    """Bytes per atom and per edge."""

    atom: float
    edge: float

    def of(self, atoms: float, edges: float) -> float:
        """Bytes of a structure, its neighbour list included."""
        return self.atom * atoms + (self.edge + GRAPH) * edges


@dataclass
class _Limits:
    """Bytes by device; `written`: set by the user, not measured."""

    by_device: dict[str, float] = field(default_factory=dict)
    written: bool = False


_limits = _Limits()


def limit(device: str = "cpu") -> float:
    """Bytes that evaluations of this process may use on a device."""
    kind = _kind(device)
    if kind not in _limits.by_device:
        share = os.environ.get(ENVIRONMENT)
        found = float(share) if share and kind == "cpu" else power_of_two(SHARE * available_memory(kind))
        _limits.by_device[kind] = found
    return _limits.by_device[kind]


def allow(size: float, device: str = "cpu", written: bool = False) -> None:
    """Set the limit of this process, in bytes. written: whether it is the user's MISC.memory_limit."""
    _limits.by_device[_kind(device)] = size
    _limits.written = written


def forget_measurement() -> None:
    """Forget all limits; the next call measures the available memory again."""
    _limits.by_device.clear()
    _limits.written = False


def is_set_by_user() -> bool:
    """Whether the limit was set by the user."""
    return _limits.written


def power_of_two(size: float) -> float:
    """The largest power of two that is not above a size."""
    return 2.0 ** math.floor(math.log2(size)) if 1 <= size < math.inf else size


def available_memory(device: str = "cpu") -> float:
    """Bytes available on a device now; inf if unknown."""
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
    """Bytes left by the control groups of this process, over all levels: limit − memory that cannot be freed."""
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


# ---------------------------------------------------------------- memory of an evaluation


def measured(evaluate: Callable[[int, int], Any], neighbours: float, device: str = "cpu") -> Need:
    """The memory an evaluation needs, measured on three small ones. evaluate(N, K): N atoms with K neighbours each.

    neighbours: mean number in the structures to be evaluated.
    """
    K = max(4, min(96, round(neighbours / 4) * 4))
    N = max(12, min(64, 1200 // K))  # few enough to be fast, enough for a representative measurement
    evaluate(N, K // 2)  # one-time allocations

    def taken(n: int, k: int) -> float:
        return peak(lambda: evaluate(n, k), device)

    some, more, twice = taken(N, K // 2), taken(N, K), taken(2 * N, K)
    edge = max(0.0, (more - some) / (N * (K - K // 2)))
    atom = max(0.0, (twice - more) / N - K * edge)
    return Need(FOUND * atom, FOUND * edge)


def peak(work: Callable[[], Any], device: str = "cpu") -> float:
    """Peak memory of the tensors allocated while `work` runs, in bytes.

    On a GPU the larger of this count and of what its allocator reports: the allocator also sees workspace, but reports
    too little where memory of earlier work is released meanwhile.
    """
    with _Alive() as alive:
        if not device.startswith("cuda"):
            work()
            return float(alive.most)
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
    return float(max(alive.most, torch.cuda.max_memory_allocated(device) - before))


class _Alive(TorchDispatchMode):
    """Counts the bytes of all tensors that operations create and that are still alive."""

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
