"""Reference calculations in the driver's own process, one after the other: reproducible to the last bit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, Self

from aims_pax.labelling.executors.base import T


class InlineExecutor:
    """Runs each task at once in the caller; every future is done when `submit` returns."""

    capacity = 1
    outlives = False

    def inherit(self, jobs: Iterable[str]) -> None:
        pass

    def hand_over(self, tasks: Sequence[Any]) -> None:
        pass

    def submit(self, function: Callable[..., T], *args: Any) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(function(*args))
        except Exception as error:  # KeyboardInterrupt reaches the caller
            future.set_exception(error)
        return future

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass
