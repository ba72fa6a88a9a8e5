"""Splits a batch of structures into pieces that fit into memory.

After an out-of-memory error the piece is halved, and the smaller limit is used for later batches. The results are the
same.
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

WORDS = (  # in out-of-memory errors of torch, CUDA and its libraries
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "ALLOC_FAILED",
)


CURE = "a smaller r_max, num_channels or max_L, default_dtype float32, or a machine with more memory"


class BatchSplitter:
    """The number of edges that fit into memory at once (`limit`), for one kind of work. what: its name in the log."""

    def __init__(self, what: str, device: str = "cpu", limit: float = math.inf) -> None:
        self.what, self.device, self.limit = what, device, limit

    def each(self, sizes: Sequence[int], work: Callable[[int, int], Answer]) -> list[Answer]:
        """Call work(first, end) for consecutive structures, as many at once as fit; returns the results in order.

        sizes: edges of each structure. `work` must have no side effects when it fails.
        Raises SettingsError for a structure that does not fit alone.
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
            else:  # outside the handler, because the exception keeps the allocated tensors alive
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
    """The splitter of this process for one kind of work."""
    return BatchSplitter(what, device)


def out_of_memory(error: BaseException) -> bool:
    """Whether this is an out-of-memory error, of CPU or GPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in WORDS)


def structures_that_fit(sizes: Sequence[int], start: int, limit: float) -> int:
    """The end of the piece that begins at `start`: as many structures as stay within the limit, at least one."""
    end, total = start + 1, sizes[start]
    while end < len(sizes) and total + sizes[end] <= limit:
        total += sizes[end]
        end += 1
    return end
