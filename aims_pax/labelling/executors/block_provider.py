"""A Parsl provider for blocks (scheduler jobs): submits them, takes over those of an earlier run, polls and cancels.

Parsl's own providers lose the final state of a job at the next poll, treat a job that the scheduler no longer knows as
running, and cannot take over blocks of an earlier run.
"""

from __future__ import annotations

import logging
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from parsl.executors.high_throughput.executor import DEFAULT_LAUNCH_CMD
from parsl.jobs.states import JobState as ParslState
from parsl.jobs.states import JobStatus
from parsl.launchers import SimpleLauncher
from parsl.providers.cluster_provider import ClusterProvider

from aims_pax.errors import SetupError
from aims_pax.labelling.executors.block_request import Blocks, job_script
from aims_pax.labelling.executors.handover import KEY, Driver, Handover
from aims_pax.schedulers.base import Phase, Refused

log = logging.getLogger(__name__)

STILLBORN = 3  # blocks in a row without any worker, after which no more are submitted
SILENT = 300.0  # s without any states of blocks, after which this is warned of
BACK_OFF = 15.0  # s without submissions after a scheduler could not be reached
STATES = {
    Phase.WAITING: ParslState.PENDING, Phase.HELD: ParslState.HELD, Phase.RUNNING: ParslState.RUNNING,
    Phase.ENDING: ParslState.RUNNING, Phase.COMPLETED: ParslState.COMPLETED, Phase.CANCELLED: ParslState.CANCELLED,
    Phase.TIMEOUT: ParslState.TIMEOUT, Phase.FAILED: ParslState.FAILED,
}  # fmt: skip


# arguments of `parsl_pool`, filled in by Parsl
POOL = DEFAULT_LAUNCH_CMD.replace("process_worker_pool.py ", "", 1)


class SchedulerBlocks(ClusterProvider):
    """Blocks in jobs of a scheduler.

    name: of the jobs, with the token of this run after the last dot. inherited: {job: name} of blocks of earlier
    runs that this run can use. protected: those of them that still compute for an earlier run.
    """

    def __init__(
        self,
        blocks: Blocks,
        name: str,
        scripts: Path,
        start: str,
        files: Handover,
        key: str,
        inherited: dict[str, str],
    ) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            blocks.scheduler.name,
            nodes_per_block=1,  # so that Parsl counts `jobs` workers per block, for any number of nodes
            init_blocks=min(max(blocks.init, len(inherited)), blocks.most),
            min_blocks=min(blocks.least, blocks.most),
            max_blocks=blocks.most,
            parallelism=1.0,
            walltime="",
            launcher=SimpleLauncher(),
        )
        self.blocks = blocks
        self.scheduler = blocks.scheduler
        self.name = name
        self.scripts = scripts
        self.start = start
        self.files = files
        self.key = key
        self.inherited = inherited
        self.protected: Callable[[], set[str]] = set
        self.quiet_until = 0.0
        self.last_refusal: Refused | None = None
        self.passing: set[str] = set()  # messages of temporary refusals
        self._driver = Driver(name.rpartition(".")[2], {}, blocks.free)
        self._serial = 0
        self._silent_since: float | None = None  # the first failed query of the states
        self._young: dict[str, float] = {}  # job → time of submission

    @property
    def status_polling_interval(self) -> int:
        """Seconds between two polls: 5 while a block is new, then 30 to spare the scheduler."""
        now = time.monotonic()
        return 5 if any(now - t < 180 for j, t in self._young.items() if not self._over(j)) else 30

    def submit(self, command: str, tasks_per_node: int, job_name: str = "") -> str:
        """Submit or take over a block and return its job id. command: arguments of `parsl_pool`."""
        if self.inherited:
            return self._take_over(command)
        if time.monotonic() < self.quiet_until and self.last_refusal is not None:
            raise self.last_refusal
        self._serial += 1
        name = f"{self.name}.{self._serial}"
        path = self.scripts / name
        self._announce(name, command)
        self._write_script(path, name)
        try:
            job = self.scheduler.submit(path, self.blocks.header)
        except Refused as error:
            self.last_refusal = error
            if error.passing:
                self.passing.add(str(error))
                log.warning("%s accepts no jobs at the moment, trying again: %s", self.scheduler.title, error)
                self.quiet_until = time.monotonic() + BACK_OFF
            raise
        self.last_refusal = None
        self._note(job, path)
        log.info("%s job %s submitted (block %d)", self.scheduler.title, job, self._serial)
        return job

    def _take_over(self, command: str) -> str:
        job, name = next(iter(self.inherited.items()))
        self._announce(name, command)
        del self.inherited[job]
        self._note(job, self.scripts / name)
        self.resources[job]["inherited"] = True
        log.info("%s job %s of an earlier run taken over (%s)", self.scheduler.title, job, name)
        return job

    def _announce(self, name: str, command: str) -> None:
        """Write to driver.json how this block can reach the driver."""
        pools = {**self._driver.pools, name: shlex.split(command)}
        self._driver = replace(self._driver, pools=pools)
        self.files.write_driver(self._driver)

    def _note(self, job: str, path: Path) -> None:
        self._young[job] = time.monotonic()
        self.resources[job] = {
            "job_id": job,
            "status": self._status_of(ParslState.PENDING, path),
            "path": path,
        }

    def _write_script(self, path: Path, name: str) -> None:
        blocks = self.blocks
        # with MPI, only Parsl can give workers their nodes: the block itself computes no tasks
        words = [self.files.folder, name, 0 if blocks.mpi else blocks.jobs, blocks.patience, blocks.free]
        python = [sys.executable, "-m", "aims_pax.labelling.executors.block_program"]
        command = f"{KEY}={self.key} exec {shlex.join([*python, *map(str, words)])}"
        path.touch(0o600)  # it holds the key
        path.write_text(job_script(blocks, name, path, self.start, command))

    def _status(self) -> None:
        self.files.renew()
        try:
            states = self.scheduler.states(str(j) for j in self.resources if not self._over(j))
        except (Refused, SetupError) as error:
            self._no_states(error)
            return
        self._silent_since = None
        for job, said in states.items():
            state = STATES[said.phase]
            entry = self.resources[job]
            if state != entry["status"].state:
                entry["word"] = said.word
                entry["status"] = self._status_of(state, entry["path"])
                level = (
                    logging.INFO if state in (ParslState.RUNNING, ParslState.COMPLETED) else logging.WARNING
                )
                if state != ParslState.PENDING:
                    log.log(level, "%s job %s: %s", self.scheduler.title, job, said.word)

    def _no_states(self, error: Exception) -> None:
        """Warn, once in `SILENT` seconds, that blocks that have ended are not noticed."""
        if self._silent_since is None:
            self._silent_since = time.monotonic()
        elif time.monotonic() - self._silent_since > SILENT:
            self._silent_since = time.monotonic()
            log.warning(
                "%s has not reported the states of blocks for %.0f min, so blocks that have ended are not replaced: %s",
                self.scheduler.title, SILENT / 60, error,
            )  # fmt: skip

    def cancel(self, job_ids: Sequence[object]) -> list[bool]:
        spared = self.protected()
        jobs = [job for job in map(str, job_ids) if job not in spared]
        try:
            self.scheduler.cancel(jobs)
        except (Refused, SetupError) as error:
            log.warning("cannot cancel %s jobs %s: %s", self.scheduler.title, ", ".join(jobs), error)
            return [False] * len(job_ids)
        for job in jobs:
            self.resources[job]["status"] = self._status_of(ParslState.CANCELLED, self.resources[job]["path"])
            log.info("%s job %s cancelled by aims-PAX", self.scheduler.title, job)
        return [str(job) in jobs for job in job_ids]

    def _over(self, job: object) -> bool:
        return bool(self.resources[job]["status"].terminal)

    @staticmethod
    def _status_of(state: ParslState, path: Path) -> JobStatus:
        return JobStatus(state, stdout_path=f"{path}.out", stderr_path=f"{path}.err")


class BlockErrors:
    """Ends the run after `STILLBORN` blocks in a row without any worker, and quotes the output of the last one."""

    def __init__(self, provider: SchedulerBlocks) -> None:
        self.provider = provider
        self.seen: set[str] = set()
        self.streak = 0

    def __call__(self, executor: Any, status: dict[str, JobStatus]) -> None:
        for block in sorted((b for b in status if b not in self.seen and status[b].terminal), key=int):
            self.seen.add(block)
            if status[block].state == ParslState.MISSING and self._inherited(executor, block):
                continue  # it has worked for the run that submitted it
            if status[block].state not in (ParslState.SCALED_IN, ParslState.MISSING):
                executor._hold_block(block)  # see `parsl_interchange`: its tasks are lost
            if block in executor._simulated_status and status[block].state != ParslState.SCALED_IN:
                message = status[block].message or ""
                del executor._simulated_status[block]
                self.streak += not any(text in message for text in self.provider.passing)
            elif status[block].state == ParslState.MISSING:  # HTEX: it ended, no worker ever connected
                self.streak += 1
            elif status[block].state != ParslState.SCALED_IN:
                self.streak = 0
            if self.streak >= STILLBORN and not executor.bad_state_is_set:
                executor.set_bad_state_and_fail_all(SetupError(self._verdict(block, status[block])))

    def _inherited(self, executor: Any, block: str) -> bool:
        job = executor.blocks_to_job_id.get(block)
        return job is not None and bool(self.provider.resources[job].get("inherited"))

    def _verdict(self, block: str, status: JobStatus) -> str:
        title, key = self.provider.scheduler.title, self.provider.scheduler.header_key
        if status.stderr_path is None:
            reason = (status.message or "").split(": ", 1)[-1]
            return (
                f"CLUSTER.{key}: {title} refused {STILLBORN} blocks in a row: {' '.join(reason.split())}. "
                f"Change {key} (partition or queue, account, limits), then run again: nothing is lost"
            )
        entries = [e for e in self.provider.resources.values() if f"{e['path']}.err" == status.stderr_path]
        word = entries[0].get("word", "ended") if entries else "ended"
        return (
            f"{STILLBORN} {title} blocks in a row ended without any worker; the last one: {word}. Its output: "
            f"{_last_lines(Path(status.stderr_path)) or 'nothing'} (all of it in {status.stderr_path}). Change "
            f"CLUSTER.worker_str or {key}, then run again: nothing is lost"
        )


def _last_lines(path: Path) -> str:
    with suppress(OSError):
        lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
        return " / ".join(lines[-3:])[-400:]
    return ""
