"""A block: one Slurm job with a pool of workers. What it asks for, how long it takes work, and its job script."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from aims_pax.settings.cluster import block_walltime, reserve, sbatch_options

OURS = ("J", "job-name", "o", "output", "e", "error", "t", "time", "requeue", "no-requeue")


@dataclass(frozen=True)
class Blocks:
    """What CLUSTER says of the blocks. longest: seconds a calculation may take, or inf.

    idle: seconds after which a block without work is given back. scripts: where the job scripts go.
    """

    header: str  # slurm_str
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

    @property
    def walltime(self) -> float | None:
        """Seconds, or None where the header leaves it to the partition."""
        return block_walltime(self.header)

    @property
    def drain(self) -> int | None:
        """Seconds after its start when a block takes no more work: what it began then still ends in time."""
        if self.walltime is None or math.isinf(self.walltime):
            return None
        left = self.walltime - reserve(self.walltime)
        return max(1, int(left - self.longest if not math.isinf(self.longest) else left / 2))


def job_script(blocks: Blocks, name: str, path: Path, start: str, command: str) -> str:
    """A block: the user's header with what must be ours, the preparations, and the pool of workers."""
    header = blocks.header.strip().splitlines()
    shebang = header.pop(0) if header and header[0].startswith("#!") else "#!/bin/bash"
    options = sbatch_options(blocks.header)
    lines = [shebang]
    own = {"job-name": name, "output": f"{path}.out", "error": f"{path}.err", "open-mode": "append"}
    lines += [f"#SBATCH --{key}={value}" for key, value in own.items()]
    lines.append("#SBATCH --no-requeue")  # Slurm would run it again under the same id
    if not {"N", "nodes"} & set(options):
        lines.append(f"#SBATCH --nodes={blocks.nodes}")
    limit = blocks.walltime
    if limit is not None:
        lines.append(f"#SBATCH --time={_clock(limit)}")
    lines += [line for line in map(_theirs, header) if line is not None]
    if limit is None or math.isinf(limit):
        return "\n".join([*lines, start, command, ""])
    lines.append(f"export AIMS_PAX_BLOCK_END=$(( $(date +%s) + {int(limit)} ))")
    # Parsl counts from the start of the pool; the preparations before it take a while
    keep = int(limit) - (blocks.drain or 0)
    drain = [f"DRAIN=$(( AIMS_PAX_BLOCK_END - $(date +%s) - {keep} ))", "[ $DRAIN -ge 1 ] || DRAIN=1"]
    command = re.sub(r"--drain_period=\d+", "--drain_period=$DRAIN", command)
    return "\n".join([*lines, start, *drain, command, ""])


def _theirs(line: str) -> str | None:
    """A line of the header without the options that would contradict ours; None when nothing is left."""
    options = sbatch_options(line)
    if not set(options) & set(OURS):
        return line
    kept = [
        f"--{k}={v}" if len(k) > 1 and v else f"--{k}" if len(k) > 1 else f"-{k} {v}".rstrip()
        for k, v in options.items()
        if k not in OURS
    ]
    return "#SBATCH " + " ".join(kept) if kept else None


def _clock(seconds: float) -> str:
    if math.isinf(seconds):
        return "UNLIMITED"
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours // 24}-{hours % 24:02d}:{minutes:02d}:{seconds:02d}"
