"""What stops or pauses a run: a signal, the end of the walltime, a request file (`aims-PAX pause`, `stop`).

Signals are SIGTERM, SIGINT (Ctrl-C), SIGHUP, SIGUSR1, SIGUSR2 and SIGXCPU (`processes.STOP_SIGNALS`). Their handler
sets a flag. The run checks it at every MD step and training batch and while it waits for labels; a calculator that
computes in this process is interrupted. A pause is handled only here: the check blocks until the pause is over, so no
MD step, training batch or label starts; running calculations finish and are stored.
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
CHECK_EVERY = 0.5  # s between two checks for a request file


class InterruptMonitor:
    """The stop flag, the walltime and the user's requests. A second Ctrl-C ends the process at once.

    seconds: walltime of this process from now on, or None. heartbeat: called at every check; renews the lock.
    requests: request file in the working folder, or None.
    """

    def __init__(
        self,
        seconds: float | None = None,
        heartbeat: Callable[[], None] | None = None,
        requests: RequestFile | None = None,
    ) -> None:
        self.signal: int | None = None
        self.deadline = None if seconds is None else time.monotonic() + seconds - min(MARGIN, 0.2 * seconds)
        self.heartbeat = heartbeat
        self.requests = requests
        self.stop_requested = False  # stop requested by `aims-PAX stop`
        self.cancel = False  # also cancel running calculations
        self.paused_seconds = 0.0  # s paused so far
        # (began, ended), s since 1970; the event loop moves them to the journal
        self.pauses: list[tuple[float, float]] = []
        self.on_pause: Callable[[bool], None] = lambda _: None  # called when a pause begins and when it ends
        self._last_check = -CHECK_EVERY
        self._checking = threading.Lock()  # background training checks from other threads

    def request_stop(self, cancel: bool = False) -> None:
        """As `aims-PAX stop` and `aims-PAX stop --cancel` do."""
        self.stop_requested, self.cancel = True, cancel

    def stop(self) -> bool:
        """Whether MD and training should stop at the next step or batch."""
        self._check()
        return self.stop_requested or self.signal is not None or self._walltime_ends()

    def raise_if_stopped(self) -> None:
        """Raise RunInterrupted; code 3: the user (Ctrl-C, `aims-PAX stop`), 75: walltime or scheduler (run again)."""
        self._check()
        self.raise_if_signalled()
        if self.stop_requested:
            how = "aims-PAX stop --cancel" if self.cancel else "aims-PAX stop"
            raise RunInterrupted(f"stopped by the user ({how})", 3, self.cancel)

    def raise_if_signalled(self) -> None:
        """The same for signals and the walltime only: the request file is not read."""
        if self.signal == signal.SIGINT:
            raise RunInterrupted("stopped by the user (Ctrl-C)", 3)
        if self.signal is not None:
            raise RunInterrupted(f"stopped by {signal.Signals(self.signal).name}", 75)
        if self._walltime_ends():
            raise RunInterrupted("stopped before the end of the walltime", 75)

    def _check(self) -> None:
        """Renew the lock, then read the request file. Blocks while the run is paused."""
        if self.heartbeat is not None:
            self.heartbeat()
        if self.requests is None or time.monotonic() - self._last_check < CHECK_EVERY:
            return
        with self._checking:
            if time.monotonic() - self._last_check < CHECK_EVERY:
                return  # another thread has just checked, or waited for the end of a pause
            self._last_check = time.monotonic()
            request = self.requests.look()
            if request == "pause":
                request = self._wait_while_paused(self.requests)
            if request in ("stop", "cancel"):
                self.request_stop(cancel=request == "cancel")
            if request is not None:
                self.requests.running()

    def _wait_while_paused(self, requests: RequestFile) -> str:
        """Wait until another request, a signal or the walltime ends the pause; returns the last request."""
        began, moment = time.monotonic(), time.time()
        requests.paused()
        self.on_pause(True)
        log.info(
            "paused: running calculations finish and are stored; aims-PAX resume continues, aims-PAX stop ends the run"
        )
        request = "pause"
        while request == "pause" and self.signal is None and not self._walltime_ends():
            time.sleep(CHECK_EVERY)
            if self.heartbeat is not None:
                self.heartbeat()
            request = requests.look() or request  # an unreadable file does not end the pause
        self._last_check = time.monotonic()
        self.paused_seconds += self._last_check - began
        self.pauses.append((moment, moment + self._last_check - began))
        log.info("resumed after %.0f s", self._last_check - began)
        self.on_pause(False)
        return request

    def _walltime_ends(self) -> bool:
        return self.deadline is not None and time.monotonic() > self.deadline

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Install the signal handlers and an alarm at the end of the walltime, which also interrupts a calculation.

        SIGHUP stays ignored if it was ignored before (nohup).
        """

        def note(number: int, _: FrameType | None) -> None:
            if number == signal.SIGALRM:
                if self._walltime_ends() and interrupting():
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
    """Seconds this process may run: the smaller of the setting and of the time left in the scheduler's job."""
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
            "the time limit of this %s job is not known (%s); set MISC.max_walltime to stop in time",
            scheduler.title,
            error,
        )
        return None
