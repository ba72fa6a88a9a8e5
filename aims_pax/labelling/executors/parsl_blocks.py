"""Reference calculations on a cluster: Parsl's worker pools in blocks, each block one Slurm job.

    driver ── interchange ──┬── block 1 (Slurm job, nodes_per_block nodes): jobs_per_block workers
                            └── block 2 …                                    each: launch_str, e.g. srun aims.x

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
from aims_pax.labelling.executors.block_provider import POOL, BlockErrors, SlurmBlocks
from aims_pax.labelling.executors.block_request import Blocks
from aims_pax.labelling.executors.handover import Handover
from aims_pax.labelling.executors.parsl_interchange import ALONE
from aims_pax.labelling.executors.parsl_local import INTERCHANGE, ParslExecutor, QuotedPool, worker_init
from aims_pax.labelling.schedulers import slurm
from aims_pax.processes import process_started
from aims_pax.settings.sbatch import sbatch_options

log = logging.getLogger(__name__)

PATIENCE = 20.0  # s for which a controller may be away when jobs are to be found or ended


class SlurmExecutor(ParslExecutor):
    """HighThroughputExecutor (or MPIExecutor) on Slurm blocks.

    run_dir: of Parsl. folder: where workers start. restart: the folder of `handover`, of this run alone.
    """

    strategy = "htex_auto_scale"
    strategy_period = 5.0

    def __init__(
        self, blocks: Blocks, run_dir: Path, folder: Path | None = None, restart: Path | None = None
    ) -> None:
        super().__init__("slurm", blocks.most * blocks.jobs, run_dir, folder)
        self.outlives = True
        self.blocks = blocks
        self.label = blocks.label
        self.idle = blocks.idle
        if blocks.mpi:  # one rank a node: what a calculation really starts is up to launch_str
            self.resources = {"num_nodes": max(1, blocks.nodes // blocks.jobs), "ranks_per_node": 1}
        self.token = secrets.token_hex(4)
        self.key = secrets.token_hex(16)
        self.files = Handover((restart or run_dir).absolute())
        self.runs: list[dict[str, Any]] = []  # earlier ones, not ended yet
        self._blocks: SlurmBlocks | None = None
        self._taken: dict[str, str] = {}  # job → name of blocks of earlier runs that serve us
        self._busy: set[str] = set()  # those of them that computed for an earlier run when we came
        self._tasks: Sequence[Any] | None = None  # left to the next run; None: nothing is left

    def __enter__(self) -> Self:
        slurm.run_slurm("squeue", "--version")  # SetupError at once where there is no Slurm
        if self.blocks.walltime is not None and math.isinf(self.blocks.longest):
            log.info("CLUSTER.job_time_limit: unknown, so blocks take no new work after half of their --time")
        if passed_over := slurm.overridden(sbatch_options(self.blocks.header)):
            log.warning(
                "set in the environment and not used for blocks: %s; slurm_str counts", ", ".join(passed_over)
            )
        self.files.forget_driver()
        self.runs = self.files.runs() or _recorded(self.run_dir)
        self._taken = self._usable()
        self._record({"token": self.token, "key": self.key, "host": socket.gethostname()})
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
            log.info("calculations of an earlier run go on in %d Slurm jobs", len(keep))

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
        log.info("%d Slurm jobs are left to the next run; aims-PAX stop --cancel ends them", left)

    def _usable(self) -> dict[str, str]:
        """Job → name of the blocks of earlier runs that can serve this one, those that run first."""
        tokens = {r["token"] for r in self.runs if r.get("shape") == self.blocks.shape}
        if not tokens:
            return {}
        try:
            found = _patiently(".")
        except (slurm.Refused, SetupError) as error:
            log.warning("Slurm does not say which blocks of an earlier run are there: %s", error)
            return {}
        ours = {
            job: (name, state)
            for job, (name, state) in found.items()
            if _token(name) in tokens and state not in (*slurm.ENDED, "COMPLETING")
        }
        order = sorted(ours, key=lambda job: (ours[job][1] != "RUNNING", int(job) if job.isdigit() else 0))
        return {job: ours[job][0] for job in order[: self.blocks.most]}

    # ------------------------------------------------------------ Parsl

    def _backend(self) -> Backend:
        blocks = self.blocks
        scripts = (blocks.scripts or self.run_dir / "blocks").absolute()
        scripts.mkdir(parents=True, exist_ok=True)
        cd = [f"cd {shlex.quote(str(self.folder))}"] if self.folder is not None else []
        start = "\n".join([worker_init(None), *cd, blocks.worker])
        provider = SlurmBlocks(
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
            backend: Scaling = MPIPool(mpi_launcher="srun", max_workers_per_block=blocks.jobs, **common)
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
            "interchange": pid, "started": started,
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
    """End what stopped runs have left behind by the files in this folder; the Slurm jobs that this was.

    Raises SetupError when Slurm does not answer.
    """
    files = Handover(folder)
    runs, jobs = files.runs(), []
    try:
        for run in runs:
            jobs += list(_patiently(f".{run['token']}."))
    except slurm.Refused as error:
        raise SetupError(f"Slurm does not answer: {error}; try again in a while") from error
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


def _patiently(part: str) -> dict[str, tuple[str, str]]:
    """`slurm.jobs_named`, once more as long as the controller is away. Raises Refused, SetupError."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return slurm.jobs_named(part)
        except slurm.Refused:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


def _ended(run: dict[str, Any], keep: set[str]) -> bool:
    """End the jobs and the interchange of a run, unless a job is to be kept. Whether nothing is left of it."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            jobs = set(slurm.jobs_named(f".{run['token']}."))
            slurm.cancel(jobs - keep)
            if not jobs - keep or not slurm.alive(jobs - keep):
                break
        except (slurm.Refused, SetupError) as error:
            if time.monotonic() > deadline:
                log.warning(
                    "cannot ask Slurm for jobs named .%s., they may still be there: %s", run["token"], error
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
