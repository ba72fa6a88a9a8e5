"""The program of a block: a pool of workers for the current driver, and later for the next one.

    python -m aims_pax.labelling.executors.block_program FOLDER NAME JOBS PATIENCE FREE

A block may wait in the queue for longer than its driver runs. So when it starts, it reads from the files of `handover`
in FOLDER which driver is running. When there is none, it computes the tasks that the last driver left, JOBS at a time,
and waits PATIENCE seconds for the next driver. It ends when the running driver does not use it, and when the rest of
its walltime is too short for a calculation.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from aims_pax.labelling.executors.handover import KEY, Driver, Handover

LOOK_EVERY = 2.0  # s
UNWANTED_AFTER = 60.0  # s in which a new driver must list the blocks that it takes over
UNREACHABLE = 3  # exit code of a pool that found no driver at its addresses


class Block:
    """One block. end: of its walltime (s since 1970), or inf.

    free: seconds at the end of the walltime in which no calculation may begin; a driver can change it.
    """

    def __init__(
        self, folder: Path, name: str, jobs: int, patience: float, free: float, end: float = math.inf
    ) -> None:
        self.files = Handover(folder)
        self.name = name
        self.jobs = jobs
        self.patience = patience
        self.free = free
        self.end = end
        self.probe = self.files.probe(name)
        self._gone: set[str] = set()  # tokens of drivers that have ended
        self._finished: int | None = None  # time stamp of a task list that is completed
        self._since = time.monotonic()  # start of waiting for a driver
        self._new: tuple[str, float] = ("", 0.0)  # token of a driver that does not list us; since when

    def run(self) -> int:
        """Run the block to its end and return the exit code."""
        try:
            while (code := self._turn()) is None:
                time.sleep(LOOK_EVERY)
            return code
        finally:
            with suppress(OSError):
                self.probe.unlink()

    def _turn(self) -> int | None:
        """Serve a driver, compute tasks that were left, or wait. Returns the exit code when the block should end."""
        if not self.files.folder.is_dir():
            return self._say(f"{self.files.folder} is gone", 1)
        if self.seconds < 1:
            return self._say("the rest of the walltime is too short for a calculation", 0)
        driver = self.files.driver(self.probe)
        if driver is not None and driver.token not in self._gone:
            return self._serve(driver) if self.name in driver.pools else self._unnamed(driver.token)
        if self._tasks():
            self._since = time.monotonic()
        elif time.monotonic() - self._since > self.patience:
            return self._say(f"no driver for {self.patience:.0f} s", 0)
        return None

    def _serve(self, driver: Driver) -> int | None:
        """Run workers for a driver until it ends or the walltime ends."""
        self.free = driver.free
        if self.seconds < 1:
            return None
        code = self._pool(list(driver.pools[self.name]))
        if code == UNREACHABLE and self.files.driver(self.probe) is not None:
            return self._say("no address of the driver answers; see CLUSTER.parsl_options.address", 1)
        if code not in (0, UNREACHABLE):
            return code
        self._gone.add(driver.token)
        self._since = time.monotonic()
        return None

    def _unnamed(self, token: str) -> int | None:
        """Wait up to a minute for a driver to take over this block; then return the exit code."""
        if self._new[0] != token:
            self._new = (token, time.monotonic())
        if time.monotonic() - self._new[1] < UNWANTED_AFTER:
            return None
        return self._say("the driver does not need this block", 0)

    @property
    def seconds(self) -> float:
        """Remaining seconds in which calculations may begin."""
        return self.end - time.time() - (0.0 if math.isinf(self.end) else self.free)

    def _pool(self, arguments: list[str]) -> int:
        """Run a pool of workers and return its exit code."""
        if not math.isinf(self.end):
            others = [a for a in arguments if not a.startswith("--drain_period=")]
            arguments = [*others, f"--drain_period={max(1, int(self.seconds))}"]
        return subprocess.call([sys.executable, "-m", "aims_pax.labelling.executors.parsl_pool", *arguments])

    def _tasks(self) -> bool:
        """Compute the tasks that the last driver left. Returns whether anything was computed."""
        stamp = self.files.stamp()
        if stamp is None or stamp == self._finished or self.jobs < 1:
            return False
        context = multiprocessing.get_context("spawn")
        given = (self.files.folder, self.name, os.environ.get(KEY, ""), self.end - self.free)
        workers = [context.Process(target=run_worker, args=(*given, k)) for k in range(self.jobs)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        codes = {worker.exitcode for worker in workers}
        if 1 in codes:
            sys.exit(1)  # a SetupError, which the worker has printed
        if COMPUTED not in codes:
            self._finished = stamp
        return COMPUTED in codes

    def _say(self, text: str, code: int) -> int:
        print(f"block {self.name}: {text}", file=sys.stderr, flush=True)
        return code


COMPUTED = 10  # exit code of a worker that has computed something


def run_worker(folder: Path, name: str, key: str, until: float, k: int) -> None:
    """One worker: computes tasks that no other process computes, until a driver runs or the time is over."""
    from aims_pax.errors import SetupError
    from aims_pax.labelling.worker import label_task

    files = Handover(folder)
    probe = files.probe(f"{name}.{k}")
    computed = False
    try:
        for task in _rotated(files.tasks(key), k):
            if time.time() > until or files.driver(probe) is not None:
                break
            if task.done:
                continue
            given = label_task(task)
            if isinstance(given.error, SetupError):
                sys.exit(f"block {name}: {given.error}")
            computed = computed or not (given.busy or given.dropped)
    finally:
        with suppress(OSError):
            probe.unlink()
    sys.exit(COMPUTED if computed else 0)


def _rotated(tasks: list[Any], k: int) -> list[Any]:
    """The tasks in another order for each worker k, so that workers begin at different tasks."""
    k %= max(1, len(tasks))
    return [*tasks[k:], *tasks[:k]]


def run_block(words: list[str]) -> int:
    folder, name, jobs, patience, free = words
    end = os.environ.get("AIMS_PAX_BLOCK_END")
    block = Block(
        Path(folder), name, int(jobs), float(patience), float(free), float(end) if end else math.inf
    )
    return block.run()


if __name__ == "__main__":
    sys.exit(run_block(sys.argv[1:]))
