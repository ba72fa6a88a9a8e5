"""How many structures are evaluated at once: all that fit into memory, else in pieces, learnt from each failure.

A piece that did not fit is halved, and later batches are cut so from the start. The answers are the same.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import TypeVar

import torch

from aims_pax.errors import SettingsError

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

WORDS = (  # how allocators of torch, CUDA and its libraries put it
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "ALLOC_FAILED",
)


CURE = "a smaller r_max, num_channels or max_L, default_dtype float32, or a machine with more memory"


class BatchSplitter:
    """What fits into memory at once, in edges, for one kind of work. what: for the log."""

    def __init__(self, what: str, device: str = "cpu", limit: float = math.inf) -> None:
        self.what, self.device, self.limit = what, device, limit

    def each(self, sizes: Sequence[int], work: Callable[[int, int], Answer]) -> list[Answer]:
        """work(first, end) for consecutive structures, as many at once as fit; its answers in order.

        sizes: edges of each structure. `work` must leave nothing behind when it fails.
        Raises SettingsError for a structure that does not fit by itself.
        """
        answers: list[Answer] = []
        before, start = self.limit, 0
        while start < len(sizes):
            end = structures_that_fit(sizes, start, self.limit)
            failed = None
            try:
                answers.append(work(start, end))
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                failed = str(error).splitlines()[0][:120] if str(error) else "MemoryError"
            if failed is None:
                start = end
            else:  # outside of the handler: the error holds on to all that was allocated
                self._shrink(sizes[start:end], failed)
        if self.limit < before:
            log.warning(
                "%s: %d structures (%d edges) at once do not fit into the memory of %s; from now on at most %d "
                "edges at a time, with the same results",
                self.what, len(sizes), sum(sizes), self.device, self.limit,
            )  # fmt: skip
        return answers

    def _shrink(self, sizes: Sequence[int], reason: str) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()
        if len(sizes) == 1:
            raise SettingsError(
                f"{self.what}: one structure with {sizes[0]} edges does not fit into the memory of {self.device} "
                f"({reason}); in mace.yaml: {CURE}"
            )
        self.limit = sum(sizes) // 2


@cache
def batch_splitter(what: str, device: str) -> BatchSplitter:
    """The room this process has for one kind of work."""
    return BatchSplitter(what, device)


def out_of_memory(error: BaseException) -> bool:
    """Whether this is how memory runs out, on CPU or GPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in WORDS)


def structures_that_fit(sizes: Sequence[int], start: int, limit: float) -> int:
    """Where the piece that begins at `start` ends: as many as stay within the limit, at least one."""
    end, total = start + 1, sizes[start]
    while end < len(sizes) and total + sizes[end] <= limit:
        total += sizes[end]
        end += 1
    return end
