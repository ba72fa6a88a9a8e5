"""CLUSTER: where reference calculations run: on this machine, or on nodes that a scheduler allocates."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, ValidationInfo, create_model, field_validator, model_validator

from aims_pax.schedulers.base import Scheduler
from aims_pax.schedulers.registry import failed_schedulers, known_schedulers
from aims_pax.settings.devices import as_device
from aims_pax.settings.fields import (
    Flag,
    Kind,
    OptionalText,
    OptionalWhole,
    Section,
    Text,
    Whole,
    as_list_of_texts,
    as_real,
    as_whole,
    key,
    one_of,
    optional,
)

OTHER_SHELL = re.compile(r"^(#!|#(\$|PBS).*\s-S\s).*\b(csh|tcsh|fish)\b", re.MULTILINE)
BATCH = "the type is a scheduler"
BATCH_OR_AIMS = "the reference is FHI-aims or the type is a scheduler"
HEADERS: Mapping[str, Scheduler] = {s.header_key: s for s in known_schedulers().values()}
BATCH_KEYS = {"project_name", "parsl_options", "worker_str", *HEADERS}


def default_type(written: Collection[str], aims: bool) -> str:
    """The `type` where none is written. written: the other keys of CLUSTER that are; aims: whether the
    reference is FHI-aims."""
    return "slurm" if aims or BATCH_KEYS & set(written) else "local"


def type_is(name: str) -> str:
    """The words for when the header of this scheduler is mandatory."""
    return f"the type is `{name}`"


def _loadable(value: object) -> object:
    """Raise ValueError with the reason if this names a plugin scheduler that could not be loaded."""
    if isinstance(value, str) and value.lower() in failed_schedulers():
        raise ValueError(f"{value} is installed but cannot be used: {failed_schedulers()[value.lower()]}")
    return value


Where = Annotated[str, one_of(*known_schedulers(), "local"), BeforeValidator(_loadable), Kind("`str`")]
Executor = Annotated[str, one_of("auto", "inline", "threads", "htex", "mpi"), Kind("`str`")]


def _seconds(value: object) -> float:
    """Seconds, also from HH:MM:SS and D-HH:MM:SS."""
    if isinstance(value, str) and (found := re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)", value.strip())):
        days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
        return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
    if isinstance(value, str):
        raise ValueError(f"expected seconds or HH:MM:SS, got text {value!r}")
    return as_real(value)


def reserve(limit: float) -> float:
    """Seconds at the end of a block in which no calculation should run any more."""
    return min(120.0, 0.1 * limit)


def startup(limit: float) -> float:
    """Seconds at the start of a block in which its workers are not ready yet."""
    return min(60.0, 0.05 * limit)


def _written_out(path: str | None) -> str | None:
    """Raise ValueError for a path with a variable of the shell, which would be the name of a folder here."""
    if path is not None and (found := re.search(r"\$(\w+|\{\w+\})", path)):
        raise ValueError(f"{path!r}: {found[0]} is not replaced here; write the path itself")
    return path


def _devices(value: object) -> tuple[str, ...]:
    devices = tuple(as_device(text) for text in as_list_of_texts(value))
    if twice := [d for d in devices if devices.count(d) > 1]:
        raise ValueError(f"{twice[0]} is named twice; expected one worker per device")
    for kind in ("cuda", "xpu"):
        if {kind, f"{kind}:0"} <= set(devices):
            raise ValueError(f"{kind} and {kind}:0 are the same card; expected one worker per device")
    return devices


def _ports(value: object) -> tuple[int, int]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError(f"expected two ports, [first, last], got {value!r}")
    first, last = (as_whole(port) for port in value)
    if not 1 <= first <= last <= 65535:
        raise ValueError(f"expected ports from 1 to 65535, first not larger than last, got [{first}, {last}]")
    return first, last


Seconds = Annotated[float, BeforeValidator(_seconds), Kind("`float` or `str`")]
OptionalSeconds = Annotated[float | None, optional(_seconds), Kind("`float`, `str` or `None`")]
Devices = Annotated[tuple[str, ...] | None, optional(_devices), Kind("`list` or `None`")]
Ports = Annotated[tuple[int, int], BeforeValidator(_ports), Kind("`list`")]


class TrainingProfile(Section):
    """CLUSTER.training: where members train while trajectories continue."""

    devices: Devices = key(
        None,
        "One worker on each of these devices, e.g. `[cuda:0, cuda:1]`; the numbers count the cards that the run sees "
        "(in `CUDA_VISIBLE_DEVICES`).",
    )
    workers: OptionalWhole = key(
        None,
        "Members trained at the same time; `None`: as many as there are devices or cores. "
        "0: in the process of the run, in turns with the trajectories.",
        possible="[0, inf)",
    )
    threads: Whole = key(1, "Threads of each worker.", possible="[1, inf)", plausible="[1, 128]")

    @field_validator("workers", mode="after")
    @classmethod
    def _one_a_device(cls, workers: int | None, info: ValidationInfo) -> int | None:
        devices = info.data.get("devices")
        if workers is not None and devices is not None and workers > len(devices):
            raise ValueError(f"{workers} workers for {len(devices)} devices; expected at most one per device")
        return workers


class DynamicsProfile(Section):
    """CLUSTER.dynamics: where trajectories are propagated."""

    workers: OptionalWhole = key(
        None,
        "Processes that share the trajectories; `None`: one per core. Training has priority on cores that both use. "
        "1: no extra process. On a GPU and with `executor: inline`, trajectories always run in the process of the run. "
        "Samplers and `PRETRAINING` move several trajectories with xTB, EMT and other calculators that need no files "
        "in as many processes, also beside a GPU.",
        possible="[1, inf)",
    )
    threads: Whole = key(1, "Threads of each of these processes.", possible="[1, inf)", plausible="[1, 128]")


class ParslOptions(Section):
    """CLUSTER.parsl_options: how many nodes Parsl asks the scheduler for."""

    nodes_per_block: Whole = key(..., "Nodes of one block (one job of the scheduler).", possible="[1, inf)")
    init_blocks: Whole = key(..., "Blocks requested at the start.", possible="[0, inf)")
    min_blocks: Whole = key(..., "Minimum number of blocks.", possible="[0, inf)")
    max_blocks: Whole = key(..., "Maximum number of blocks at a time.", possible="[1, inf)")
    label: Text = key(..., "Unique name of this Parsl configuration.")
    run_dir: OptionalText = key(
        None, "Folder of Parsl's runtime files; on a file system that the nodes share. `None`: in `log_dir`."
    )
    function_dir: OptionalText = key(
        None, "Folder of the blocks' job scripts and their output; `None`: in `run_dir`."
    )
    job_time_limit: OptionalSeconds = key(
        None,
        "The same as `job_time_limit` of `CLUSTER`; write it in only one of the two places.",
        unit="s",
        possible="(0, inf]",
        plausible="[1, inf]",
    )
    address: OptionalText = key(
        None,
        "Host name or address at which nodes reach the machine of the run; `None`: they try all its addresses.",
    )
    interface: OptionalText = key(
        None,
        "Network interface on which the run listens for workers, e.g. `ib0`; nodes get its address. `None`: all.",
    )
    port_range: Ports = key(
        (54000, 55000),
        "First and last port on which the run listens for workers; nodes must be able to reach them.",
    )
    jobs_per_block: Whole = key(
        1,
        "Reference calculations that run at the same time in one block; they share its nodes.",
        possible="[1, inf)",
        plausible="[1, 256]",
    )

    _paths = field_validator("run_dir", "function_dir", mode="after")(_written_out)


class _Place(Section):
    """The first keys of CLUSTER; a header for each scheduler follows."""

    type: Where = key(
        default_type((), aims=True),
        f"A batch scheduler ({', '.join(f'`{name}`: {s.title}' for name, s in known_schedulers().items())}), or "
        "`local` for this machine. If the reference is a calculator and no key of a scheduler is set, the default is "
        "`local`.",
    )
    project_name: OptionalText = key(None, "Name of the Parsl run.", mandatory=BATCH)
    parsl_options: ParslOptions | None = key(None, "Table of Parsl's options.", mandatory=BATCH)

    @property
    def scheduler(self) -> Scheduler | None:
        """The scheduler in whose jobs calculations run; None: on this machine."""
        return known_schedulers().get(self.type)

    @property
    def header(self) -> str:
        """Header of the blocks' job script; empty on this machine."""
        return _header(self.scheduler, vars(self))


def _header(scheduler: Scheduler | None, values: Mapping[str, Any]) -> str:
    return "" if scheduler is None else values.get(scheduler.header_key) or ""


def _header_key(scheduler: Scheduler) -> tuple[Any, Any]:
    prose = f"Header of the {scheduler.title} job script: resources and options, e.g. `{scheduler.example}`."
    if not scheduler.tested:
        prose += f" {scheduler.title} has not been tried on a real cluster yet."
    return OptionalText, key(None, prose, mandatory=type_is(scheduler.name))


if TYPE_CHECKING:
    _Headers = _Place
else:  # one key per scheduler, including schedulers from other packages
    _Headers = create_model("_Headers", __base__=_Place, **{k: _header_key(s) for k, s in HEADERS.items()})


class ClusterSettings(_Headers):
    """CLUSTER: may be omitted when the reference is a calculator; calculations then run on this machine."""

    worker_str: OptionalText = key(
        None,
        "Shell commands that prepare each worker, e.g. load modules and activate the environment.",
        mandatory=BATCH,
    )
    launch_str: OptionalText = key(
        None,
        'Command that runs FHI-aims, e.g. `"srun path/to/aims.x >> aims.out"`.',
        mandatory="the reference is FHI-aims",
    )
    calc_dir: Text = key(
        "./calc",
        "Folder of the reference calculations. Several runs may share it.",
        mandatory=BATCH_OR_AIMS,
    )
    clean_dirs: Flag = key(
        True,
        "Remove the folder of each calculation once its result is stored. `False`: keep it, compressed, in "
        "`calc_dir/kept`. The last 50 failed calculations are always kept in `calc_dir/failed`.",
    )
    max_workers: OptionalWhole = key(
        None,
        "Reference calculations that run at the same time on this machine; `None`: as many as its cores allow for "
        "the MPI processes of `launch_str`.",
        possible="[1, inf)",
        plausible="[1, 1024]",
    )
    executor: Executor = key(
        "auto",
        "How calculations run: one by one in this process (`inline`), in `threads`, in Parsl's worker "
        "processes (`htex`), under MPI (`mpi`), or chosen to suit the reference (`auto`).",
    )
    job_time_limit: Seconds = key(
        math.inf,
        "Maximum time of one reference calculation (s, or `HH:MM:SS`); inf: no limit. With a scheduler, a "
        "block starts no new calculation when less than this is left of its walltime.",
        unit="s",
        possible="(0, inf]",
        plausible="[1, inf]",
    )

    training: TrainingProfile | None = key(
        None,
        "Where members train while trajectories run, with any `type`: "
        "`{devices: [cuda:0, cuda:1], workers: 2, threads: 1}`.",
    )

    dynamics: DynamicsProfile | None = key(
        None, "How many processes share the trajectories, with any `type`: `{workers: 8}`."
    )

    _paths = field_validator("calc_dir", mode="after")(_written_out)

    @model_validator(mode="before")
    @classmethod
    def _limit_of_parsl_options(cls, data: Any) -> Any:
        """With a scheduler, `parsl_options.job_time_limit` is read as `job_time_limit` of this section."""
        options = data.get("parsl_options") if isinstance(data, dict) else None
        inner = options.get("job_time_limit") if isinstance(options, dict) else None
        if inner is None or "job_time_limit" in data or str(data.get("type", "")).lower() == "local":
            return data
        try:
            seconds = _seconds(inner)
        except ValueError:
            return data  # the validator of parsl_options reports it
        return {**data, "job_time_limit": seconds} if seconds > 0 else data

    @field_validator("parsl_options", mode="after")
    @classmethod
    def _one_place(cls, options: ParslOptions | None) -> ParslOptions | None:
        if options is not None and options.address is not None and options.interface is not None:
            raise ValueError("address and interface both set where nodes reach the run; keep one of them")
        return options

    @field_validator(*HEADERS, mode="after", check_fields=False)
    @classmethod
    def _readable(cls, header: str | None, info: ValidationInfo) -> str | None:
        scheduler, options = HEADERS[info.field_name or ""], info.data.get("parsl_options")
        try:
            scheduler.read_header(header or "")
        except ValueError as error:
            raise ValueError(f"cannot be read: {error}") from None
        if other := OTHER_SHELL.search(header or ""):
            raise ValueError(f"{other[0]!r}: the script of a block is one for bash; use #!/bin/bash")
        ours = info.data.get("type") == scheduler.name
        if ours and not scheduler.gives_nodes and options is not None and options.nodes_per_block > 1:
            raise ValueError(
                f"{scheduler.title} takes the number of nodes only from these lines: request all slots of a block "
                "here, and set nodes_per_block: 1"
            )
        return header

    @field_validator("worker_str", mode="after")
    @classmethod
    def _no_header(cls, commands: str | None, info: ValidationInfo) -> str | None:
        scheduler = known_schedulers().get(info.data.get("type", ""))
        for line in (commands or "").splitlines():
            if scheduler is not None and line.lstrip().startswith(scheduler.directive):
                raise ValueError(f"{line.strip()!r} belongs to the header: move it to {scheduler.header_key}")
        return commands

    @field_validator("job_time_limit", mode="after")
    @classmethod
    def _fits_a_block(cls, limit: float, info: ValidationInfo) -> float:
        scheduler = known_schedulers().get(info.data.get("type", ""))
        options = None if scheduler is None else info.data.get("parsl_options")
        inner = None if options is None else options.job_time_limit
        if inner is not None and inner != limit:
            raise ValueError(
                f"{limit:g} s, but parsl_options.job_time_limit is {inner:g} s; keep one of them"
            )
        block = None if scheduler is None else scheduler.read_header(_header(scheduler, info.data)).walltime
        if scheduler is None or block is None or math.isinf(block) or math.isinf(limit):
            return limit
        if limit > block - reserve(block) - startup(block):
            raise ValueError(
                f"{limit:g} s do not fit into a block of {block:g} s ({scheduler.header_key}): its workers start in "
                f"the first {startup(block):g} s, and the last {reserve(block):g} s are reserved; lengthen the block "
                "or lower the limit"
            )
        return limit
