"""Shell commands in their own sessions: nothing that they start outlives the time limit or this process.

A reference program is often a tree of processes: a shell, a launcher, MPI ranks. The whole tree is one session. It is
killed when the command ends, when the time limit is reached, when the run stops, and when this process dies, even
by kill -9.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from aims_pax.errors import Crashed, TimedOut
from aims_pax.schedulers.registry import own_scheduler

PATIENCE = 2.0  # s between TERM, which launchers pass on to their ranks, and KILL; longer in a job
LOOK = 0.5  # s between two checks of a running command


class SharedTimeLimit:
    """A time limit that several attempts share. The time that an attempt waits for its program to start is not counted.

    limit: seconds, or None for no limit. left: remaining seconds.
    """

    def __init__(self, limit: float | None) -> None:
        self.limit = limit
        self.left = limit

    def wait(
        self, process: subprocess.Popen[bytes], waiting: Callable[[], bool], check: Callable[[], None]
    ) -> int:
        """The exit code. Raises subprocess.TimeoutExpired when no time is left; each attempt gets at least one second.

        check: called every half second; may raise.
        """
        while self.left is not None and waiting():
            with suppress(subprocess.TimeoutExpired):
                return process.wait(LOOK)
            check()
        since = time.monotonic()
        end = math.inf if self.left is None else since + max(1.0, self.left)
        try:
            while (left := end - time.monotonic()) > LOOK:
                with suppress(subprocess.TimeoutExpired):
                    return process.wait(LOOK)
                check()
            return process.wait(max(0.0, left))
        finally:
            if self.left is not None:
                self.left -= time.monotonic() - since


class CommandRunner:
    """The shell commands that this process runs, each in its own session. A pickled copy is empty."""

    def __init__(self) -> None:
        self.stopping = False
        self.check: Callable[[], None] = lambda: None  # called while the main thread waits here; may raise
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen[bytes]] = set()

    def __reduce__(self) -> tuple[type[CommandRunner], tuple[()]]:
        return CommandRunner, ()

    def run(
        self,
        command: str,
        folder: Path,
        out: Path,
        err: Path,
        clock: SharedTimeLimit | None = None,
        shared: bool = False,
        waiting: Callable[[], bool] = lambda: False,
    ) -> int:
        """Run a command in a folder to its end and return its exit code (negative: the signal).

        shared: other commands run at the same time in the same job. waiting: whether the program has not started yet.
        Raises TimedOut when no time is left; the whole session has been killed by then.
        """
        clock = SharedTimeLimit(None) if clock is None else clock
        # Only this process holds the writing end of the pipe: when it closes, the session is killed.
        reading, writing = os.pipe()
        try:
            with open(out, "wb") as stdout, open(err, "wb") as stderr, self._lock:
                if self.stopping:
                    raise Crashed("stopped with the run")
                process = subprocess.Popen(
                    [_shell(), "-c", _watch() + command],
                    cwd=folder,
                    stdin=reading,
                    stdout=stdout,
                    stderr=stderr,
                    start_new_session=True,
                    env=_launch_environment(shared),
                )
                self._processes.add(process)
            try:
                return clock.wait(process, waiting, self._look)
            except subprocess.TimeoutExpired:
                raise TimedOut(f"still running after the limit of {clock.limit:g} s; killed") from None
            finally:
                _end_session(process)
                with self._lock:
                    self._processes.discard(process)
        finally:
            os.close(reading)
            os.close(writing)

    def _look(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self.check()

    def stop(self) -> None:
        """Kill all commands and start no new ones."""
        with self._lock:
            self.stopping = True
            running = list(self._processes)
        for process in running:
            _end_session(process)


def _launch_environment(shared: bool) -> dict[str, str]:
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    scheduler = own_scheduler()
    return environment if scheduler is None else scheduler.step_environment(environment, shared)


def _patience() -> float:
    scheduler = own_scheduler()
    return PATIENCE + (0.0 if scheduler is None else scheduler.kill_wait)


def _watch() -> str:
    """Shell code of a watcher in the command's session: it waits until the pipe on its input closes, then kills all."""
    return f"""exec 3<&0 </dev/null
( trap '' TERM INT HUP; read -r _ <&3; kill -TERM -- -$$; sleep {_patience():g}
  pkill -KILL -s $$; kill -KILL -- -$$
) >/dev/null 2>&1 &
exec 3<&-
"""


def _shell() -> str:
    return shutil.which("bash") or "/bin/sh"


def _end_session(process: subprocess.Popen[bytes]) -> None:
    """End a process and all its children: TERM, so that launchers can end their ranks, then KILL."""
    if process.poll() is None:
        _signal_session(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_patience())
    _signal_session(process.pid, signal.SIGKILL)
    process.wait()


def _signal_session(session: int, sign: signal.Signals) -> None:
    """Signal the group, and on Linux the whole session: MPI puts ranks into their own groups."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(session, sign)
    with suppress(OSError):
        for entry in os.listdir("/proc"):
            if entry.isdigit() and int(entry) != os.getpid():
                with suppress(OSError):
                    if os.getsid(int(entry)) == session:
                        os.kill(int(entry), sign)
