"""Reference calculations on a cluster: Parsl's worker pools in blocks, each block one job of a scheduler.

    driver ── interchange ──┬── block 1 (a job, nodes_per_block nodes): jobs_per_block workers
                            └── block 2 …                                    each: launch_str, e.g. mpirun aims.x

Blocks are asked for while there is work and given back when idle. A block stops taking work early enough for what it
has begun to end before its walltime. A driver that is stopped leaves its blocks, in the queue and at work, to the
next one (`handover`), which takes them over; one that has finished, or is told to cancel, ends them.
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
from aims_pax.labelling.executors.parsl_local import INTERCHANGE, ParslExecutor, QuotedPool, worker_init
from aims_pax.processes import process_started
from aims_pax.schedulers.base import NamedJob, Phase, Refused, Scheduler
from aims_pax.schedulers.registry import UNNAMED, find_scheduler

log = logging.getLogger(__name__)

PATIENCE = 20.0  # s for which a scheduler may be away when jobs are to be found or ended


class BlockExecutor(ParslExecutor):
    """HighThroughputExecutor (or MPIExecutor) on blocks of a scheduler.

    run_dir: of Parsl. folder: where workers start. restart: the folder of `handover`, of this run alone.
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
        if blocks.mpi:  # one rank a node: what a calculation really starts is up to launch_str
            self.resources = {"num_nodes": max(1, blocks.nodes // blocks.jobs), "ranks_per_node": 1}
        self.token = secrets.token_hex(4)
        self.key = secrets.token_hex(16)
        self.files = Handover((restart or run_dir).absolute())
        self.runs: list[dict[str, Any]] = []  # earlier ones, not ended yet
        self._blocks: SchedulerBlocks | None = None
        self._taken: dict[str, str] = {}  # job → name of blocks of earlier runs that serve us
        self._busy: set[str] = set()  # those of them that computed for an earlier run when we came
        self._tasks: Sequence[Any] | None = None  # left to the next run; None: nothing is left

    def __enter__(self) -> Self:
        self.scheduler.check()  # SetupError at once where there is none
        if self.blocks.walltime is not None and math.isinf(self.blocks.longest):
            log.info(
                "CLUSTER.job_time_limit: unknown, so blocks take no new work after half of their walltime"
            )
        if passed_over := self.scheduler.not_passed_on(self.blocks.header):
            log.warning(
                "set in the environment and not used for blocks: %s; %s counts",
                ", ".join(passed_over),
                self.scheduler.header_key,
            )
        self.files.forget_driver()
        self.runs = self.files.runs() or _recorded(self.run_dir)
        self._taken = self._usable()
        host, name = socket.gethostname(), self.scheduler.name
        self._record({"token": self.token, "key": self.key, "host": host, "scheduler": name})
        super().__enter__()
        self._record(self._ours())
        self.files.forget_tasks()  # what of it is still wanted we ask for ourselves
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
        """Jobs of earlier runs that still compute what we want go on; those that can serve us are ours from now on."""
        keep = set(jobs)
        self._busy = keep & set(self._taken)
        for run in [r for r in self.runs if _ended(r, keep | set(self._taken))]:
            self.runs.remove(run)
        self._record(self._ours())
        if keep:
            log.info("calculations of an earlier run go on in %d jobs", len(keep))

    def hand_over(self, tasks: Sequence[Any]) -> None:
        """When we leave, blocks stay for the next run. tasks: what they compute when they meet no driver."""
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
        """Job → name of the blocks of earlier runs that can serve this one, those that run first."""
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
            log.warning(
                "%s does not say which blocks of an earlier run are there: %s", self.scheduler.title, error
            )
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
        start = "\n".join([worker_init(None), *cd, blocks.worker])
        provider = SchedulerBlocks(
            blocks, f"{blocks.name}.{self.token}", scripts, start, self.files, self.key, dict(self._taken)
        )
        self._blocks = provider
        bound, addresses = _addresses(blocks)
        first, last = blocks.ports
        _free_port(
            bound, blocks.ports
        )  # SetupError where there is none; which one it is the interchange finds out
        common: dict[str, Any] = {
            "label": self.label,
            "provider": provider,
            "address": "127.0.0.1",  # replaced below
            "worker_port_range": (
                first,
                last + 1,
            ),  # a port chosen here may be taken before the interchange binds it
            "heartbeat_period": 15,
            "heartbeat_threshold": 60,
            "drain_period": blocks.drain,
            "launch_cmd": POOL,
            "interchange_launch_cmd": [*INTERCHANGE, "linger"],
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

    # ------------------------------------------------------------ what may be left behind

    def _ours(self) -> dict[str, Any]:
        process = getattr(self._kernel and self._kernel.executors[self.label], "interchange_proc", None)
        pid = getattr(process, "pid", None)
        started = None if pid is None else process_started(pid)
        return {
            "token": self.token, "key": self.key, "shape": self.blocks.shape, "host": socket.gethostname(),
            "interchange": pid, "started": started, "scheduler": self.scheduler.name,
        }  # fmt: skip

    def _record(self, ours: dict[str, Any]) -> None:
        self.files.write_runs([*self.runs, ours])


class Scaling(QuotedPool):
    """Parsl 2026.10: asked to give back no block, it gives back all that wait in the queue or are idle.

    handed_over: blocks and interchange stay when this driver leaves.
    """

    handed_over = False

    def scale_in(self, blocks: int, max_idletime: float | None = None) -> list[str]:
        if blocks <= 0 or self.handed_over:
            return []
        return super().scale_in(blocks, max_idletime)

    def connected_jobs(self) -> set[str]:
        """Jobs whose pools have come to us."""
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
    """An interchange that goes on without us, until its workers have finished what they began."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def terminate(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, ALONE)

    def wait(self, timeout: float | None = None) -> int:
        return 0


_staying: list[subprocess.Popen[bytes]] = []  # not to be waited for


def cancel_left(folder: Path) -> list[str]:
    """End what stopped runs have left behind by the files in this folder; the jobs that this was, by scheduler and id.

    Raises SetupError when their scheduler does not answer.
    """
    files = Handover(folder)
    runs, jobs = files.runs(), []
    for run in runs:
        scheduler = _scheduler_of(run)
        if scheduler is None:
            raise SetupError(
                f"the run before used the scheduler {run.get('scheduler')!r}, which is not installed here"
            )
        try:
            jobs += [f"{scheduler.title} job {job}" for job in _patiently(scheduler, f".{run['token']}.")]
        except Refused as error:
            raise SetupError(f"{scheduler.title} does not answer: {error}; try again in a while") from error
    files.write_runs([run for run in runs if not _ended(run, keep=set())])
    files.clear()
    return jobs


def _recorded(run_dir: Path) -> list[dict[str, Any]]:
    """What a run of an earlier version has left behind."""
    files = Handover(run_dir)
    runs = files.runs()
    files.write_runs([])
    return runs


def _token(name: str) -> str:
    """Of the run that asked for the block of this name."""
    return name.rpartition(".")[0].rpartition(".")[2]


def _scheduler_of(run: dict[str, Any]) -> Scheduler | None:
    """Of the jobs of a run; None where the package that knows it is not installed."""
    return find_scheduler(run.get("scheduler"))


def _patiently(scheduler: Scheduler, part: str) -> dict[str, NamedJob]:
    """`jobs_named`, once more as long as the scheduler is away. Raises Refused, SetupError."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return scheduler.jobs_named(part)
        except Refused:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


def _ended(run: dict[str, Any], keep: set[str]) -> bool:
    """End the jobs and the interchange of a run, unless a job is to be kept. Whether nothing is left of it."""
    deadline = time.monotonic() + PATIENCE
    scheduler = _scheduler_of(run)
    if scheduler is None:
        log.warning(
            "jobs named .%s. of %s may still be there, which is not known here",
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
                    "cannot ask %s for jobs named .%s., they may still be there: %s",
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
    """Where the interchange listens (None: everywhere), and where nodes look for it. Raises SetupError."""
    known = {
        name: [str(a.address) for a in addresses if a.family == socket.AF_INET]
        for name, addresses in psutil.net_if_addrs().items()
    }
    if blocks.interface is not None:
        if not known.get(blocks.interface):
            there = ", ".join(f"{name} ({' '.join(found)})" for name, found in known.items() if found)
            raise SetupError(
                f"CLUSTER.parsl_options.interface: {blocks.interface} has no IPv4 address on this machine; there are: "
                f"{there}"
            )
        address = known[blocks.interface][0]
        return address, {address}
    if blocks.address is not None:
        return None, {blocks.address}
    # Parsl would also ask a web service for the address outside
    found = {"127.0.0.1", *(address for addresses in known.values() for address in addresses)}
    for ask in (address_by_hostname, address_by_route):
        with suppress(Exception):  # no name service, no route: the interfaces remain
            found.add(ask())
    return None, found


def _free_port(address: str | None, ports: tuple[int, int]) -> int:
    """A port on which nobody listens yet. Raises SetupError."""
    first, last = ports
    for port in sorted(range(first, last + 1), key=lambda _: secrets.randbits(32)):
        with suppress(OSError), socket.socket() as probe:
            probe.bind((address or "", port))
            return port
    raise SetupError(
        f"CLUSTER.parsl_options.port_range: no port of {first}-{last} is free on this machine; give others"
    )
