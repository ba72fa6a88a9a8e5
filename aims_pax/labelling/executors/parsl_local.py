"""Parsl with threads of this process or worker processes on this machine; for clusters see `parsl_blocks`.

Parsl's files are below `run_dir`, its messages go to a file there, nothing is printed to the terminal, and when the
executor is closed, no thread or process of Parsl remains.
"""

from __future__ import annotations

import logging
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

from parsl.app.app import python_app
from parsl.config import Config
from parsl.dataflow.dflow import DataFlowKernel
from parsl.errors import ParslError
from parsl.executors import HighThroughputExecutor, ThreadPoolExecutor
from parsl.executors.base import ParslExecutor as Backend
from parsl.executors.errors import BadStateException
from parsl.executors.high_throughput.errors import ManagerLost, WorkerLost
from parsl.executors.high_throughput.executor import DEFAULT_LAUNCH_CMD, HTEXFuture
from parsl.jobs.error_handlers import windowed_error_handler
from parsl.jobs.states import JobState, JobStatus
from parsl.providers import LocalProvider

from aims_pax.errors import SetupError
from aims_pax.labelling.executors.base import WorkerDied

T = TypeVar("T")

LABEL = "labels"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
ANSWER = 30.0  # s in which the interchange must answer
LOST_NODE, LOST_WORKER = 0.1, 0.5  # cost of `WorkerDied`: a lost node is rarely the fault of the task


def interchange_command(*options: str) -> list[str]:
    """The command that starts our interchange for this process."""
    module = "aims_pax.labelling.executors.parsl_interchange"
    return [sys.executable, "-m", module, str(os.getpid()), *options]


class ParslExecutor:
    """Threads or worker processes (kind: threads, htex). folder: working folder of worker processes."""

    label = LABEL
    resources: dict[str, int] | None = None  # nodes and ranks of a task, for MPI only
    strategy = "simple"  # one block, replaced when it dies
    strategy_period = 0.5  # s; the block starts after the first period
    idle = 120.0

    def __init__(self, kind: str, workers: int, run_dir: Path, folder: Path | None = None) -> None:
        self.kind = kind
        self.capacity = workers
        self.outlives = kind == "htex"
        self.run_dir = Path(run_dir)
        self.folder = folder
        self._kernel: DataFlowKernel | None = None
        self._app: Callable[..., Future[Any]] | None = None
        self._log: logging.Handler | None = None

    def __enter__(self) -> Self:
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self._log = _log_to(self.run_dir / "parsl.log")
        config = Config(
            executors=[self._backend()],
            run_dir=str(self.run_dir),
            strategy=self.strategy,
            strategy_period=self.strategy_period,
            max_idletime=self.idle,
            retries=0,
            usage_tracking=0,
            initialize_logging=False,
        )
        try:
            self._kernel = DataFlowKernel(config)
        except Exception as error:
            if "Interchange failed to start" not in str(error):
                raise
            raise SetupError(
                f"Parsl's interchange has not started within two minutes; see interchange.log below {self.run_dir} and "
                "its messages above. If a port was in use, set other ones in CLUSTER.parsl_options.port_range; if "
                "this machine is too busy, run the same command again"
            ) from error
        self._watch(self._kernel)
        self._app = python_app(_call, data_flow_kernel=self._kernel, cache=False, executors=[self.label])
        return self

    def inherit(self, jobs: Iterable[str]) -> None:
        """Worker processes on this machine end with their driver: nothing is left of an earlier run."""

    def hand_over(self, tasks: Sequence[Any]) -> None:
        """Nothing: worker processes on this machine end with their driver."""

    def submit(self, function: Callable[..., T], *args: Any) -> Future[T]:
        """Hand a task to Parsl. The function must be importable by name when workers are processes."""
        if self._kernel is None:
            raise RuntimeError("the executor is not open: use it as a context manager")
        assert self._app is not None
        promise: Future[T] = Future()
        specification = {} if self.resources is None else {"parsl_resource_specification": self.resources}
        self._app(function, *args, **specification).add_done_callback(
            lambda done: self._pass_on(done, promise)
        )
        return promise

    def _pass_on(self, done: Future[T], promise: Future[T]) -> None:
        """Set the result, with Parsl's exceptions converted to WorkerDied or SetupError."""
        error = done.exception()
        if self._kernel is None and isinstance(error, ManagerLost):
            return  # this executor is closing and the worker may still run: ignore the loss
        verdict = getattr(self._kernel and self._kernel.executors[self.label], "executor_exception", None)
        if isinstance(error, WorkerLost | ManagerLost):
            error = WorkerDied(str(error), LOST_NODE if isinstance(error, ManagerLost) else LOST_WORKER)
        elif isinstance(error, ParslError) and isinstance(verdict, SetupError):
            error = verdict
        elif isinstance(error, ParslError):
            error = SetupError(
                f"worker processes cannot be kept running: {str(error).strip()} "
                f"(more in {self._kernel.run_dir if self._kernel else self.run_dir})"
            )
        if error is None:
            promise.set_result(done.result())
        else:
            promise.set_exception(error)

    def _watch(self, kernel: DataFlowKernel) -> None:
        """Fail all tasks when the interchange dies: Parsl does not check, and would wait forever for its answers."""
        backend: Any = kernel.executors[self.label]
        process = getattr(backend, "interchange_proc", None)
        if process is None:
            return
        backend.command_client.run = partial(backend.command_client.run, timeout_s=ANSWER)

        def wait() -> None:
            code = process.wait()
            if self._kernel is kernel:
                backend.command_client.ok = False
                how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
                backend.set_bad_state_and_fail_all(
                    SetupError(
                        f"the process between this run and its workers has ended ({how}; its log is below "
                        f"{kernel.run_dir}). Check the memory of this machine, then run again: nothing is lost"
                    )
                )

        threading.Thread(target=wait, name="interchange", daemon=True).start()

    def __exit__(self, *exception: object) -> None:
        kernel, self._kernel = self._kernel, None
        if kernel is None:
            return
        groups = _process_groups(kernel)
        process: Any = getattr(kernel.executors[self.label], "interchange_proc", None)
        if process is not None and not getattr(kernel.executors[self.label], "handed_over", False):
            process.terminate = process.kill  # it ignores SIGTERM
        kernel.cleanup()
        end_process_groups(groups)
        with suppress(OSError):
            Path(kernel.run_dir).rmdir()  # empty with threads
        if self._log is not None:
            _stop_log(self._log)

    def _backend(self) -> Backend:
        if self.kind == "threads":
            return ThreadPoolExecutor(label=self.label, max_threads=self.capacity)
        return QuotedPool(
            label=self.label,
            address="127.0.0.1",
            heartbeat_period=5,  # a dead worker is noticed after one period
            heartbeat_threshold=60,  # dead pools, and workers without a driver, after this
            max_workers_per_node=self.capacity,
            cores_per_worker=1e-3,  # the number of workers is the user's choice, not the core count's
            launch_cmd=pool_command(),
            interchange_launch_cmd=interchange_command(),
            # the default handler fails every task when the first block dies
            block_error_handler=partial(windowed_error_handler, threshold=3),
            provider=LocalPools(  # type: ignore[no-untyped-call]
                init_blocks=1, min_blocks=1, max_blocks=1, worker_init=worker_init(self.folder)
            ),
        )


class QuotedPool(HighThroughputExecutor):
    """Parsl's executor without two of its faults.

    Parsl does not quote paths in shell commands: with a space in a path no worker would start. And when it gives up, it
    forgets tasks that another thread is just handing over or finishing: they would be waited for without end.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._handing_over = threading.Lock()  # held while a task is registered, and while all of them fail

    def submit_payload(self, context: dict[str, Any], buffer: bytes) -> HTEXFuture:
        with self._handing_over:
            return super().submit_payload(context, buffer)

    def set_bad_state_and_fail_all(self, exception: Exception) -> None:
        with self._handing_over:
            if not self.bad_state_is_set:
                logging.getLogger("parsl").error("giving up the workers: %s", exception)
                self._executor_exception = exception
                self._executor_bad_state.set()
            lost = list(self.tasks.values())
        for future in lost:
            with suppress(InvalidStateError):  # its result has come in the meantime
                future.set_exception(BadStateException(self, self._executor_exception))  # type: ignore[no-untyped-call]

    def initialize_scaling(self) -> None:
        paths = {name: getattr(self, name) for name in ("cert_dir", "worker_logdir_root", "run_dir")}
        try:
            for name, path in paths.items():
                if path is not None:
                    setattr(self, name, _quoted(path))
            super().initialize_scaling()  # type: ignore[no-untyped-call]
        finally:
            for name, path in paths.items():
                setattr(self, name, path)


class LocalPools(LocalProvider):
    """Quotes the path of the script that starts the workers."""

    def submit(self, command: str, tasks_per_node: int, job_name: str = "labels") -> str:
        script = os.path.abspath(f"{self.script_dir}/{job_name}.{time.time()}.sh")
        launched = self.launcher(command, tasks_per_node, self.nodes_per_block)
        Path(script).write_text(f"{self.worker_init}\n{launched}")
        # as Parsl does it: `status` reads the exit code from a file
        start = (
            'echo - > "$0.ec" && { { bash "$0" 1> "$0.out" 2> "$0.err"; echo $? > "$0.ec"; } '
            ">/dev/null 2>&1 & echo $!; }"
        )
        pid = subprocess.run(
            ["/bin/bash", "-c", start, script],
            capture_output=True,
            text=True,
            check=True,
            start_new_session=True,
        ).stdout.strip()
        status = JobStatus(JobState.RUNNING)
        self.resources[pid] = {"job_id": pid, "status": status, "remote_pid": int(pid), "script_path": script}
        return pid


def _quoted(path: str) -> str:
    """The path quoted for the shell, and escaped for `str.format`, which Parsl applies to the command."""
    return shlex.quote(str(path)).replace("{", "{{").replace("}", "}}")


def _call(function: Callable[..., T], *args: Any, parsl_resource_specification: Any = {}) -> T:  # noqa: B006
    return function(*args)  # Parsl wants a signature, which built-in functions lack, and reads that default


def pool_command() -> str:
    """The pool's command with the path of this Python: Parsl searches PATH, where it may be missing."""
    python = _quoted(sys.executable).replace("{", "{{").replace("}", "}}")  # read as a format string twice
    module = "parsl.executors.high_throughput.process_worker_pool"
    return DEFAULT_LAUNCH_CMD.replace("process_worker_pool.py", f"{python} -m {module}", 1)


def worker_init(folder: Path | None, chosen: Collection[str] = ()) -> str:
    """Shell lines that set one thread per worker: there is one worker per core, and forked OpenMP threads deadlock.

    chosen: those of THREADS that the user has set.
    """
    lines = [f"export {name}=1" for name in THREADS if name not in chosen]
    if folder is not None:
        lines.append(f"cd {shlex.quote(str(folder))}")
    return "\n".join(lines)


def _process_groups(kernel: DataFlowKernel) -> list[int]:
    """The process groups of the local worker pools."""
    groups = []
    for job in (
        job
        for e in kernel.executors.values()
        for job in getattr(getattr(e, "provider", None), "resources", {}).values()
    ):
        with suppress(ProcessLookupError, KeyError):
            groups.append(os.getpgid(job["remote_pid"]))
    return groups


def end_process_groups(groups: list[int]) -> None:
    """End processes that Parsl's cleanup has not ended (it needs `ps`, which small machines lack)."""
    for group in groups:
        for sign, patience in ((signal.SIGTERM, 2.0), (signal.SIGKILL, 1.0)):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, sign)
                deadline = time.monotonic() + patience
                while time.monotonic() < deadline:
                    os.killpg(group, 0)
                    time.sleep(0.02)


def _log_to(path: Path) -> logging.Handler:
    handler = logging.FileHandler(path, delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("parsl")
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)
    logger.propagate = False  # else warnings reach the terminal through the root logger
    return handler


def _stop_log(handler: logging.Handler) -> None:
    logging.getLogger("parsl").removeHandler(handler)
    handler.close()
