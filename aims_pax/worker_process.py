"""A second interpreter that answers questions for as long as its driver lives.

It starts fresh, imports what it answers with once, and remembers what it was sent. Messages are pickles over a
socket pair between the two; what it logs travels with its answers. It ends when its driver does, and leaves
signals of the terminal and of the scheduler to the driver.
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

from aims_pax.errors import AimsPaxError, SetupError
from aims_pax.processes import STOP_SIGNALS

LOST_IN_A_ROW = 3  # processes that may die before the run gives up
LOOK = 0.1  # s between two looks at whether an answer is still wanted
Answer = Callable[[Any, Callable[[], bool]], Any]
T = TypeVar("T")


class WorkerProcessLost(AimsPaxError):
    """The process has ended without an answer; nothing was changed, the question can be asked again.

    killed: whether by SIGKILL, as the kernel does where memory ran out.
    """

    def __init__(self, how: str, killed: bool = False) -> None:
        super().__init__(f"a process has ended without an answer ({how})")
        self.how, self.killed = how, killed


class FailureCounter:
    """Counts processes that were lost one after another. remedy: what a user can do, for the message."""

    def __init__(self, remedy: str) -> None:
        self.remedy = remedy
        self._lost = 0

    def answered(self) -> None:
        """A process has done its work: the count begins anew."""
        self._lost = 0

    def lost(self, error: Exception) -> None:
        """One more was lost. Raises SetupError when there were too many in a row."""
        self._lost += 1
        if self._lost >= LOST_IN_A_ROW:
            raise SetupError(
                f"{error}, {self._lost} times in a row: probably memory ran out; {self.remedy}, then run the same "
                "command again"
            ) from error


class WorkerProcess:
    """The driver's end of one process.

    maker: `module:name` of what is called once there and returns `answer(question, stop)`; whatever that raises
    is raised here, `stop()` turns true when the driver does not want the answer any more.
    threads: of its numerical libraries. environment: what it gets besides the driver's.
    level: what it logs counts from this level on; of several that do the same one may speak for all.
    """

    def __init__(
        self,
        maker: str,
        threads: int = 1,
        environment: Mapping[str, str] | None = None,
        level: int = logging.INFO,
    ) -> None:
        ours, theirs = socket.socketpair()
        own = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        code = (  # the driver's path: with -c files of the working folder would come before all modules
            f"import sys; sys.path[:] = {[str(p) for p in sys.path]!r}; "
            f"from aims_pax.worker_process import serve; serve({theirs.fileno()}, {maker!r}, {level})"
        )
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code],
                env=os.environ | own | dict(environment or {}),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        self.connection = Connection(ours.detach())

    @property
    def lost(self) -> bool:
        """Whether the process is known to have ended."""
        return self.process.returncode is not None

    def ask(self, question: Any, stop: Callable[[], bool] = lambda: False) -> Any:
        """Its answer. Raises WorkerProcessLost when the process ends, and what it raised itself."""
        self.send(question)
        return self.receive(stop)

    def send(self, question: Any) -> None:
        """Ask without waiting; one `receive` belongs to each `send`."""
        self._reaching(self.connection.send, question)

    def receive(self, stop: Callable[[], bool] = lambda: False) -> Any:
        """The answer to what was sent. `stop` is called every 0.1 s; the answer, or Abandoned, is waited for."""
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
        """What the connection says. Raises WorkerProcessLost when the other end is gone."""
        try:
            return call(*args)
        except (EOFError, OSError) as error:
            self.close()
            code = self.process.returncode
            raise WorkerProcessLost(_how(code), code == -signal.SIGKILL) from error


class _Lines(logging.Handler):
    """Keeps what is logged here for the driver: (name of the logger, level, text)."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.name, record.levelno, record.getMessage()))

    def taken(self) -> list[tuple[str, int, str]]:
        lines, self.lines = self.lines, []
        return lines


def serve(descriptor: int, maker: str, level: int = logging.INFO) -> None:
    """What the fresh interpreter runs: questions in, answers out, until the driver is gone."""
    for kind in STOP_SIGNALS:  # a scheduler and the terminal tell every process; the driver decides
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
        except (EOFError, OSError):  # reset, where the driver went without reading the last answer
            return
        if question is None:  # a late request to stop: the answer was given
            continue
        said: Any
        try:
            said = answer(question, connection.poll)
        except BaseException as error:  # whatever it is, the driver has to know
            error.add_note("in another process:\n" + "".join(traceback.format_tb(error.__traceback__)))
            said = _sendable(error)
        try:
            connection.send((said, log_lines.taken()))
        except OSError:  # the driver is gone
            return


def _sendable(error: BaseException) -> BaseException:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # an error that does not survive pickling travels as its text
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        return f"killed by signal {-code}, {signal.Signals(-code).name}"
    return f"exit status {code}"


def own_threads() -> None:
    """In a `WorkerProcess`: torch computes with as many threads as it was given."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
