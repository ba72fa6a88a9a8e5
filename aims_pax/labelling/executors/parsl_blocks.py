"""Reference calculations on a cluster: Parsl's worker pools in blocks, each block one job of a scheduler.

    driver ── interchange ──┬── block 1 (a job, nodes_per_block nodes): jobs_per_block workers
                            └── block 2 …                                    each: launch_str, e.g. mpirun aims.x

Blocks are submitted while there is work and cancelled when idle. A block stops taking work early enough for its
running calculations to end before its walltime. A driver that is stopped leaves its blocks, waiting and running, to
the next driver (`handover`); a driver that has finished, or that the user cancels, ends them.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import psutil
from parsl.addresses import address_by_hostname, address_by_route
from parsl.executors import MPIExecutor
from parsl.executors.base import ParslExecutor as Backend

from aims_pax.errors import SetupError
from aims_pax.labelling.executors.block_provider import POOL, BlockErrors, SchedulerBlocks
from aims_pax.labelling.executors.block_request import Blocks
from aims_pax.labelling.executors.handover import Handover
from aims_pax.labelling.executors.parsl_interchange import ALONE
from aims_pax.labelling.executors.parsl_local import (
    THREADS,
    ParslExecutor,
    QuotedPool,
    interchange_command,
    worker_init,
)
from aims_pax.processes import process_started
from aims_pax.schedulers.base import NamedJob, Phase, Refused, Scheduler
from aims_pax.schedulers.registry import UNNAMED, find_scheduler

log = logging.getLogger(__name__)

PATIENCE = 20.0  # s for which to retry when a scheduler does not answer


class BlockExecutor(ParslExecutor):
    """HighThroughputExecutor (or MPIExecutor) on blocks of a scheduler.

    run_dir: for Parsl's files. folder: working folder of the workers. restart: the folder of `handover`, locked by us.
    """

    strategy = "htex_auto_scale"
    strategy_period = 5.0

    def __init__(
        self, blocks: Blocks, run_dir: Path, folder: Path | None = None, restart: Path | None = None
    ) -> None:
        super().__init__("blocks", blocks.most * blocks.jobs, run_dir, folder)
        self.outlives = True
        self.blocks = blocks
        self.scheduler = blocks.scheduler
        self.label = blocks.label
        self.idle = blocks.idle
        if blocks.mpi:  # one rank per node for Parsl; the real number is set by launch_str
            self.resources = {"num_nodes": max(1, blocks.nodes // blocks.jobs), "ranks_per_node": 1}
        self.token = secrets.token_hex(4)
        self.key = secrets.token_hex(16)
        self.files = Handover((restart or run_dir).absolute())
        self.runs: list[dict[str, Any]] = []  # earlier runs that have not ended completely
        self._blocks: SchedulerBlocks | None = None
        self._taken: dict[str, str] = {}  # job → name, of blocks taken over from earlier runs
        self._busy: set[str] = set()  # those of them that computed for an earlier run when taken over
        self._tasks: Sequence[Any] | None = None  # for the next run; None: end all blocks

    def __enter__(self) -> Self:
        self.scheduler.check()  # SetupError at once without a scheduler
        if self.blocks.walltime is not None and math.isinf(self.blocks.longest):
            log.info(
                "CLUSTER.job_time_limit: unknown, so blocks take no new work after half of their walltime"
            )
        if passed_over := self.scheduler.not_passed_on(self.blocks.header):
            log.warning(
                "set in the environment and not used for blocks: %s; %s is used instead",
                ", ".join(passed_over),
                self.scheduler.header_key,
            )
        self.files.forget_driver()
        self.runs = self.files.runs() or _recorded(self.run_dir)
        self._taken = self._usable()
        self._record(self._ours())
        super().__enter__()
        self._record(self._ours())
        self.files.forget_tasks()  # this run requests again what it still needs
        return self

    def __exit__(self, *exception: object) -> None:
        ours = self._ours()
        backend: Any = self._kernel and self._kernel.executors[self.label]
        if self._tasks is not None and backend is not None and not backend.bad_state_is_set:
            self._leave(backend, ours)
            super().__exit__(*exception)
            return
        self.files.forget_driver()
        if self._blocks is not None:
            self._blocks.protected = set
        super().__exit__(*exception)
        self.runs = [run for run in [*self.runs, ours] if not _ended(run, keep=set())]
        self.files.write_runs(self.runs)
        self.files.clear()

    def inherit(self, jobs: Iterable[str]) -> None:
        """Let these jobs of earlier runs finish their calculations; take over the blocks that this run can use."""
        keep = set(jobs)
        self._busy = keep & set(self._taken)
        for run in [r for r in self.runs if _ended(r, keep | set(self._taken))]:
            self.runs.remove(run)
        self._record(self._ours())
        if keep:
            log.info("calculations of an earlier run continue in %d jobs", len(keep))

    def hand_over(self, tasks: Sequence[Any]) -> None:
        """Leave the blocks to the next run at the end. tasks: what they compute while no driver runs."""
        self._tasks = tasks

    def _leave(self, backend: Any, ours: dict[str, Any]) -> None:
        self.files.forget_driver()
        self._record(ours)
        with suppress(SetupError):  # a full disk: the blocks wait for a driver
            self.files.leave_tasks(self._tasks or (), [r["key"] for r in [*self.runs, ours] if "key" in r])
        backend.handed_over = True
        assert self._blocks is not None
        left = sum(not self._blocks._over(job) for job in self._blocks.resources)
        log.info("%d jobs are left to the next run; aims-PAX stop --cancel ends them", left)

    def _usable(self) -> dict[str, str]:
        """Job → name of the blocks of earlier runs that this run can use; running ones first."""
        tokens = {
            r["token"]
            for r in self.runs
            if r.get("shape") == self.blocks.shape and r.get("scheduler", UNNAMED) == self.scheduler.name
        }
        if not tokens:
            return {}
        try:
            found = _patiently(self.scheduler, ".")
        except (Refused, SetupError) as error:
            log.warning("cannot ask %s for the blocks of an earlier run: %s", self.scheduler.title, error)
            return {}
        ours = {
            job: named
            for job, named in found.items()
            if _token(named.name) in tokens and not named.state.ended and named.state.phase != Phase.ENDING
        }
        order = sorted(
            ours, key=lambda job: (ours[job].state.phase != Phase.RUNNING, int(job) if job.isdigit() else 0)
        )
        return {job: ours[job].name for job in order[: self.blocks.most]}

    # ------------------------------------------------------------ Parsl

    def _backend(self) -> Backend:
        blocks = self.blocks
        scripts = (blocks.scripts or self.run_dir / "blocks").absolute()
        scripts.mkdir(parents=True, exist_ok=True)
        cd = [f"cd {shlex.quote(str(self.folder))}"] if self.folder is not None else []
        chosen = [name for name in THREADS if blocks.header_sets(name)]
        start = "\n".join([worker_init(None, chosen), *cd, blocks.worker])
        provider = SchedulerBlocks(
            blocks, f"{blocks.name}.{self.token}", scripts, start, self.files, self.key, dict(self._taken)
        )
        self._blocks = provider
        bound, addresses = _addresses(blocks)
        first, last = blocks.ports
        _free_port(bound, blocks.ports)  # only to raise SetupError early: the interchange chooses the port
        common: dict[str, Any] = {
            "label": self.label,
            "provider": provider,
            "address": "127.0.0.1",  # replaced below
            # not one port: it might be taken before the interchange binds it
            "worker_port_range": (
                first,
                last + 1,
            ),
            "heartbeat_period": 15,
            "heartbeat_threshold": 60,
            "drain_period": blocks.drain,
            "launch_cmd": POOL,
            "interchange_launch_cmd": interchange_command("linger"),
            "block_error_handler": BlockErrors(provider),
            "encrypted": True,
            "worker_logdir_root": str(self.run_dir.absolute()),
        }
        if blocks.mpi:
            launch = common.pop("interchange_launch_cmd")  # its annotation allows no list
            backend: Scaling = MPIPool(
                mpi_launcher=self.scheduler.mpi_launcher or "", max_workers_per_block=blocks.jobs, **common
            )
            backend.interchange_launch_cmd = launch
        else:
            backend = Scaling(
                max_workers_per_node=blocks.jobs, cores_per_worker=1e-3, cpu_affinity="none", **common
            )
        backend.address = bound
        backend.all_addresses = addresses
        provider.protected = lambda: self._busy - backend.connected_jobs()
        return backend

    # ------------------------------------------------------------ what this run may leave running

    def _ours(self) -> dict[str, Any]:
        process = getattr(self._kernel and self._kernel.executors[self.label], "interchange_proc", None)
        pid = getattr(process, "pid", None)
        started = None if pid is None else process_started(pid)
        return {
            "token": self.token, "key": self.key, "shape": self.blocks.shape, "host": socket.gethostname(),
            "interchange": pid, "started": started, "scheduler": self.scheduler.name,
            "folder": str(self.files.folder),
        }  # fmt: skip

    def _record(self, ours: dict[str, Any]) -> None:
        self.files.write_runs([*self.runs, ours])


class Scaling(QuotedPool):
    """Works around Parsl 2026.10, which cancels all waiting and idle blocks when asked to cancel none.

    handed_over: blocks and interchange stay when this driver ends.
    """

    handed_over = False

    def scale_in(self, blocks: int, max_idletime: float | None = None) -> list[str]:
        if blocks <= 0 or self.handed_over:
            return []
        return super().scale_in(blocks, max_idletime)

    def connected_jobs(self) -> set[str]:
        """Jobs whose pools have connected to this driver."""
        blocks = self.connected_blocks()
        return {str(self.blocks_to_job_id[b]) for b in blocks if b in self.blocks_to_job_id}

    def shutdown(self, timeout: float = 10.0) -> None:
        if self.handed_over and self.interchange_proc is not None:
            _staying.append(self.interchange_proc)
            self.interchange_proc = _Staying(self.interchange_proc)  # type: ignore[assignment]
        super().shutdown(timeout)


class MPIPool(Scaling, MPIExecutor):
    pass


class _Staying:
    """An interchange that continues without the driver until its workers have finished their tasks."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def terminate(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, ALONE)

    def wait(self, timeout: float | None = None) -> int:
        return 0


_staying: list[subprocess.Popen[bytes]] = []  # stored: Popen warns when deleted before its process ends


def cancel_left(folder: Path) -> list[str]:
    """End the jobs that stopped runs of this folder have left; returns them as `scheduler job id`.

    Raises SetupError when their scheduler does not answer.
    """
    files = Handover(folder)
    runs, jobs = files.runs(), []
    for run in runs:
        scheduler = _scheduler_of(run)
        if scheduler is None:
            raise SetupError(
                f"the last run used the scheduler {run.get('scheduler')!r}, which is not installed here"
            )
        try:
            jobs += [f"{scheduler.title} job {job}" for job in _patiently(scheduler, f".{run['token']}.")]
        except Refused as error:
            raise SetupError(f"{scheduler.title} does not answer: {error}; try again later") from error
    files.write_runs([run for run in runs if not _ended(run, keep=set())])
    files.clear()
    return jobs


def _recorded(run_dir: Path) -> list[dict[str, Any]]:
    """What a run of an earlier version left running: its runs.json is in Parsl's folder. The file is removed."""
    files = Handover(run_dir)
    runs = files.runs()
    files.write_runs([])
    return runs


def _token(name: str) -> str:
    """The token of the run that submitted the block of this name."""
    return name.rpartition(".")[0].rpartition(".")[2]


def _scheduler_of(run: dict[str, Any]) -> Scheduler | None:
    """The scheduler of a run's jobs; None where the package that provides it is not installed."""
    return find_scheduler(run.get("scheduler"))


def _patiently(scheduler: Scheduler, part: str) -> dict[str, NamedJob]:
    """`jobs_named`, repeated for `PATIENCE` seconds while the scheduler does not answer. Raises Refused, SetupError."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return scheduler.jobs_named(part)
        except Refused:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


def _ended(run: dict[str, Any], keep: set[str]) -> bool:
    """End the jobs of a run, except `keep`, and its interchange. Returns whether nothing is left of the run."""
    deadline = time.monotonic() + PATIENCE
    scheduler = _scheduler_of(run)
    if scheduler is None:
        log.warning(
            "jobs named .%s. may still exist; their scheduler %s is not installed here",
            run["token"],
            run["scheduler"],
        )
        return False
    while True:
        try:
            jobs = set(scheduler.jobs_named(f".{run['token']}."))
            scheduler.cancel(jobs - keep)
            if not jobs - keep or not scheduler.alive(jobs - keep):
                break
        except (Refused, SetupError) as error:
            if time.monotonic() > deadline:
                log.warning(
                    "cannot ask %s for jobs named .%s., they may still exist: %s",
                    scheduler.title,
                    run["token"],
                    error,
                )
                return False
            time.sleep(1)
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    if jobs & keep:
        return False
    pid, started = run.get("interchange"), run.get("started")
    if run.get("host") == socket.gethostname() and pid and started and process_started(pid) == started:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    return True


def _addresses(blocks: Blocks) -> tuple[str | None, set[str]]:
    """The address on which the interchange listens (None: all), and those that nodes try. Raises SetupError."""
    known = {
        name: [str(a.address) for a in addresses if a.family == socket.AF_INET]
        for name, addresses in psutil.net_if_addrs().items()
    }
    if blocks.interface is not None:
        if not known.get(blocks.interface):
            there = ", ".join(f"{name} ({' '.join(found)})" for name, found in known.items() if found)
            raise SetupError(
                f"CLUSTER.parsl_options.interface: {blocks.interface} has no IPv4 address on this machine; available: "
                f"{there}"
            )
        address = known[blocks.interface][0]
        return address, {address}
    if blocks.address is not None:
        return None, {blocks.address}
    # Parsl would also ask a web service for the public address
    found = {"127.0.0.1", *(address for addresses in known.values() for address in addresses)}
    for ask in (address_by_hostname, address_by_route):
        with suppress(Exception):  # no name service, no route: the interfaces remain
            found.add(ask())
    return None, found


def _free_port(address: str | None, ports: tuple[int, int]) -> int:
    """A free port. Raises SetupError when there is none."""
    first, last = ports
    for port in sorted(range(first, last + 1), key=lambda _: secrets.randbits(32)):
        with suppress(OSError), socket.socket() as probe:
            probe.bind((address or "", port))
            return port
    raise SetupError(
        f"CLUSTER.parsl_options.port_range: no port of {first}-{last} is free on this machine; give another range"
    )
