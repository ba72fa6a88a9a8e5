"""Why a run should stop early: a signal. Handlers only set a flag; the shell looks at it."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class Stopped(Exception):
    """The run was asked to stop; everything is saved. `code` is the exit code."""

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


class Watch:
    """The flag. A second Ctrl-C does not wait for a clean end."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def stop(self) -> bool:
        """Whether device turns should be abandoned at the next batch or MD step."""
        return self.signal is not None

    def raise_if_stopped(self) -> None:
        """Raise Stopped when a signal came: 3 for the user's Ctrl-C, 75 (run me again) for the scheduler's."""
        if self.signal == signal.SIGINT:
            raise Stopped("stopped by the user (Ctrl-C)", 3)
        if self.signal is not None:
            raise Stopped(f"stopped by {signal.Signals(self.signal).name}", 75)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Signals set the flag while this lasts."""

        def note(number: int, _: FrameType | None) -> None:
            if self.signal is not None and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.signal = number

        kinds = (signal.SIGINT, signal.SIGTERM)
        before = {kind: signal.signal(kind, note) for kind in kinds}
        try:
            yield
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)
