"""Commands of the package in forks of one process that has imported torch and MACE: each run saves those seconds.

The process is a fresh interpreter without threads, so a fork of it is as clean as a new one. It reads one request a
line, `{folder, entry, words, environment, out, err}`, and answers with the child's pid and, at its end, its status.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_servers: dict[int, subprocess.Popen[str]] = {}  # by the pid of the process that uses it


def run(
    name: str,
    entry: str,
    words: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """A command as `subprocess.run(..., capture_output=True, text=True)` would return it.

    entry: function of `aims_pax.cli`. Raises subprocess.TimeoutExpired; the command is killed then.
    """
    server = _server()
    assert server.stdin is not None
    with tempfile.TemporaryDirectory() as place:
        out, err = Path(place) / "out", Path(place) / "err"
        request = {
            "folder": str(folder), "name": name, "entry": entry, "words": list(words),
            "environment": dict(environment), "out": str(out), "err": str(err),
        }  # fmt: skip
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        pid = _answer(server)
        late = timeout is not None and not select.select([server.stdout], [], [], timeout)[0]
        if late:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(_answer(server))
        if late:
            raise subprocess.TimeoutExpired([name, *words], timeout or 0.0)
        return subprocess.CompletedProcess([name, *words], code, out.read_text(), err.read_text())


def _server() -> subprocess.Popen[str]:
    server = _servers.get(os.getpid())
    if server is None or server.poll() is not None:
        code = "from tests.fork_server import serve; serve()"
        server = _servers[os.getpid()] = subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=1,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        atexit.register(_stop, server)
    return server


def _stop(server: subprocess.Popen[str]) -> None:
    server.kill()
    server.wait()
    for pipe in (server.stdin, server.stdout):
        if pipe is not None:
            pipe.close()


def _answer(server: subprocess.Popen[str]) -> int:
    assert server.stdout is not None
    line = server.stdout.readline()
    if not line:
        raise RuntimeError("the process that runs commands has ended; what it said is above")
    return int(line)


def serve() -> None:
    """Answer requests until the standard input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    package = ROOT / "aims_pax"
    for path in sorted(package.rglob("*.py")):
        importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            answers.close()
            _run(request)
        print(child, file=answers)
        print(os.waitpid(child, 0)[1], file=answers)


def _run(request: dict[str, Any]) -> None:
    """In the child: the command to its end; never returns."""
    code = 1
    try:
        os.setsid()
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["environment"])
        for number, path in ((0, os.devnull), (1, request["out"]), (2, request["err"])):
            file = os.open(path, os.O_RDWR | os.O_CREAT)
            os.dup2(file, number)
            os.close(file)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115
        sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr
        importlib.invalidate_caches()
        sys.argv = [request["name"], *request["words"]]
        getattr(importlib.import_module("aims_pax.cli"), request["entry"])()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        if code and isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        _leave(code)


def _leave(code: int) -> None:
    """What an interpreter does at its end: other threads are awaited, exit handlers run."""
    import threading

    with contextlib.suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    os._exit(code)
