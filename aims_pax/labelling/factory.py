"""From settings to objects: which reference, which executor."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from aims_pax.charge_and_spin import charged_or_open_shell
from aims_pax.errors import SettingsError
from aims_pax.labelling.executors.base import Executor
from aims_pax.labelling.executors.inline import InlineExecutor
from aims_pax.labelling.references.ase_calculator import CalculatorReference
from aims_pax.labelling.references.fhi_aims import AimsReference
from aims_pax.labelling.schedulers.slurm import allocation_slots, at_login
from aims_pax.processes import cores
from aims_pax.settings.control_in import Control, pair_controls, read_control
from aims_pax.settings.geometries import found_geometries
from aims_pax.settings.sbatch import sbatch_options

if TYPE_CHECKING:
    from aims_pax.frames import Frame
    from aims_pax.settings import Settings

log = logging.getLogger(__name__)

KINDS = ("inline", "threads", "htex")  # of executors on one machine


def reference_of(
    settings: Settings, frames: Iterable[Frame] | None = None
) -> AimsReference | CalculatorReference:
    """REFERENCE, or FHI-aims with control.in, species_dir and CLUSTER.launch_str when there is none.

    frames: what will be labelled, None for the geometries of the settings; whether any of them is charged or has
    unpaired electrons is part of the method of a calculator.
    """
    reference, cluster = settings.reference, settings.cluster
    if reference.type == "calculator":
        assert reference.factory is not None  # settings see to it
        return CalculatorReference(
            factory=reference.factory,
            kwargs=dict(reference.kwargs),
            folder=settings.folder,
            scratch=settings.path(cluster.calc_dir),
            charge_key=reference.charge_key,
            spin_key=reference.spin_key,
            spin_convention=None if reference.spin_convention == "None" else reference.spin_convention,
            charged=any(map(charged_or_open_shell, _geometries(settings) if frames is None else frames)),
        )
    return _aims(settings)


def _geometries(settings: Settings) -> list[Frame]:
    """The frames of the settings' systems; none where their files cannot be read, which is said elsewhere."""
    try:
        return [s.frame for s in found_geometries(settings)[0]]
    except SettingsError:
        return []


def executor_of(
    settings: Settings,
    reference: AimsReference | CalculatorReference,
    environment: Mapping[str, str] = os.environ,
) -> Executor:
    """CLUSTER.type and .executor; `auto` = threads for programs and quick calculators, processes for the others."""
    cluster = settings.cluster
    kind = cluster.executor
    if cluster.type == "slurm":
        return _slurm(settings)
    if kind == "auto":
        kind = "threads" if reference.quick else "htex"
    inside = isinstance(reference, AimsReference) and "SLURM_JOB_ID" in environment
    places = allocation_slots(cluster.launch_str or "", environment) if inside else cores()
    workers = cluster.max_workers or places
    run_dir = settings.path(settings.misc.log_dir) / "parsl"
    log.info("reference calculations: %s, %d at once", kind, 1 if kind == "inline" else workers)
    if cluster.max_workers is None and kind != "inline" and at_login(environment):
        log.warning(
            "this looks like a login node: Slurm is here, and this is no job of it. Calculations take %d of its cores; "
            "write CLUSTER.type: slurm, start aims-PAX in a job, or set CLUSTER.max_workers", workers,
        )  # fmt: skip
    if inside:
        log.info("inside Slurm job %s: each calculation is a step of it", environment["SLURM_JOB_ID"])
    return make_executor(kind, workers, run_dir, settings.folder)


def _slurm(settings: Settings) -> Executor:
    from aims_pax.labelling.executors.block_request import Blocks
    from aims_pax.labelling.executors.parsl_blocks import SlurmExecutor  # half a second

    cluster, options = settings.cluster, settings.cluster.parsl_options
    assert options is not None  # settings see to it
    if cluster.executor in ("inline", "threads"):
        raise SettingsError(
            f"CLUSTER.executor: {cluster.executor} does not run on Slurm's nodes; expected auto, htex or mpi"
        )
    header = sbatch_options(cluster.slurm_str or "")
    nodes = header.get("nodes")
    if nodes is not None and nodes != str(options.nodes_per_block):
        said = f"CLUSTER.slurm_str: --nodes={nodes}, but nodes_per_block is {options.nodes_per_block}"
        if cluster.executor == "mpi":  # it would wait for ever for nodes that no block has
            raise SettingsError(f"{said}; expected the same")
        log.warning("%s; slurm_str counts", said)
    ours = sorted(set(header) & {"job-name", "output", "error", "open-mode", "requeue"})
    if ours:
        log.warning("CLUSTER.slurm_str: --%s: set by aims-PAX for its blocks, not used", ", --".join(ours))
    run_dir = settings.path(options.run_dir or settings.path(settings.misc.log_dir) / "parsl")
    blocks = Blocks(
        header=cluster.slurm_str or "",
        worker=cluster.worker_str or "",
        name=_word(cluster.project_name or "aims-PAX"),
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
        "reference calculations: in up to %d Slurm blocks of %d nodes, %d at once in each",
        blocks.most, blocks.nodes, blocks.jobs,
    )  # fmt: skip
    return SlurmExecutor(blocks, run_dir, settings.folder, settings.folder / "restart")


def _word(text: str) -> str:
    """Fit for file names and job names."""
    return re.sub(r"[^\w.-]+", "_", text)


def _several(settings: Settings) -> bool:
    """Whether several calculations share one Slurm job."""
    cluster = settings.cluster
    if cluster.type == "slurm":
        return cluster.parsl_options is not None and cluster.parsl_options.jobs_per_block > 1
    return (
        "SLURM_JOB_ID" in os.environ
        and (cluster.max_workers or allocation_slots(cluster.launch_str or "", os.environ)) > 1
    )


def _controls(settings: Settings) -> dict[str, Control]:
    """The control.in of each system by its name, or of all under the name ""."""
    written = settings.misc.path_to_control
    if isinstance(written, str):
        return {"": read_control(settings.path(written))}
    systems, _ = found_geometries(settings)
    pairs, text = pair_controls(written, [s.name for s in systems])
    if text is not None:
        log.warning("%s", text)
    return {name: read_control(settings.path(file)) for name, file in pairs.items()}


def _aims(settings: Settings) -> AimsReference:
    cluster = settings.cluster
    if cluster.launch_str is None:
        raise SettingsError("CLUSTER.launch_str: needed to run FHI-aims")
    sections = [s for s in (settings.initial_dataset, settings.active_learning) if s is not None]
    species = next((s.species_dir for s in sections if s.species_dir is not None), None)
    if species is None:
        raise SettingsError("species_dir: needed to run FHI-aims")
    controls = _controls(settings)
    return AimsReference(
        control=next(iter(controls.values())),
        controls={} if "" in controls else controls,
        retries=settings.reference.retries,
        species_dir=settings.path(species),
        launch=cluster.launch_str,
        calc_dir=settings.path(cluster.calc_dir),
        clean_dirs=cluster.clean_dirs,
        stress=settings.model.compute_stress,
        time_limit=None if math.isinf(cluster.job_time_limit) else cluster.job_time_limit,
        shared=_several(settings),
    )


def make_executor(kind: str, workers: int, run_dir: Path, folder: Path | None = None) -> Executor:
    """inline, threads or htex with so many workers; Parsl writes its own files below run_dir.

    folder: the working folder of worker processes.
    """
    if kind == "inline":
        return InlineExecutor()
    if kind not in KINDS:
        raise SettingsError(
            f"CLUSTER.executor: {kind!r} does not run on one machine; one of {', '.join(KINDS)}"
        )
    from aims_pax.labelling.executors.parsl_local import ParslExecutor  # half a second

    return ParslExecutor(kind, workers, run_dir, folder)
