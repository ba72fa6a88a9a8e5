"""A worker process; it answers questions of its driver and exits when the driver does.

It is a new interpreter or a fork of the fork server. It imports its code once and keeps state between questions.
Messages are pickles over a socket pair; log lines of the worker are sent with its answers. It ignores stop signals from
the terminal and the scheduler: the driver handles them.
"""

from __future__ import annotations

import importlib
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from aims_pax import fork_server
from aims_pax.errors import AimsPaxError, SetupError
from aims_pax.fork_server import ForkedProcess
from aims_pax.processes import STOP_SIGNALS

LOST_IN_A_ROW = 3  # processes that may die before the run gives up
LOOK = 0.1  # s between two checks whether the answer is still needed
Answer = Callable[[Any, Callable[[], bool]], Any]
T = TypeVar("T")


class WorkerProcessLost(AimsPaxError):
    """The process has ended without an answer; nothing was changed, the question can be asked again.

    killed: whether by SIGKILL, which the kernel sends when memory runs out.
    """

    def __init__(self, how: str, killed: bool = False) -> None:
        super().__init__(f"a process has ended without an answer ({how})")
        self.how, self.killed = how, killed


class FailureCounter:
    """Counts processes lost in a row. remedy: advice to the user, for the message."""

    def __init__(self, remedy: str) -> None:
        self.remedy = remedy
        self._lost = 0

    def answered(self) -> None:
        """A process has answered: reset the count."""
        self._lost = 0

    def lost(self, error: Exception) -> None:
        """One more process was lost. Raises SetupError if there were too many in a row."""
        self._lost += 1
        if self._lost >= LOST_IN_A_ROW:
            raise SetupError(
                f"{error}, {self._lost} times in a row: probably memory ran out; {self.remedy}, then run the same "
                "command again"
            ) from error


class WorkerProcess:
    """A worker process, as seen by its driver.

    maker: `module:name` of a function that is called once in the worker and returns `answer(question, stop)`;
    exceptions of `answer` are raised in the driver; `stop()` returns True when the driver no longer needs the answer.
    threads: threads of its numerical libraries. environment: variables in addition to the driver's.
    level: log level; of several identical workers, only one needs INFO.
    forked: it may be forked from the fork server, if there is one; for workers with one thread and no GPU of their own.
    """

    process: subprocess.Popen[bytes] | ForkedProcess

    def __init__(
        self,
        maker: str,
        threads: int = 1,
        environment: Mapping[str, str] | None = None,
        level: int = logging.INFO,
        forked: bool = False,
    ) -> None:
        own = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        variables = os.environ | own | dict(environment or {})
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = (_forked if forked else _new)(theirs.fileno(), maker, level, variables)
        self.connection = Connection(ours.detach())

    @property
    def lost(self) -> bool:
        """Whether the process is known to have ended."""
        return self.process.returncode is not None

    def ask(self, question: Any, stop: Callable[[], bool] = lambda: False) -> Any:
        """Send a question and return the answer. Raises WorkerProcessLost, and exceptions of the worker."""
        self.send(question)
        return self.receive(stop)

    def send(self, question: Any) -> None:
        """Send a question without waiting; each `send` needs one `receive`."""
        self._reaching(self.connection.send, question)

    def receive(self, stop: Callable[[], bool] = lambda: False) -> Any:
        """Wait for the answer. `stop` is called every 0.1 s; once it is True, the worker may also raise Abandoned."""
        asked = False
        while not self._reaching(self.connection.poll, LOOK):
            if not asked and stop():
                self._reaching(self.connection.send, None)
                asked = True
        answer, lines = self._reaching(self.connection.recv)
        for name, level, text in lines:
            logging.getLogger(name).log(level, "%s", text)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def close(self) -> None:
        """End the process and wait for it."""
        self.connection.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _reaching(self, call: Callable[..., T], *args: Any) -> T:
        """Call a method of the connection. Raises WorkerProcessLost if the process has ended."""
        try:
            return call(*args)
        except (EOFError, OSError) as error:
            self.close()
            code = self.process.returncode
            raise WorkerProcessLost(_how(code), code == -signal.SIGKILL) from error


def _new(descriptor: int, maker: str, level: int, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """The process in a new interpreter."""
    words = [sys.executable, "-c", _code(maker, level), str(descriptor)]
    return subprocess.Popen(words, env=environment, pass_fds=[descriptor], stdin=subprocess.DEVNULL)


def _forked(
    descriptor: int, maker: str, level: int, environment: Mapping[str, str]
) -> subprocess.Popen[bytes] | ForkedProcess:
    """The process as a fork of the fork server; in a new interpreter if there is none."""
    server, target = fork_server.current(), "aims_pax.worker_process:serve"
    path, code = tuple(map(str, sys.path)), _code(maker, level)
    request = fork_server.Request(target, (maker, level), environment, path, code)
    fork = None if server is None else server.fork(descriptor, request)
    return _new(descriptor, maker, level, environment) if fork is None else fork


def _code(maker: str, level: int) -> str:
    """The program of a new interpreter; its argument is the descriptor."""
    # use the driver's sys.path: -c would put the working folder first
    return (
        f"import sys; sys.path[:] = {[str(p) for p in sys.path]!r}; "
        f"from aims_pax.worker_process import serve; serve(int(sys.argv[1]), {maker!r}, {level})"
    )


class _Lines(logging.Handler):
    """Collects log lines for the driver: (name of the logger, level, text)."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.name, record.levelno, record.getMessage()))

    def taken(self) -> list[tuple[str, int, str]]:
        lines, self.lines = self.lines, []
        return lines


def serve(descriptor: int, maker: str, level: int = logging.INFO) -> None:
    """The main loop of the worker: receives questions and sends answers until the driver has ended."""
    for kind in STOP_SIGNALS:  # schedulers and terminals signal every process; the driver handles it
        signal.signal(kind, signal.SIG_IGN)
    log, log_lines = logging.getLogger("aims_pax"), _Lines()
    log.addHandler(log_lines)
    log.setLevel(level)
    log.propagate = False
    connection = Connection(descriptor)
    module, _, name = maker.partition(":")
    answer: Answer = getattr(importlib.import_module(module), name)()
    while True:
        try:
            question = connection.recv()
        except (EOFError, OSError):  # OSError: the driver ended without reading the last answer
            return
        if question is None:  # a late request to stop: the answer was already sent
            continue
        said: Any
        try:
            said = answer(question, connection.poll)
        except BaseException as error:  # every exception is sent to the driver
            error.add_note("in another process:\n" + "".join(traceback.format_tb(error.__traceback__)))
            said = _sendable(error)
        try:
            connection.send((said, log_lines.taken()))
        except OSError:  # the driver has ended
            return


def _sendable(error: BaseException) -> BaseException:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # an exception that cannot be pickled is sent as text
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        return f"killed by signal {-code}, {signal.Signals(-code).name}"
    return f"exit status {code}"


def own_threads() -> None:
    """In a `WorkerProcess`: set the number of torch threads to OMP_NUM_THREADS."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
