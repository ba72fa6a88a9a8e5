"""Requests to a running aims-PAX, left as a file in its working folder: pause, resume, stop, cancel.

They work from any host that sees the folder.

restart/control.json  the request and the process it is for; a process started later ignores it
restart/paused.json   the answer of that process; exists while it is paused
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import time
from pathlib import Path
from typing import Any

from aims_pax.errors import SettingsError, SetupError
from aims_pax.record import files
from aims_pax.record.lock import Lock

log = logging.getLogger(__name__)

REQUEST, ANSWER = "control.json", "paused.json"
REQUESTS = ("pause", "resume", "stop", "cancel")  # cancel: stop, and cancel jobs that run elsewhere


class RequestFile:
    """Reads requests, in the process that holds the folder's lock. Cheap enough for a few calls a second."""

    def __init__(self, restart: Path) -> None:
        self.restart = restart
        self._me: dict[str, Any] | None = None  # this process as written in the lock

    def look(self) -> str | None:
        """One of REQUESTS, or None. A request to another process is removed, with a line in the log."""
        request = _json(self.restart / REQUEST)
        if not request:
            return None
        if not self._me:
            self._me = _json(self.restart / "lock")
        if not self._me:
            return None
        if request.get("of") == self._me:
            return request["wish"] if request.get("wish") in REQUESTS else None
        self._remove(REQUEST)
        log.info("%s was for an earlier run; ignored", words(request))
        return None

    def paused(self) -> None:
        """Write the answer that this process is paused."""
        with contextlib.suppress(SetupError):  # a full disk must not end a paused run
            files.write_text(self.restart / ANSWER, json.dumps({"since": time.time(), "of": self._me}))

    def running(self) -> None:
        """Remove the answer and the request."""
        self._remove(ANSWER)
        self._remove(REQUEST)

    def _remove(self, name: str) -> None:
        with contextlib.suppress(OSError):  # a file left behind names this process only
            (self.restart / name).unlink(missing_ok=True)


def ask(folder: Path, request: str) -> dict[str, Any]:
    """Write a request for the process that works in a folder; returns its lock: pid and host.

    Raises SettingsError when there is no run or no process works on it, SetupError when the file cannot be written.
    """
    restart = folder / "restart"
    holder = Lock(restart / "lock").holder()
    if holder is None:
        where = "this folder" if folder == Path() else folder
        if not restart.is_dir():
            raise SettingsError(
                f"no aims-PAX run was begun in {where}; name its folder: aims-PAX {_verb(request)} FOLDER"
            )
        raise SettingsError(f"nothing to {_verb(request)}: no aims-PAX works in {where} at the moment")
    content = {"wish": request, "of": holder, "when": time.time(), "from": socket.gethostname()}
    files.write_text(restart / REQUEST, json.dumps(content))
    return holder


def paused_since(folder: Path) -> float | None:
    """When the run of this folder was paused, in seconds since 1970; None when it is not paused."""
    answer, holder = _json(folder / "restart" / ANSWER), _json(folder / "restart" / "lock")
    if not answer or answer.get("of") != holder or not isinstance(answer.get("since"), int | float):
        return None
    return float(answer["since"])


def asked_for(folder: Path) -> str | None:
    """The pending request for the process that works in this folder; None without one."""
    request, holder = _json(folder / "restart" / REQUEST), _json(folder / "restart" / "lock")
    return (
        str(request["wish"])
        if request and request.get("of") == holder and request.get("wish") in REQUESTS
        else None
    )


def words(request: dict[str, Any]) -> str:
    """`aims-PAX pause from 2025-01-31 12:30 on node7`: a request in words, for the log."""
    when = request.get("when")
    clock = (
        f" from {time.strftime('%Y-%m-%d %H:%M', time.localtime(when))}" if isinstance(when, float) else ""
    )
    return f"aims-PAX {_verb(str(request.get('wish')))}{clock} on {request.get('from')}"


def _verb(request: str) -> str:
    """The command line words of this request."""
    return "stop --cancel" if request == "cancel" else request


def _json(path: Path) -> dict[str, Any]:
    """The object in a small JSON file; {} when there is none, or it is incomplete."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
