"""Where calculations run. An executor takes a function with its arguments and returns a future.

    inline    in the caller, at once: reproducible to the last bit
    threads   in threads of this process: for references that are external programs, and for fast calculators
    htex      in worker processes on this machine: for slow Python calculators
    blocks    in worker processes inside jobs of a batch scheduler: see `parsl_blocks`

Parsl is imported only for the last three.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, Protocol, Self, TypeVar

T = TypeVar("T")


class WorkerDied(Exception):
    """The process that ran a task has died; the task may be tried again.

    cost: how much this counts against the task; when the sum reaches 1, the task fails.
    """

    def __init__(self, reason: str, cost: float = 0.5) -> None:
        super().__init__(reason)
        self.cost = cost

    def __reduce__(self) -> tuple[type[WorkerDied], tuple[str, float]]:
        return type(self), (str(self), self.cost)


class Executor(Protocol):
    """A context manager; `submit` is called between entering and leaving, from one thread."""

    capacity: int  # number of tasks that run at the same time
    outlives: bool  # whether tasks may continue when this process is killed; such tasks claim their frames

    def inherit(self, jobs: Iterable[str]) -> None:
        """End everything that earlier runs in this folder left running, except these jobs (scheduler ids)."""
        ...

    def hand_over(self, tasks: Sequence[Any]) -> None:
        """Leave running and waiting tasks to the next run when this one ends, if `outlives`.

        tasks: `Task`s that are still requested, for workers that start while no driver runs.
        """
        ...

    def submit(self, function: Callable[..., T], *args: Any) -> Future[T]:
        """Run `function(*args)` when a worker is free. Its exception is the future's exception.

        WorkerDied: the worker died. SetupError: this executor cannot run anything any more.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None:
        """End all processes and threads. Does not wait for tasks that have not begun."""
        ...
