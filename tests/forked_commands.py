"""Commands of the package in forks of one process that has imported torch and MACE: each run saves those seconds.

The process is a fresh interpreter without threads, so a fork of it is as clean as a new one. It reads one request a
line, `{folder, name, entry, words, environment, place}`. Each is carried out beside the others and answers for itself,
through the named pipe `place/answers`: with the pid of the command and, at its end, its status.
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
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_servers: dict[int, subprocess.Popen[str]] = {}  # by the pid of the process that uses it
_asking = threading.Lock()


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
    with tempfile.TemporaryDirectory() as place:
        answers = Path(place) / "answers"
        os.mkfifo(answers)
        request = {
            "folder": str(folder), "name": name, "entry": entry, "words": list(words),
            "environment": dict(environment), "place": place,
        }  # fmt: skip
        ready = os.open(answers, os.O_RDONLY | os.O_NONBLOCK)  # does not wait for the other end
        with open(ready, "rb", buffering=0) as pipe:
            server = _ask(request)
            pid = _answer(pipe, server, None)
            assert pid is not None
            status = _answer(pipe, server, timeout)
            if status is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
                _answer(pipe, server, None)
                raise subprocess.TimeoutExpired([name, *words], timeout or 0.0)
        out, err = ((Path(place) / stream).read_text() for stream in ("out", "err"))
        return subprocess.CompletedProcess([name, *words], os.waitstatus_to_exitcode(status), out, err)


def _ask(request: Mapping[str, Any]) -> subprocess.Popen[str]:
    with _asking:
        server = _server()
        assert server.stdin is not None
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        return server


def _answer(pipe: FileIO, server: subprocess.Popen[str], timeout: float | None) -> int | None:
    """The next number in the pipe; None if it does not come in time. Lines are written whole."""
    deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
    while (left := deadline - time.monotonic()) > 0:
        if select.select([pipe], [], [], min(left, 1.0))[0]:
            return int(pipe.readline())
        if server.poll() is not None:
            raise RuntimeError("the process that runs commands has ended; what it said is above")
    return None


def _server() -> subprocess.Popen[str]:
    server = _servers.get(os.getpid())
    if server is None or server.poll() is not None:
        code = "from tests.forked_commands import serve; serve()"
        server = _servers[os.getpid()] = subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, text=True, stdin=subprocess.PIPE, bufsize=1,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        atexit.register(_stop, server)
    return server


def _stop(server: subprocess.Popen[str]) -> None:
    server.kill()
    server.wait()
    if server.stdin is not None:
        server.stdin.close()


def load_package() -> None:
    """Import every module, so that forks of this process need not."""
    for path in sorted((ROOT / "aims_pax").rglob("*.py")):
        importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    from aims_pax.models.mace.mace_import import quiet

    with quiet():  # what every run needs when it trains and at its end
        for name in ("torch._dynamo", "mace.calculators"):
            importlib.import_module(name)


def build_a_tiny_model() -> None:
    """The one of most tests: forks copy it instead of compiling its functions again."""
    from aims_pax.models.mace.build import build_model
    from aims_pax.settings.read import read_settings
    from tests.projects import write_project

    with tempfile.TemporaryDirectory() as place:
        settings = read_settings(write_project(Path(place)))
        build_model(settings.mace, (1, 8), seed=0)


def serve() -> None:
    """Carry out requests until the standard input ends."""
    os.dup2(2, 1)
    load_package()
    build_a_tiny_model()
    for line in sys.stdin:
        request = json.loads(line)
        if os.fork() == 0:
            _carry_out(request)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:  # those that have answered
                pass


def _carry_out(request: dict[str, Any]) -> None:
    """In a fork of the server: the command in a fork of its own, and the answers; never returns."""
    try:
        with open(Path(request["place"]) / "answers", "w", buffering=1) as answers:
            child = os.fork()
            if child == 0:
                answers.close()
                _run(request)
            print(child, file=answers)
            print(os.waitpid(child, 0)[1], file=answers)
    finally:
        os._exit(0)


def _run(request: dict[str, Any]) -> None:
    """In the child: the command to its end; never returns."""
    code = 1
    try:
        os.setsid()
        os.chdir(request["folder"])
        set_by_imports = {n: v for n, v in os.environ.items() if n.startswith("TORCH_FORCE")}
        os.environ.clear()
        os.environ.update({**set_by_imports, **request["environment"]})
        place = Path(request["place"])
        for number, path in ((0, Path(os.devnull)), (1, place / "out"), (2, place / "err")):
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
    with contextlib.suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    os._exit(code)
