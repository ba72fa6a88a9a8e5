"""Where work runs. An executor takes a function and its arguments and gives a future; it knows no more.

    inline    in the caller, at once: reproducible to the last bit
    threads   in threads of this process: for references that are programs of their own, and quick calculators
    htex      in worker processes on this machine: for slow Python calculators
    blocks    in worker processes on nodes that a batch scheduler gives: see `parsl_blocks`

Parsl is loaded only when the last three are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, Protocol, Self, TypeVar

T = TypeVar("T")


class WorkerDied(Exception):
    """The process that ran a task is gone, with the task; it may be tried again.

    cost: how far this counts against the task; at 1 it is given up.
    """

    def __init__(self, reason: str, cost: float = 0.5) -> None:
        super().__init__(reason)
        self.cost = cost

    def __reduce__(self) -> tuple[type[WorkerDied], tuple[str, float]]:
        return type(self), (str(self), self.cost)


class Executor(Protocol):
    """A context manager; `submit` is called between entering and leaving, from one thread."""

    capacity: int  # how many tasks run side by side
    outlives: bool  # tasks may go on when this process is killed; then they claim what they work on

    def inherit(self, jobs: Iterable[str]) -> None:
        """End what an earlier run of ours has left running, except the jobs (by the scheduler's id) given."""
        ...

    def hand_over(self, tasks: Sequence[Any]) -> None:
        """Leave what runs, and what waits to run, to the next run when this one leaves; where it outlives us.

        tasks: `Task`s that are still wanted, for workers that begin while no run is there.
        """
        ...

    def submit(self, function: Callable[..., T], *args: Any) -> Future[T]:
        """Run `function(*args)` soon. Its exception is the future's exception.

        WorkerDied: the task was lost. SetupError: nothing can run here any more.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None:
        """Leave no process and no thread behind. Tasks that have not begun are not awaited."""
        ...
