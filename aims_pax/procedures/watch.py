"""Why a run should stop early: a signal, or the end of the walltime. Handlers only set a flag the shell looks at."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from types import FrameType

log = logging.getLogger(__name__)

MARGIN = 90.0  # s before the end of the walltime at which the run begins to stop


class Stopped(Exception):
    """The run was asked to stop; everything is saved. `code` is the exit code."""

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


class Watch:
    """The flag and the deadline. A second Ctrl-C does not wait for a clean end.

    seconds: walltime of this process from now on, or None. beat: called whenever somebody looks.
    """

    def __init__(self, seconds: float | None = None, beat: Callable[[], None] | None = None) -> None:
        self.signal: int | None = None
        self.deadline = None if seconds is None else time.monotonic() + seconds - min(MARGIN, 0.2 * seconds)
        self.beat = beat

    def stop(self) -> bool:
        """Whether device turns should be abandoned at the next batch or MD step."""
        if self.beat is not None:
            self.beat()
        return self.signal is not None or self._over()

    def raise_if_stopped(self) -> None:
        """Raise Stopped: 3 for the user's Ctrl-C, 75 (run me again) for the scheduler and the walltime."""
        if self.beat is not None:
            self.beat()
        if self.signal == signal.SIGINT:
            raise Stopped("stopped by the user (Ctrl-C)", 3)
        if self.signal is not None:
            raise Stopped(f"stopped by {signal.Signals(self.signal).name}", 75)
        if self._over():
            raise Stopped("stopped before the end of the walltime", 75)

    def _over(self) -> bool:
        return self.deadline is not None and time.monotonic() > self.deadline

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


def walltime(given: float | None, environment: Mapping[str, str] | None = None) -> float | None:
    """Seconds this process may run: the smaller of what the settings say and what is left of the Slurm job."""
    environment = os.environ if environment is None else environment
    known = [s for s in (given, _slurm_seconds_left(environment)) if s is not None and s != float("inf")]
    return min(known) if known else None


def _slurm_seconds_left(environment: Mapping[str, str]) -> float | None:
    if "SLURM_JOB_ID" not in environment:
        return None
    if environment.get("SLURM_JOB_END_TIME", "").isdigit():
        return max(float(environment["SLURM_JOB_END_TIME"]) - time.time(), 1.0)
    command = ["squeue", "-h", "-j", environment["SLURM_JOB_ID"], "-o", "%e"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()
        return max(datetime.fromisoformat(answer).timestamp() - time.time(), 1.0)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        log.warning(
            "the end of this Slurm job is not known (%s); set MISC.max_walltime to stop in time", error
        )
        return None
