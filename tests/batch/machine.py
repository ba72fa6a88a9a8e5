"""Processes and ports of this machine, for tests that look at, kill and start daemons."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def processes() -> dict[int, str]:
    """Command lines of everything that runs."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with suppress(OSError):
                line = Path("/proc", entry, "cmdline").read_bytes().replace(b"\0", b" ")
                found[int(entry)] = line.decode(errors="replace")
    return found


def runs(pid: int) -> bool:
    """Whether a process is there and not a zombie, whose command line is empty."""
    with suppress(OSError):
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    return False


def kill_tree(pid: int) -> None:
    """Kill a process and its descendants, the parent first so that it reports nothing."""
    with suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        for child in children:
            kill_tree(int(child))


def free_ports(n: int) -> list[int]:
    """n successive ports that nobody listens on, outside those the kernel hands out."""
    for first in range(20000 + os.getpid() % 4000, 30000, n):
        with suppress(OSError):
            for port in range(first, first + n):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            return list(range(first, first + n))
    raise OSError("no free ports")


def bring_up(up: Callable[[], None], down: Callable[[], None], failure: type[Exception]) -> None:
    """Start daemons, again if they fail once: another program may have taken a port since it was found free."""
    for last in (False, True):
        try:
            up()
            return
        except BaseException as error:
            down()
            if last or not isinstance(error, failure):
                raise
