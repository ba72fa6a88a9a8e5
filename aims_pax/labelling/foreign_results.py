"""Waiting for labels while the run still reacts to signals, and for results that other processes compute.

Code that needs labels before it can continue calls `wait_for_results`; the stages wait in their event loop. Workers of
an earlier run return results only through files, so one thread (`ResultPoller`) looks for these files every second.
The thread runs only while results are expected.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import Generic, TypeVar

T = TypeVar("T")

PERIOD = 1.0  # s between two checks of the files
LISTEN_EVERY = 0.2  # s between two checks whether the run should stop or pause


def wait_for_results(futures: Sequence[Future[T]], check: Callable[[], None]) -> list[T]:
    """The results in order; raises the first exception among them.

    check: called several times a second while a result is missing; it may raise, and may block (a pause).
    """
    missing = set(futures)
    while missing:
        missing = wait(missing, timeout=LISTEN_EVERY).not_done
        check()
    return [future.result() for future in futures]


class ResultPoller(Generic[T]):
    """Calls `look` on each item every second until it returns True for that item."""

    def __init__(self, look: Callable[[T], bool]) -> None:
        self._look = look
        self._items: list[T] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, item: T) -> None:
        with self._lock:
            self._items.append(item)
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(target=self._run, name="labels of others", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """Stop polling and end the thread."""
        self._stop.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while not self._stop.wait(PERIOD):
            with self._lock:
                items = list(self._items)
            for item in items:
                if self._stop.is_set():
                    return
                if self._look(item):
                    with self._lock:
                        self._items.remove(item)
            with self._lock:
                if not self._items:
                    self._thread = None
                    return
