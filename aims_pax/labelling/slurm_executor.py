"""Reference calculations on a cluster: Parsl's worker pools in blocks, each block one Slurm job.

    driver ── interchange ──┬── block 1 (Slurm job, nodes_per_block nodes): jobs_per_block workers
                            └── block 2 …                                    each: launch_str, e.g. srun aims.x

Blocks are asked for while there is work and given back when idle. A block stops taking work early enough for
what it has begun to end before its walltime. `{run_dir}/runs.json` names every run that may have left something
behind; the next run in the folder ends it, except what still computes labels we want.
"""

from __future__ import annotations

import json
import logging
import math
import os
import secrets
import shlex
import signal
import socket
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from parsl.addresses import address_by_hostname, address_by_interface, address_by_route
from parsl.executors import HighThroughputExecutor, MPIExecutor
from parsl.executors.base import ParslExecutor as Backend
from parsl.jobs.states import JobState, JobStatus
from parsl.launchers import SimpleLauncher
from parsl.providers.cluster_provider import ClusterProvider

from aims_pax.errors import SetupError
from aims_pax.labelling import slurm
from aims_pax.labelling.blocks import Blocks, job_script
from aims_pax.labelling.claims import process_started
from aims_pax.labelling.parsl_executor import INTERCHANGE, ParslExecutor, pool_command, worker_init
from aims_pax.record.files import write_text

log = logging.getLogger(__name__)

STILLBORN = 3  # blocks in a row that never registered: there is no point in asking for more
BACK_OFF = 15.0  # s after Slurm could not be reached
STATES = {
    "PENDING": JobState.PENDING, "CONFIGURING": JobState.PENDING, "REQUEUED": JobState.PENDING,
    "REQUEUE_HOLD": JobState.PENDING, "SPECIAL_EXIT": JobState.FAILED, "SUSPENDED": JobState.HELD,
    "COMPLETED": JobState.COMPLETED, "CANCELLED": JobState.CANCELLED, "TIMEOUT": JobState.TIMEOUT,
    "DEADLINE": JobState.TIMEOUT, "PREEMPTED": JobState.TIMEOUT,
}  # fmt: skip


class SlurmExecutor(ParslExecutor):
    """HighThroughputExecutor (or MPIExecutor) on Slurm blocks."""

    strategy = "htex_auto_scale"
    strategy_period = 5.0

    def __init__(self, blocks: Blocks, run_dir: Path, folder: Path | None = None) -> None:
        super().__init__("slurm", blocks.most * blocks.jobs, run_dir, folder)
        self.outlives = True
        self.blocks = blocks
        self.label = blocks.label
        self.idle = blocks.idle
        if blocks.mpi:  # one rank a node: what a calculation really starts is up to launch_str
            self.resources = {"num_nodes": max(1, blocks.nodes // blocks.jobs), "ranks_per_node": 1}
        self.token = secrets.token_hex(4)
        self.runs: list[dict[str, Any]] = []  # earlier ones, not ended yet

    def __enter__(self) -> Self:
        slurm.run("squeue", "--version")  # SetupError at once where there is no Slurm
        if self.blocks.walltime is not None and math.isinf(self.blocks.longest):
            log.info("CLUSTER.job_time_limit: unknown, so blocks take no new work after half of their --time")
        self.runs = self._recorded()
        self._record({"token": self.token, "host": socket.gethostname()})
        super().__enter__()
        self._record(self._ours())
        return self

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        mine = {"token": self.token, "host": socket.gethostname()}
        left = [run for run in [*self.runs, mine] if not _ended(run, keep=set())]
        self.runs = left
        self._write(left)

    def inherit(self, jobs: Iterable[str]) -> None:
        """Jobs of earlier runs that still compute what we want go on; they leave when they are done."""
        keep = set(jobs)
        for run in [r for r in self.runs if _ended(r, keep)]:
            self.runs.remove(run)
        self._record(self._ours())
        if self.runs:
            log.info("calculations of an earlier run go on in %d Slurm jobs", len(keep))

    # ------------------------------------------------------------ Parsl

    def _backend(self) -> Backend:
        blocks = self.blocks
        scripts = blocks.scripts or self.run_dir / "blocks"
        scripts.mkdir(parents=True, exist_ok=True)
        python_path = [f"cd {shlex.quote(str(self.folder))}"] if self.folder is not None else []
        start = "\n".join([worker_init(None), *python_path, blocks.worker])
        provider = SlurmBlocks(blocks, f"{blocks.name}.{self.token}", scripts, start)
        common: dict[str, Any] = {
            "label": self.label,
            "provider": provider,
            "address": "127.0.0.1",  # replaced below
            "heartbeat_period": 15,
            "heartbeat_threshold": 60,
            "drain_period": blocks.drain,
            "launch_cmd": pool_command(),
            "interchange_launch_cmd": [*INTERCHANGE, "linger"],
            "block_error_handler": BlockErrors(provider),
            "encrypted": True,
            "worker_logdir_root": str(self.run_dir),
        }
        if blocks.mpi:
            launch = common.pop("interchange_launch_cmd")  # its annotation allows no list
            backend: HighThroughputExecutor = MPIPool(
                mpi_launcher="srun", max_workers_per_block=blocks.jobs, **common
            )
            backend.interchange_launch_cmd = launch
        else:
            backend = Scaling(
                max_workers_per_node=blocks.jobs, cores_per_worker=1e-3, cpu_affinity="none", **common
            )
        backend.address = None  # listen on every interface
        backend.all_addresses = _addresses()
        return backend

    # ------------------------------------------------------------ what may be left behind

    def _ours(self) -> dict[str, Any]:
        process = getattr(self._kernel and self._kernel.executors[self.label], "interchange_proc", None)
        pid = getattr(process, "pid", None)
        started = None if pid is None else process_started(pid)
        return {"token": self.token, "host": socket.gethostname(), "interchange": pid, "started": started}

    def _recorded(self) -> list[dict[str, Any]]:
        try:
            runs = json.loads((self.run_dir / "runs.json").read_text())
            return [r for r in runs if isinstance(r, dict) and isinstance(r.get("token"), str)]
        except (OSError, ValueError, TypeError):
            return []

    def _record(self, ours: dict[str, Any]) -> None:
        self._write([*self.runs, ours])

    def _write(self, runs: list[dict[str, Any]]) -> None:
        path = self.run_dir / "runs.json"
        if runs:
            write_text(path, json.dumps(runs))
        else:
            path.unlink(missing_ok=True)


class Scaling(HighThroughputExecutor):
    """Parsl 2026.10: asked to give back no block, it gives back all that wait in the queue or are idle."""

    def scale_in(self, blocks: int, max_idletime: float | None = None) -> list[str]:
        return super().scale_in(blocks, max_idletime) if blocks > 0 else []


class MPIPool(Scaling, MPIExecutor):
    pass


class SlurmBlocks(ClusterProvider):
    """Blocks by sbatch, squeue and scancel.

    Parsl's own SlurmProvider forgets how a job ended at the next look, takes a job that Slurm has forgotten
    for running, and knows only HH:MM:SS.
    """

    def __init__(self, blocks: Blocks, name: str, scripts: Path, start: str) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            "slurm",
            nodes_per_block=1,  # as Parsl counts places for work: `jobs` in a block, however many nodes it has
            init_blocks=min(blocks.init, blocks.most),
            min_blocks=min(blocks.least, blocks.most),
            max_blocks=blocks.most,
            parallelism=1.0,
            walltime="",
            launcher=SimpleLauncher(),
        )
        self.blocks = blocks
        self.name = name
        self.scripts = scripts
        self.start = start
        self.quiet_until = 0.0
        self.last_refusal: slurm.Refused | None = None
        self._serial = 0
        self._young: dict[str, float] = {}  # job → when it was submitted

    @property
    def status_polling_interval(self) -> int:
        """Often while a block is young, then as rarely as a busy controller likes."""
        now = time.monotonic()
        return 5 if any(now - t < 180 for j, t in self._young.items() if not self._over(j)) else 30

    def submit(self, command: str, tasks_per_node: int, job_name: str = "") -> str:
        if time.monotonic() < self.quiet_until and self.last_refusal is not None:
            raise self.last_refusal
        self._serial += 1
        name = f"{self.name}.{self._serial}"
        path = self.scripts / name
        path.write_text(job_script(self.blocks, name, path, self.start, command))
        try:
            job = slurm.submit(str(path))
        except slurm.Refused as error:
            self.last_refusal = error
            if error.passing:
                log.warning("Slurm takes no jobs at the moment, trying again: %s", error)
                self.quiet_until = time.monotonic() + BACK_OFF
            raise
        self.last_refusal = None
        self._young[job] = time.monotonic()
        self.resources[job] = {"job_id": job, "status": self._status_of(JobState.PENDING, path), "path": path}
        log.info("Slurm job %s asked for (block %d)", job, self._serial)
        return job

    def _status(self) -> None:
        try:
            states = slurm.states(str(j) for j in self.resources if not self._over(j))
        except (slurm.Refused, SetupError) as error:
            log.debug("squeue: %s", error)
            return
        for job, word in states.items():
            default = JobState.FAILED if word in slurm.ENDED else JobState.RUNNING
            state = STATES.get(word, default)
            entry = self.resources[job]
            if state != entry["status"].state:
                entry["word"] = word
                entry["status"] = self._status_of(state, entry["path"])
                level = logging.INFO if state in (JobState.RUNNING, JobState.COMPLETED) else logging.WARNING
                if state != JobState.PENDING:
                    log.log(level, "Slurm job %s: %s", job, word)

    def cancel(self, job_ids: Sequence[object]) -> list[bool]:
        jobs = [str(job) for job in job_ids]
        try:
            slurm.cancel(jobs)
        except (slurm.Refused, SetupError) as error:
            log.warning("cannot cancel Slurm jobs %s: %s", ", ".join(jobs), error)
            return [False] * len(jobs)
        for job in jobs:
            self.resources[job]["status"] = self._status_of(JobState.CANCELLED, self.resources[job]["path"])
            log.info("Slurm job %s given back", job)
        return [True] * len(jobs)

    def _over(self, job: object) -> bool:
        return bool(self.resources[job]["status"].terminal)

    @staticmethod
    def _status_of(state: JobState, path: Path) -> JobStatus:
        return JobStatus(state, stdout_path=f"{path}.out", stderr_path=f"{path}.err")


class BlockErrors:
    """Gives up after some blocks in a row that never registered, and quotes what the last one said."""

    def __init__(self, provider: SlurmBlocks) -> None:
        self.provider = provider
        self.seen: set[str] = set()
        self.streak = 0

    def __call__(self, executor: Any, status: dict[str, JobStatus]) -> None:
        for block in sorted((b for b in status if b not in self.seen and status[b].terminal), key=int):
            self.seen.add(block)
            if status[block].state not in (JobState.SCALED_IN, JobState.MISSING):
                executor._hold_block(block)  # see `interchange`: what it was computing is lost now
            if block in executor._simulated_status and status[block].state != JobState.SCALED_IN:
                refusal = slurm.Refused(status[block].message or "")
                del executor._simulated_status[block]
                self.streak += not refusal.passing
            elif status[block].state == JobState.MISSING:  # HTEX's word: ended, and its workers never came
                self.streak += 1
            elif status[block].state != JobState.SCALED_IN:
                self.streak = 0
            if self.streak >= STILLBORN and not executor.bad_state_is_set:
                executor.set_bad_state_and_fail_all(SetupError(self._verdict(block, status[block])))

    def _verdict(self, block: str, status: JobStatus) -> str:
        if status.stderr_path is None:
            reason = (status.message or "").split(": ", 1)[-1]
            return (
                f"CLUSTER.slurm_str: Slurm refused {STILLBORN} blocks in a row: {' '.join(reason.split())}. "
                "Change slurm_str (partition, account, limits), then run again: nothing is lost"
            )
        entries = [e for e in self.provider.resources.values() if f"{e['path']}.err" == status.stderr_path]
        word = entries[0].get("word", "ended") if entries else "ended"
        return (
            f"{STILLBORN} Slurm blocks in a row ended without any worker; the last one: {word}. It said: "
            f"{_last_lines(Path(status.stderr_path)) or 'nothing'} (all of it in {status.stderr_path}). Change "
            "CLUSTER.worker_str or slurm_str, then run again: nothing is lost"
        )


def _ended(run: dict[str, Any], keep: set[str]) -> bool:
    """End the jobs and the interchange of a run, unless a job is to be kept. Whether nothing is left of it."""
    deadline = time.monotonic() + 20
    while True:
        try:
            jobs = set(slurm.named(f".{run['token']}."))
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


def _last_lines(path: Path) -> str:
    with suppress(OSError):
        lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
        return " / ".join(lines[-3:])[-400:]
    return ""


def _addresses() -> set[str]:
    """Where nodes may find this machine. Parsl would also ask a web service for the address outside."""
    found = {"127.0.0.1"}
    for ask in (address_by_hostname, address_by_route):
        with suppress(Exception):  # no name service, no route: the interfaces remain
            found.add(ask())
    for _, interface in socket.if_nameindex():
        with suppress(Exception):
            found.add(address_by_interface(interface))
    return found
