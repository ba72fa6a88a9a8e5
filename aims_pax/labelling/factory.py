"""Make the reference and the executor that the settings describe."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aims_pax.charge_and_spin import charged_or_open_shell
from aims_pax.errors import SettingsError
from aims_pax.labelling.executors.base import Executor
from aims_pax.labelling.executors.inline import InlineExecutor
from aims_pax.labelling.references.ase_calculator import CalculatorReference
from aims_pax.labelling.references.fhi_aims import AimsReference
from aims_pax.labelling.references.given_labels import GivenLabels
from aims_pax.schedulers.base import Scheduler, launch_cores, launch_slots
from aims_pax.schedulers.registry import known_schedulers, own_scheduler
from aims_pax.schedulers.usable_cores import cores
from aims_pax.settings.callables import Wanted, odd_arguments
from aims_pax.settings.control_in import Control, pair_controls, read_control
from aims_pax.settings.control_in_check import control_in_remarks
from aims_pax.settings.geometries import found_geometries

if TYPE_CHECKING:
    from aims_pax.frames import Frame
    from aims_pax.settings import LabellingSettings
    from aims_pax.settings.cluster import ParslOptions
    from aims_pax.systems import System

log = logging.getLogger(__name__)

KINDS = ("inline", "threads", "htex")  # of executors on one machine
AnyReference = AimsReference | CalculatorReference | GivenLabels
NO_WALLTIME = (
    "%s sets no walltime: when the queue's own limit ends a block, its calculations are cut off and begin again; set "
    "it, e.g. %s"
)
TOO_SMALL = (
    "%s asks for %d cores, but launch_str takes %d and jobs_per_block is %d: unless a block gets whole nodes, "
    "calculations are refused or wait for each other; ask for more cores, or lower jobs_per_block"
)
UNTESTED = (
    "%s: written from its manuals and tested on recorded outputs; it has not run on a real cluster yet. Try a small "
    "run first, and report what does not work"
)


def reference_of(settings: LabellingSettings, frames: Iterable[Frame] | None = None) -> AnyReference:
    """REFERENCE, or FHI-aims with control.in, species_dir and CLUSTER.launch_str when there is none.

    frames: what will be labelled, None for the geometries of the settings; whether any of them is charged or has
    unpaired electrons is part of the method of a calculator.
    """
    reference, cluster = settings.reference, settings.cluster
    if reference.type == "given":
        return GivenLabels()
    if reference.type == "calculator":
        assert reference.factory is not None  # checked by the settings
        return CalculatorReference(
            factory=reference.factory,
            kwargs=dict(reference.kwargs),
            folder=settings.folder,
            scratch=settings.path(cluster.calc_dir),
            charge_key=reference.charge_key,
            spin_key=reference.spin_key,
            spin_convention=None if reference.spin_convention == "None" else reference.spin_convention,
            charged=any(map(charged_or_open_shell, _frames(settings) if frames is None else frames)),
        )
    return _aims(settings)


def reference_remarks(settings: LabellingSettings) -> Iterator[str]:
    """Warnings about the input of the reference: contents that have no effect or an unexpected one."""
    reference = settings.reference
    if reference.type == "given":
        return
    if reference.type == "calculator":
        wanted: list[Wanted] = [(("REFERENCE",), str(reference.factory), dict(reference.kwargs))]
        for place, text in odd_arguments(wanted, settings.folder):
            yield f"{'.'.join(map(str, place))}: {text}"
        return
    written, systems = settings.misc.path_to_control, _systems(settings)
    names = [s.name for s in systems]
    pairs = dict.fromkeys(names, written) if isinstance(written, str) else pair_controls(written, names)[0]
    for file in dict.fromkeys(pairs.values()):
        served = [s for s in systems if pairs[s.name] == file]
        for text in control_in_remarks(file, read_control(settings.path(file)), served):
            yield f"MISC.path_to_control: {text}"


def _frames(settings: LabellingSettings) -> list[Frame]:
    return [s.frame for s in _systems(settings)]


def _systems(settings: LabellingSettings) -> Sequence[System]:
    """The settings' systems; none where their files cannot be read, which is reported elsewhere."""
    try:
        return found_geometries(settings)[0]
    except SettingsError:
        return ()


def executor_of(
    settings: LabellingSettings,
    reference: AnyReference,
    environment: Mapping[str, str] = os.environ,
) -> Executor:
    """CLUSTER.type and .executor; `auto` = threads for programs and quick calculators, processes for the others."""
    cluster = settings.cluster
    kind = cluster.executor
    if isinstance(reference, GivenLabels):
        return InlineExecutor()
    if cluster.scheduler is not None:
        return _blocks(settings, cluster.scheduler, reference)
    if kind == "auto":
        kind = "threads" if reference.quick else "htex"
    own = own_scheduler(environment) if isinstance(reference, AimsReference) else None
    workers = cluster.max_workers or places_here(settings, environment)
    run_dir = settings.path(settings.misc.log_dir) / "parsl"
    log.info("reference calculations: %s, %d at once", kind, 1 if kind == "inline" else workers)
    here = _at_login(environment) if cluster.max_workers is None and kind != "inline" else None
    if here is not None:
        log.warning(
            "this looks like a login node: %s is available, but this process is in none of its jobs. Calculations use "
            "%d cores here; write CLUSTER.type: %s, start aims-PAX in a job, or set CLUSTER.max_workers",
            here.title, workers, here.name,
        )  # fmt: skip
    if own is not None:
        log.info("inside %s job %s: calculations run in it", own.title, own.own_job(environment))
    return make_executor(kind, workers, run_dir, settings.folder)


def places_here(settings: LabellingSettings, environment: Mapping[str, str] = os.environ) -> int:
    """How many calculations have room on this machine, or in the job that this process runs in."""
    if settings.reference.type != "aims":
        return cores()
    launch, own = settings.cluster.launch_str or "", own_scheduler(environment)
    return launch_slots(launch, cores()) if own is None else own.allocation_slots(launch, environment)


def _at_login(environment: Mapping[str, str]) -> Scheduler | None:
    """The scheduler that accepts jobs on this machine, if this process is not in a job of any scheduler."""
    if own_scheduler(environment) is not None:
        return None
    return next((s for s in known_schedulers().values() if s.at_login(environment)), None)


def _blocks(settings: LabellingSettings, scheduler: Scheduler, reference: AnyReference) -> Executor:
    from aims_pax.labelling.executors.block_request import Blocks
    from aims_pax.labelling.executors.parsl_blocks import BlockExecutor  # takes half a second

    cluster, options = settings.cluster, settings.cluster.parsl_options
    assert options is not None  # checked by the settings
    if cluster.executor in ("inline", "threads"):
        raise SettingsError(
            f"CLUSTER.executor: {cluster.executor} does not run on {scheduler.title}'s nodes; expected auto, htex or "
            "mpi"
        )
    if cluster.executor == "mpi":
        _check_mpi(scheduler, options)
    if not scheduler.tested:
        log.warning(UNTESTED, scheduler.title)
    header = scheduler.read_header(cluster.header)
    place = f"CLUSTER.{scheduler.header_key}"
    if header.nodes is not None and header.nodes != options.nodes_per_block:
        said = f"{place}: {header.nodes} nodes, but nodes_per_block is {options.nodes_per_block}"
        if cluster.executor == "mpi":  # it would wait forever for nodes that no block has
            raise SettingsError(f"{said}; expected the same")
        log.warning("%s; %s is used", said, scheduler.header_key)
    if header.replaced:
        log.warning("%s: %s: set by aims-PAX for its blocks, not used", place, ", ".join(header.replaced))
    if header.walltime is None:
        log.warning(NO_WALLTIME, place, scheduler.example)
    if isinstance(reference, AimsReference) and cluster.executor != "mpi":
        needed, there = launch_cores(cluster.launch_str or ""), header.cores(options.nodes_per_block)
        if needed is not None and there is not None and needed * options.jobs_per_block > there:
            log.warning(TOO_SMALL, place, there, needed, options.jobs_per_block)
    run_dir = settings.path(options.run_dir or settings.path(settings.misc.log_dir) / "parsl")
    blocks = Blocks(
        scheduler=scheduler,
        header=cluster.header,
        worker=cluster.worker_str or "",
        name=scheduler.job_name(_word(cluster.project_name or "aims-PAX")),
        label=_word(options.label),
        nodes=options.nodes_per_block,
        init=options.init_blocks,
        least=options.min_blocks,
        most=options.max_blocks,
        jobs=options.jobs_per_block,
        mpi=cluster.executor == "mpi",
        longest=cluster.job_time_limit,
        scripts=settings.path(options.function_dir) if options.function_dir else None,
        address=options.address,
        interface=options.interface,
        ports=options.port_range,
    )
    log.info(
        "reference calculations: in up to %d %s blocks of %d nodes, %d at once in each",
        blocks.most, scheduler.title, blocks.nodes, blocks.jobs,
    )  # fmt: skip
    return BlockExecutor(blocks, run_dir, settings.folder, settings.folder / "restart")


def _check_mpi(scheduler: Scheduler, options: ParslOptions) -> None:
    """Raise SettingsError where Parsl cannot give each calculation of a block its own nodes."""
    nodes, jobs = options.nodes_per_block, options.jobs_per_block
    if scheduler.mpi_launcher is None:
        raise SettingsError(
            f"CLUSTER.executor: mpi needs a scheduler that gives a block its nodes, and {scheduler.title} gives slots; "
            "expected auto or htex: one calculation may still span all hosts of a block"
        )
    if nodes % jobs:
        raise SettingsError(
            f"CLUSTER.parsl_options.jobs_per_block: with executor: mpi each calculation has whole nodes, and {nodes} "
            f"cannot be shared by {jobs}; make nodes_per_block a multiple of jobs_per_block"
        )


def _word(text: str) -> str:
    """The text with all characters replaced that file names and job names cannot have."""
    return re.sub(r"[^\w.-]+", "_", text)


def _several(settings: LabellingSettings) -> bool:
    """Whether several calculations share one job of a scheduler."""
    cluster = settings.cluster
    if cluster.scheduler is not None:
        return cluster.parsl_options is not None and cluster.parsl_options.jobs_per_block > 1
    own = own_scheduler()
    return (
        own is not None
        and (cluster.max_workers or own.allocation_slots(cluster.launch_str or "", os.environ)) > 1
    )


def _controls(settings: LabellingSettings) -> dict[str, Control]:
    """{system name: control.in}, or {"": control.in} when all systems share one."""
    written = settings.misc.path_to_control
    if isinstance(written, str):
        return {"": read_control(settings.path(written))}
    systems, _ = found_geometries(settings)
    pairs, text = pair_controls(written, [s.name for s in systems])
    if text is not None:
        log.warning("%s", text)
    return {name: read_control(settings.path(file)) for name, file in pairs.items()}


def _aims(settings: LabellingSettings) -> AimsReference:
    cluster = settings.cluster
    if cluster.launch_str is None:
        raise SettingsError("CLUSTER.launch_str", "needed to run FHI-aims")
    if settings.species_dir is None:
        raise SettingsError("species_dir", "needed to run FHI-aims")
    controls = _controls(settings)
    return AimsReference(
        control=next(iter(controls.values())),
        controls={} if "" in controls else controls,
        retries=settings.reference.retries,
        species_dir=settings.path(settings.species_dir),
        launch=cluster.launch_str,
        calc_dir=settings.path(cluster.calc_dir),
        clean_dirs=cluster.clean_dirs,
        stress=settings.model.compute_stress,
        time_limit=None if math.isinf(cluster.job_time_limit) else cluster.job_time_limit,
        shared=_several(settings),
    )


def make_executor(kind: str, workers: int, run_dir: Path, folder: Path | None = None) -> Executor:
    """An executor (inline, threads or htex) with this number of workers; Parsl writes its files below run_dir.

    folder: the working folder of worker processes.
    """
    if kind == "inline":
        return InlineExecutor()
    if kind not in KINDS:
        raise SettingsError(
            f"CLUSTER.executor: {kind!r} does not run on one machine; one of {', '.join(KINDS)}"
        )
    from aims_pax.labelling.executors.parsl_local import ParslExecutor  # takes half a second

    return ParslExecutor(kind, workers, run_dir, folder)
