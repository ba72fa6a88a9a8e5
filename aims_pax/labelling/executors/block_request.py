"""A block: one scheduler job with a pool of workers. Its resources, the time in which it takes work, and its script."""

from __future__ import annotations

import hashlib
import math
import re
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from aims_pax.schedulers.base import BlockHeader, Scheduler
from aims_pax.settings.cluster import reserve


@dataclass(frozen=True)
class Blocks:
    """The settings of CLUSTER for blocks. longest: seconds a calculation may take, or inf.

    idle: seconds after which a block without work is cancelled. scripts: folder of the job scripts.
    patience: seconds for which a block waits for the next driver. address, interface, ports: how nodes reach it.
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
        """The parsed header."""
        return self.scheduler.read_header(self.header)

    @property
    def walltime(self) -> float | None:
        """Seconds, or None where the header does not set it (the partition or queue does)."""
        return self.read.walltime

    def header_sets(self, name: str) -> bool:
        """Whether the header sets this environment variable, by a command or an option (`--export=ALL,NAME=4`)."""
        lines = [
            line
            for line in self.header.splitlines()
            if line.startswith(self.scheduler.directive) or not line.lstrip().startswith("#")
        ]
        return any(re.search(rf"\b{re.escape(name)}=", line) for line in lines)

    @property
    def drain(self) -> int | None:
        """Seconds after its start from which a block takes no new work, so that running calculations end in time."""
        if self.walltime is None or math.isinf(self.walltime):
            return None
        left = self.walltime - reserve(self.walltime)
        return max(1, int(left - self.longest if not math.isinf(self.longest) else left / 2))

    @property
    def free(self) -> float:
        """Seconds at the end of the walltime in which no calculation begins; 0 where the walltime is unknown."""
        return 0.0 if self.drain is None or self.walltime is None else self.walltime - self.drain

    @property
    def shape(self) -> str:
        """A hash of what blocks must have in common to replace each other, also those of an earlier run."""
        said = repr((self.header, self.worker, self.nodes, self.jobs, self.mpi, sys.executable))
        return hashlib.sha256(said.encode()).hexdigest()[:16]


def job_script(blocks: Blocks, name: str, path: Path, start: str, command: str) -> str:
    """The job script: the user's header with the options that aims-PAX sets, worker_str, and the pool of workers.

    path: of the script; the job's output is written next to it.
    """
    head = blocks.scheduler.script_head(blocks.header, name, path, blocks.nodes)
    limit, end = blocks.walltime, []
    if limit is not None and not math.isinf(limit):
        end = [f"export AIMS_PAX_BLOCK_END=$(( $(date +%s) + {int(limit)} ))"]
    # an empty line behind the user's texts: a backslash at their end would join our commands to theirs
    return "\n".join([*head, "", *end, start, "", command, ""])
