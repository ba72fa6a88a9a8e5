"""Why a run should stop or rest: a signal, the end of the walltime, a wish in its folder (`aims-PAX pause`, `stop`).

Handlers set a flag that is looked at at every MD step, training batch, and while a label is awaited; a calculator that
computes in this process is interrupted. A pause lives here alone: whoever looks waits inside until it is over, so
no MD step, training batch or label begins meanwhile, while calculations that run already end and are stored.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import FrameType

from aims_pax.errors import RunInterrupted, SetupError
from aims_pax.processes import STOP_SIGNALS, interrupting
from aims_pax.record.run_requests import RequestFile
from aims_pax.schedulers.base import Refused
from aims_pax.schedulers.registry import own_scheduler

__all__ = ["InterruptMonitor", "RunInterrupted", "remaining_walltime"]

log = logging.getLogger(__name__)

MARGIN = 90.0  # s before the end of the walltime at which the run begins to stop
LOOK_EVERY = 0.5  # s between two looks at the folder


class InterruptMonitor:
    """The flag, the deadline and the wishes. A second Ctrl-C does not wait for a clean end.

    seconds: walltime of this process from now on, or None. beat: called whenever somebody looks.
    wishes: what somebody may leave in the folder, or None.
    """

    def __init__(
        self,
        seconds: float | None = None,
        beat: Callable[[], None] | None = None,
        requests: RequestFile | None = None,
    ) -> None:
        self.signal: int | None = None
        self.deadline = None if seconds is None else time.monotonic() + seconds - min(MARGIN, 0.2 * seconds)
        self.heartbeat = beat
        self.requests = requests
        self.asked = False  # to stop, by `aims-PAX stop`
        self.cancel = False  # and to cancel what runs elsewhere
        self.paused_seconds = 0.0  # s paused so far
        self.pauses: list[
            tuple[float, float]
        ] = []  # (began, ended), s since 1970; whoever writes them down takes them
        self.on_pause: Callable[[bool], None] = lambda _: None  # called when a pause begins, and ends
        self._looked = -LOOK_EVERY
        self._one_looks = threading.Lock()  # training elsewhere asks from threads of its own

    def stop(self) -> bool:
        """Whether device turns should be abandoned at the next batch or MD step."""
        self._look()
        return self.asked or self.signal is not None or self._over()

    def raise_if_stopped(self) -> None:
        """Raise RunInterrupted; code 3: the user (Ctrl-C, `aims-PAX stop`), 75: walltime or scheduler (run again)."""
        self._look()
        self.raise_if_signalled()
        if self.asked:
            how = "aims-PAX stop --cancel" if self.cancel else "aims-PAX stop"
            raise RunInterrupted(f"stopped by the user ({how})", 3, self.cancel)

    def raise_if_signalled(self) -> None:
        """The same for signals and the walltime alone: the folder is not looked at."""
        if self.signal == signal.SIGINT:
            raise RunInterrupted("stopped by the user (Ctrl-C)", 3)
        if self.signal is not None:
            raise RunInterrupted(f"stopped by {signal.Signals(self.signal).name}", 75)
        if self._over():
            raise RunInterrupted("stopped before the end of the walltime", 75)

    def _look(self) -> None:
        """A sign of life; then what somebody wishes. Returns when the run is not, or no longer, paused."""
        if self.heartbeat is not None:
            self.heartbeat()
        if self.requests is None or time.monotonic() - self._looked < LOOK_EVERY:
            return
        with self._one_looks:
            if time.monotonic() - self._looked < LOOK_EVERY:
                return  # another thread has looked, or rested, meanwhile
            self._looked = time.monotonic()
            request = self.requests.look()
            if request == "pause":
                request = self._rest(self.requests)
            if request in ("stop", "cancel"):
                self.asked, self.cancel = True, request == "cancel"
            if request is not None:
                self.requests.running()

    def _rest(self, requests: RequestFile) -> str:
        """Wait until another wish, a signal or the walltime ends the pause; returns that wish."""
        began, moment = time.monotonic(), time.time()
        requests.paused()
        self.on_pause(True)
        log.info("paused: running calculations end and are kept; aims-PAX resume goes on, aims-PAX stop ends")
        request = "pause"
        while request == "pause" and self.signal is None and not self._over():
            time.sleep(LOOK_EVERY)
            if self.heartbeat is not None:
                self.heartbeat()
            request = requests.look() or request  # a file server that hiccups ends no pause
        self._looked = time.monotonic()
        self.paused_seconds += self._looked - began
        self.pauses.append((moment, moment + self._looked - began))
        log.info("the pause is over after %.0f s", self._looked - began)
        self.on_pause(False)
        return request

    def _over(self) -> bool:
        return self.deadline is not None and time.monotonic() > self.deadline

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Signals set the flag while this lasts, and the end of the walltime is noticed within a calculation.

        What is ignored stays ignored: nohup ignores SIGHUP.
        """

        def note(number: int, _: FrameType | None) -> None:
            if number == signal.SIGALRM:
                if self._over() and interrupting():
                    self.raise_if_signalled()
                return
            if self.signal is not None and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.signal = number
            if interrupting():
                self.raise_if_signalled()

        nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        kinds = [k for k in (*STOP_SIGNALS, signal.SIGALRM) if not (nohup and k == signal.SIGHUP)]
        before = {kind: signal.signal(kind, note) for kind in kinds}
        if self.deadline is not None:
            signal.setitimer(signal.ITIMER_REAL, max(0.01, self.deadline - time.monotonic()) + 0.01)
        try:
            yield
        finally:
            if self.deadline is not None:
                signal.setitimer(signal.ITIMER_REAL, 0)
            for kind, handler in before.items():
                signal.signal(kind, handler)


def remaining_walltime(given: float | None, environment: Mapping[str, str] | None = None) -> float | None:
    """Seconds this process may run: the smaller of what the settings say and what is left of the scheduler's job."""
    environment = os.environ if environment is None else environment
    known = [s for s in (given, _job_seconds_left(environment)) if s is not None and s != float("inf")]
    return min(known) if known else None


def _job_seconds_left(environment: Mapping[str, str]) -> float | None:
    scheduler = own_scheduler(environment)
    if scheduler is None:
        return None
    try:
        return scheduler.seconds_left(environment)
    except (OSError, ValueError, subprocess.SubprocessError, Refused, SetupError) as error:
        log.warning(
            "the end of this %s job is not known (%s); set MISC.max_walltime to stop in time",
            scheduler.title,
            error,
        )
        return None
