"""What a block runs: a pool of workers for the driver that lives now, and for the next one when that has gone.

    python -m aims_pax.labelling.executors.block_program FOLDER NAME JOBS PATIENCE FREE

A block may wait in the queue for longer than its driver lives. So it asks when it starts, in the files of `handover`
in FOLDER, who the driver is. When there is none, it computes what the last one left as still wanted, JOBS at a time,
and waits PATIENCE seconds for the next driver. It ends when a driver lives that does not want it, and when the rest
of its walltime is too short for a calculation.
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
UNWANTED_AFTER = 60.0  # s in which a new driver names the blocks it takes over
UNREACHABLE = 3  # exit code of a pool that found no driver at its addresses


class Block:
    """One block, from its start to its end. end: of its walltime (s since 1970), or inf.

    free: seconds at the end of the walltime in which no calculation may begin, until a driver says otherwise.
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
        self._gone: set[str] = set()  # tokens of drivers that we have served
        self._finished: int | None = None  # time stamp of a list of tasks of which nothing is left to do
        self._since = time.monotonic()  # waiting for a driver
        self._new: tuple[str, float] = ("", 0.0)  # token of a driver that has not named us, since when

    def run(self) -> int:
        """The exit code."""
        try:
            while (code := self._turn()) is None:
                time.sleep(LOOK_EVERY)
            return code
        finally:
            with suppress(OSError):
                self.probe.unlink()

    def _turn(self) -> int | None:
        """Serve a driver, compute what was left, or wait; the exit code when there is nothing more to do."""
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
        """Until it goes, or until the walltime ends."""
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
        """A driver that has not taken us over, or not yet."""
        if self._new[0] != token:
            self._new = (token, time.monotonic())
        if time.monotonic() - self._new[1] < UNWANTED_AFTER:
            return None
        return self._say("the driver does not need this block", 0)

    @property
    def seconds(self) -> float:
        """In which calculations may begin."""
        return self.end - time.time() - (0.0 if math.isinf(self.end) else self.free)

    def _pool(self, arguments: list[str]) -> int:
        """Its exit code."""
        if not math.isinf(self.end):
            others = [a for a in arguments if not a.startswith("--drain_period=")]
            arguments = [*others, f"--drain_period={max(1, int(self.seconds))}"]
        return subprocess.call([sys.executable, "-m", "aims_pax.labelling.executors.parsl_pool", *arguments])

    def _tasks(self) -> bool:
        """Compute what was left as wanted; whether anything was."""
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
            sys.exit(1)  # what every calculation lacks; the worker has said it
        if COMPUTED not in codes:
            self._finished = stamp
        return COMPUTED in codes

    def _say(self, text: str, code: int) -> int:
        print(f"block {self.name}: {text}", file=sys.stderr, flush=True)
        return code


COMPUTED = 10  # exit code of a worker that has computed something


def run_worker(folder: Path, name: str, key: str, until: float, k: int) -> None:
    """One worker: what is left and nobody else computes, until a driver lives or the time is over."""
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
    """Each worker begins at another one."""
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
