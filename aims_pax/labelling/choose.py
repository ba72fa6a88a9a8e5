"""From settings to objects: which reference, which executor."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

from aims_pax.errors import SettingsError
from aims_pax.labelling.aims import AimsReference
from aims_pax.labelling.calculator import CalculatorReference
from aims_pax.labelling.executor import Executor, cores, make_executor

if TYPE_CHECKING:
    from aims_pax.settings import Settings

log = logging.getLogger(__name__)


def reference_of(settings: Settings) -> AimsReference | CalculatorReference:
    """REFERENCE, or FHI-aims with control.in, species_dir and CLUSTER.launch_str when there is none."""
    reference, cluster = settings.reference, settings.cluster
    if reference.type == "calculator":
        assert reference.factory is not None  # settings see to it
        return CalculatorReference(
            factory=reference.factory,
            kwargs=dict(reference.kwargs),
            folder=settings.folder,
            scratch=settings.path(cluster.calc_dir),
        )
    return _aims(settings)


def executor_of(settings: Settings, reference: AimsReference | CalculatorReference) -> Executor:
    """CLUSTER.executor; `auto` = threads for programs and quick calculators, processes for the others."""
    cluster = settings.cluster
    kind = cluster.executor
    if cluster.type == "slurm":
        raise SettingsError("CLUSTER.type: slurm is read but does not run yet; use type: local")
    if kind == "auto":
        kind = "threads" if reference.quick else "htex"
    workers = cluster.max_workers or cores()
    run_dir = settings.path(settings.misc.log_dir) / "parsl"
    log.info("reference calculations: %s, %d at once", kind, 1 if kind == "inline" else workers)
    return make_executor(kind, workers, run_dir, settings.folder)


def _aims(settings: Settings) -> AimsReference:
    from aims_pax.settings.control import read_control

    cluster = settings.cluster
    if cluster.launch_str is None:
        raise SettingsError("CLUSTER.launch_str: needed to run FHI-aims")
    sections = [s for s in (settings.initial_dataset, settings.active_learning) if s is not None]
    species = next((s.species_dir for s in sections if s.species_dir is not None), None)
    if species is None:
        raise SettingsError("species_dir: needed to run FHI-aims")
    return AimsReference(
        control=read_control(settings.path(settings.misc.path_to_control)),
        species_dir=settings.path(species),
        launch=cluster.launch_str,
        calc_dir=settings.path(cluster.calc_dir),
        clean_dirs=cluster.clean_dirs,
        stress=settings.mace.general.compute_stress,
        time_limit=None if math.isinf(cluster.job_time_limit) else cluster.job_time_limit,
    )
