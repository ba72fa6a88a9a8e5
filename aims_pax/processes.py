"""Processes on this machine: identifying them by pid and start time, and the signals that ask a run to end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Signals that ask a run to save and end: from the scheduler (TERM; USR1 and USR2 as a warning; XCPU at a CPU limit),
# from a closed terminal (HUP), from the keyboard (INT)
STOP_SIGNALS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGXCPU,
)

_calculating = threading.local()


@contextmanager
def interruptible() -> Iterator[None]:
    """Marks a calculation in this process that a signal may interrupt."""
    depth = getattr(_calculating, "depth", 0)
    _calculating.depth = depth + 1
    try:
        yield
    finally:
        _calculating.depth = depth


def interrupting() -> bool:
    """Whether this thread is in an interruptible calculation; signal handlers run in the main thread."""
    return getattr(_calculating, "depth", 0) > 0


def process_started(pid: int) -> str | None:
    """Boot id and clock tick at which a process began, or None if it does not exist. Needed because pids are reused.

    Neither changes when the clock of the machine is set.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None if Path("/proc/self/stat").exists() else _created(pid)
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else f"{boot}:{fields[19]}"


def _created(pid: int) -> str | None:
    """The same without /proc: the time at which the process was created."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"created:{process.create_time():.1f}"
    except psutil.Error:
        return None
