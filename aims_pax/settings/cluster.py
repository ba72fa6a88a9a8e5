"""CLUSTER: where reference calculations run: on this machine, or on nodes that Slurm gives."""

from __future__ import annotations

import math
import re
from typing import Annotated

from pydantic import BeforeValidator

from aims_pax.settings.keys import (
    Flag,
    Kind,
    OptionalText,
    OptionalWhole,
    Section,
    Text,
    Whole,
    as_real,
    key,
    one_of,
)

SLURM = "the type is `slurm`"

Where = Annotated[str, one_of("slurm", "local"), Kind("`str`")]
Executor = Annotated[str, one_of("auto", "inline", "threads", "htex", "mpi"), Kind("`str`")]


def _seconds(value: object) -> float:
    """Seconds, also from HH:MM:SS and D-HH:MM:SS."""
    if isinstance(value, str) and (found := re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)", value.strip())):
        days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
        return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
    if isinstance(value, str):
        raise ValueError(f"expected seconds or HH:MM:SS, got text {value!r}")
    return as_real(value)


Seconds = Annotated[float, BeforeValidator(_seconds), Kind("`float` or `str`")]


class ParslOptions(Section):
    """CLUSTER.parsl_options: how many nodes Parsl asks Slurm for."""

    nodes_per_block: Whole = key(..., "Nodes of one block (one Slurm job).", possible="[1, inf)")
    init_blocks: Whole = key(..., "Blocks asked for at the start.", possible="[0, inf)")
    min_blocks: Whole = key(..., "Fewest blocks kept.", possible="[0, inf)")
    max_blocks: Whole = key(..., "Most blocks at a time.", possible="[1, inf)")
    label: Text = key(..., "Unique name of this Parsl configuration.")
    run_dir: OptionalText = key(None, "Folder of Parsl's runtime files.")
    function_dir: OptionalText = key(None, "Folder in which Parsl stores functions.")


class ClusterSettings(Section):
    """CLUSTER: may be left out when the reference is a calculator; calculations then run on this machine."""

    type: Where = key(
        "slurm",
        "`slurm`, or `local` for this machine. When the reference is a calculator and no Slurm key is "
        "written, the default is `local`.",
    )
    project_name: OptionalText = key(None, "Name of the Parsl run.", mandatory=SLURM)
    parsl_options: ParslOptions | None = key(None, "Table of Parsl's options.", mandatory=SLURM)
    slurm_str: OptionalText = key(
        None, "Header of the Slurm job script: resources and options.", mandatory=SLURM
    )
    worker_str: OptionalText = key(
        None,
        "Shell commands that prepare each worker: load modules, activate the environment.",
        mandatory=SLURM,
    )
    launch_str: OptionalText = key(
        None,
        'Command that runs FHI-aims, e.g. `"srun path/to/aims.x >> aims.out"`.',
        mandatory="the reference is FHI-aims",
    )
    calc_dir: Text = key(
        "./calc",
        "Folder of the reference calculations.",
        mandatory="the reference is FHI-aims or the type is `slurm`",
    )
    clean_dirs: Flag = key(True, "Remove the folder of each calculation once its result is stored.")
    max_workers: OptionalWhole = key(
        None,
        "Reference calculations at the same time on this machine; `None`: as many as there are cores.",
        possible="[1, inf)",
        plausible="[1, 1024]",
    )
    executor: Executor = key(
        "auto",
        "How calculations run: one by one in this process (`inline`), in `threads`, in Parsl's worker "
        "processes (`htex`), under MPI (`mpi`), or as fits the reference (`auto`).",
    )
    job_time_limit: Seconds = key(
        math.inf,
        "Longest time of one reference calculation (s, or `HH:MM:SS`); inf: no limit.",
        unit="s",
        possible="(0, inf]",
        plausible="[1, inf]",
    )
