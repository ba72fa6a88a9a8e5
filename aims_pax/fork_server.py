"""A process that imports slow modules once; worker processes are then forked from it (Linux).

    driver ──► fork server: imports torch, MACE, … ─┬─ worker
                                                    └─ worker

A new interpreter needs 5 to 10 s of processor time to import them, a fork some milliseconds, and forks share the memory
of what was imported. The server starts before the driver needs a worker, while the driver imports the same modules. It
has one thread when it forks; with more (a module that starts threads when it is imported) a worker is a new
interpreter, as it is where there is no server. Forks have the threads of the server, one.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import pickle
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aims_pax.processes import STOP_SIGNALS

log = logging.getLogger(__name__)

NUMBER = struct.Struct("i")  # what the server writes to the pipe of a fork: its pid, then its exit status
REQUEST = 1 << 20  # bytes of a request: an environment and a few words


@dataclass(frozen=True)
class Request:
    """What a fork does: `target(descriptor, *arguments)`, in this environment and with this `sys.path`, both those of
    the driver now. code: does the same in a new interpreter, where the descriptor is the first argument."""

    target: str  # module:function
    arguments: tuple[Any, ...]
    environment: Mapping[str, str]
    path: tuple[str, ...]
    code: str


class ForkedProcess:
    """A fork of the server, with the methods of `subprocess.Popen` that its owner needs, for several threads.

    If the server has died, the exit status of a fork is not known: it is killed and counts as killed.
    """

    def __init__(self, status: int) -> None:
        self._status = status  # the reading end of the pipe
        self._pid: int | None = None  # 0: the server died before it forked
        self._lock = threading.Lock()  # of reading: each number is in the pipe once
        self.returncode: int | None = None

    def __del__(self) -> None:
        os.close(self._status)

    @property
    def pid(self) -> int:
        """Its pid; waits until it has been forked, which takes as long as the imports of the server. 0: never."""
        self._forked(None)
        return self._pid or 0

    def kill(self) -> None:
        """Kill it. If it has not been forked yet, it will end by itself: its connection is closed then."""
        if self.poll() is None:
            if self._pid is None:
                self.returncode = -signal.SIGKILL
            else:
                _kill(self._pid)

    def poll(self) -> int | None:
        """The exit status (-N: killed by signal N), None while it runs."""
        if self.returncode is None and self._forked(0.0):
            self._read_end(0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises subprocess.TimeoutExpired."""
        if self.returncode is None and self._forked(timeout):
            self._read_end(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("a forked process", timeout or 0.0)
        return self.returncode

    def _forked(self, timeout: float | None) -> bool:
        """Whether it has been forked or never will be; waits for it at most `timeout` seconds."""
        if self._pid is None and self.returncode is None and self._readable(timeout):
            with self._lock:
                if self._pid is None:
                    self._pid = self._number() or 0
        return self._pid is not None

    def _read_end(self, timeout: float | None) -> None:
        if not self._readable(timeout):
            return
        with self._lock:
            if self.returncode is not None:
                return
            code = self._number()
            if code is None:  # the server has died
                if self._pid:
                    _kill(self._pid)
                code = -signal.SIGKILL
            self.returncode = code

    def _readable(self, timeout: float | None) -> bool:
        with selectors.DefaultSelector() as selector:
            selector.register(self._status, selectors.EVENT_READ)
            return bool(selector.select(timeout))

    def _number(self) -> int | None:
        """The next number in the pipe; None at its end."""
        data = os.read(self._status, NUMBER.size)
        return NUMBER.unpack(data)[0] if len(data) == NUMBER.size else None


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):  # it has just ended, and the server has read its status
        os.kill(pid, signal.SIGKILL)


class ForkServer:
    """The driver's side. modules: imported by the server before its first fork."""

    def __init__(self, modules: Sequence[str]) -> None:
        self.modules = tuple(modules)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        code = (  # use the driver's sys.path: -c would put the working folder first
            f"import sys; sys.path[:] = {[str(p) for p in sys.path]!r}; "
            f"from aims_pax.fork_server import serve_forks; serve_forks({theirs.fileno()}, {self.modules!r})"
        )
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code],
                env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        self._socket = ours

    def fork(self, descriptor: int, request: Request) -> ForkedProcess | None:
        """Ask for a fork that has this descriptor; does not wait. None if the server has ended."""
        reading, writing = os.pipe()
        try:
            socket.send_fds(self._socket, [pickle.dumps(request)], [descriptor, writing])
        except OSError as error:
            os.close(reading)
            log.debug("the fork server has ended (%s)", error)
            return None
        finally:
            os.close(writing)
        return ForkedProcess(reading)

    def close(self) -> None:
        """End the server; its forks have ended or end when their driver closes their connections."""
        self._socket.close()
        self.process.kill()
        self.process.wait()


_current: ForkServer | None = None


def current() -> ForkServer | None:
    """The fork server of this process, if one was started and still runs."""
    if _current is None or _current.process.poll() is not None:
        return None
    return _current


@contextmanager
def fork_server(modules: Sequence[str]) -> Iterator[None]:
    """Inside the block `WorkerProcess` may fork its processes from a server with these modules; Linux only."""
    global _current
    if sys.platform != "linux" or not modules or _current is not None:
        yield
        return
    _current = server = ForkServer(modules)
    try:
        yield
    finally:
        _current = None
        server.close()


# ---------------------------------------------------------------- the server's side


def serve_forks(descriptor: int, modules: Sequence[str]) -> None:
    """The main loop of the server: forks until its driver has ended. A fork returns from it when its work is done."""
    for kind in STOP_SIGNALS:  # schedulers and terminals signal every process; the driver handles it
        signal.signal(kind, signal.SIG_IGN)
    for name in modules:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # the collector of a fork does not touch, and so copy, this memory
    one_thread = len(list(Path("/proc/self/task").iterdir())) == 1
    work = _fork_for_each_request(socket.socket(fileno=descriptor))
    if work is not None:
        request, theirs = work
        _become(request, theirs, one_thread)


def _fork_for_each_request(connection: socket.socket) -> tuple[Request, int] | None:
    """In a fork: its request and descriptor, without other descriptors of the server. In the server: None, at the end
    of its driver."""
    # by the descriptor that becomes readable when a fork ends: its pid, the pipe for its status
    waiting: dict[int, tuple[int, int]] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd in waiting:
                    selector.unregister(key.fd)
                    _report_end(key.fd, *waiting.pop(key.fd))
                    continue
                data, descriptors, *_ = socket.recv_fds(connection, REQUEST, 2)
                if not data:  # the driver has ended
                    return None
                theirs, pipe = descriptors
                pid = os.fork()
                if pid == 0:
                    for ours in (*waiting, *(other for _, other in waiting.values()), pipe):
                        os.close(ours)
                    connection.close()
                    return pickle.loads(data), theirs
                os.close(theirs)
                _tell(pipe, pid)
                end = os.pidfd_open(pid)
                waiting[end] = pid, pipe
                selector.register(end, selectors.EVENT_READ)


def _report_end(end: int, pid: int, pipe: int) -> None:
    """Tell the owner of a fork its exit status."""
    os.close(end)
    _tell(pipe, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    os.close(pipe)


def _tell(pipe: int, number: int) -> None:
    try:
        os.write(pipe, NUMBER.pack(number))
    except BrokenPipeError:  # the driver no longer wants to know
        log.debug("nobody waits for %d", number)


def _become(request: Request, descriptor: int, here: bool) -> None:
    """In the fork: its work, in this process or in a new interpreter."""
    if not here:
        os.set_inheritable(descriptor, True)
        words = [sys.executable, "-c", request.code, str(descriptor)]
        os.execve(sys.executable, words, dict(request.environment))
    os.environ.clear()
    os.environ.update(request.environment)
    sys.path[:] = request.path
    module, _, name = request.target.partition(":")
    getattr(importlib.import_module(module), name)(descriptor, *request.arguments)
