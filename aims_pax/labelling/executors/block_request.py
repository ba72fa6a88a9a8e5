"""A block: one job of a scheduler with a pool of workers. What it asks for, how long it takes work, and its script."""

from __future__ import annotations

import hashlib
import math
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from aims_pax.schedulers.base import BlockHeader, Scheduler
from aims_pax.settings.cluster import reserve


@dataclass(frozen=True)
class Blocks:
    """What CLUSTER says of the blocks. longest: seconds a calculation may take, or inf.

    idle: seconds after which a block without work is given back. scripts: where the job scripts go.
    patience: seconds for which a block waits for the next driver. address, interface, ports: where nodes find it.
    """

    scheduler: Scheduler
    header: str  # of the user, for the job script
    worker: str = ""  # worker_str
    name: str = "aims-PAX"  # project_name
    label: str = "labels"
    nodes: int = 1
    init: int = 1
    least: int = 0
    most: int = 1
    jobs: int = 1  # jobs_per_block
    mpi: bool = False
    longest: float = math.inf
    idle: float = 120.0
    scripts: Path | None = None
    patience: float = 300.0
    address: str | None = None
    interface: str | None = None
    ports: tuple[int, int] = (54000, 55000)

    @cached_property
    def read(self) -> BlockHeader:
        """What the header says."""
        return self.scheduler.read_header(self.header)

    @property
    def walltime(self) -> float | None:
        """Seconds, or None where the header leaves it to the partition or queue."""
        return self.read.walltime

    @property
    def drain(self) -> int | None:
        """Seconds after its start when a block takes no more work: what it began then still ends in time."""
        if self.walltime is None or math.isinf(self.walltime):
            return None
        left = self.walltime - reserve(self.walltime)
        return max(1, int(left - self.longest if not math.isinf(self.longest) else left / 2))

    @property
    def free(self) -> float:
        """Seconds at the end of the walltime in which no calculation begins; 0 where the end is not known."""
        return 0.0 if self.drain is None or self.walltime is None else self.walltime - self.drain

    @property
    def shape(self) -> str:
        """Blocks of one shape can stand in for each other, also those of an earlier run."""
        said = repr((self.header, self.worker, self.nodes, self.jobs, self.mpi, sys.executable))
        return hashlib.sha256(said.encode()).hexdigest()[:16]


def job_script(blocks: Blocks, name: str, path: Path, start: str, command: str) -> str:
    """A block: the user's header with what must be ours, the preparations, and the pool of workers.

    path: of the script; its output goes beside it.
    """
    lines = blocks.scheduler.script_head(blocks.header, name, path, blocks.nodes)
    limit = blocks.walltime
    if limit is not None and not math.isinf(limit):
        lines.append(f"export AIMS_PAX_BLOCK_END=$(( $(date +%s) + {int(limit)} ))")
    return "\n".join([*lines, start, command, ""])
