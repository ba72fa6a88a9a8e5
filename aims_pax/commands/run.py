"""`aims-PAX`: the full run, from settings and geometries to converged models."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from aims_pax.commands import atomic_energies, run_fingerprint
from aims_pax.commands.check import devices, mixed_data, readiness  # fmt: skip
from aims_pax.commands.results import deliver, read_test_set, save_models
from aims_pax.core.rules import CONTINUED
from aims_pax.dataset import Dataset
from aims_pax.engine.interrupts import InterruptMonitor, remaining_walltime
from aims_pax.engine.live_report import Reporter
from aims_pax.engine.outcome import describe_os_error, log_outcome
from aims_pax.engine.run_context import LabellingContext, RunContext
from aims_pax.errors import SettingsError, SetupError
from aims_pax.models.base import ForceFieldModel
from aims_pax.models.kinds import kind_of_run
from aims_pax.parallel.training import background_training
from aims_pax.record import folder_owners
from aims_pax.record.checkpoint import Checkpoint, discard, exists
from aims_pax.record.folder import RunFolder
from aims_pax.record.journal import Journal
from aims_pax.record.lock import Lock
from aims_pax.record.log import to_console, to_file
from aims_pax.record.restart_compatibility import (
    as_begun,
    compare_with_last_run,
    has_snapshots,
    remember_settings,
)
from aims_pax.record.run_requests import RequestFile
from aims_pax.report.live_view import Display
from aims_pax.report.run_verdict import NEXT
from aims_pax.schedulers.usable_cores import cores
from aims_pax.settings import effective, geometry_rules
from aims_pax.settings.geometries import read_geometries
from aims_pax.stages import active_learning, convergence, given_sets, initial_dataset, pretraining
from aims_pax.stages.given_models import given_ensemble
from aims_pax.systems import System, elements
from aims_pax.version import __version__

if TYPE_CHECKING:
    from aims_pax.models.gp.training_copies import TrainingCopies
    from aims_pax.settings import Settings

log = logging.getLogger(__name__)


def run_all(settings: Settings, console: Console) -> None:
    """`aims-PAX`: initial dataset, active learning, convergence, results."""
    if _nothing_to_do(settings, console):
        return
    begun_with = run_fingerprint.fingerprint_inputs(settings)
    with _opened(settings, console) as run:
        _pretrain(run)
        if settings.initial_dataset is not None:
            _initial(run)
        elif not readiness.has_given_data(settings):
            raise SettingsError(readiness.NOTHING)
        if settings.active_learning is not None:
            _active_learning(run, begun=settings.initial_dataset is not None)
            run_fingerprint.save_fingerprint(settings, begun_with)


def run_initial(settings: Settings, console: Console) -> None:
    """`aims-PAX-initial-ds`: the initial dataset only."""
    if settings.initial_dataset is None:
        raise SettingsError("aimsPAX.yaml has no section INITIAL_DATASET_GENERATION")
    with _opened(settings, console) as run:
        _pretrain(run)
        _initial(run)


def run_active_learning(settings: Settings, console: Console) -> None:
    """`aims-PAX-al`: active learning and convergence, from an initial dataset or from the user's data or models."""
    if settings.active_learning is None:
        raise SettingsError("aimsPAX.yaml has no section ACTIVE_LEARNING")
    if _nothing_to_do(settings, console):
        return
    begun_with = run_fingerprint.fingerprint_inputs(settings)
    with _opened(settings, console) as run:
        _pretrain(run)
        _active_learning(run)
        run_fingerprint.save_fingerprint(settings, begun_with)


def _nothing_to_do(settings: Settings, console: Console) -> bool:
    """Whether the run has finished and nothing has changed since; logs a message if so."""
    if not run_fingerprint.is_up_to_date(settings):
        return False
    with to_console(console, settings.model.log_level):
        for warning in settings.warnings:
            log.warning("%s", warning)
        log.info(
            "this run is complete and nothing has changed since: models and final datasets are in %s. To continue, %s; "
            "aims-PAX report writes the report again",
            RunFolder(settings).results,
            _to_go_on(settings),
        )
    return True


def _to_go_on(settings: Settings) -> str:
    """How to let active learning continue; depends on the limit that ended it, as raising another has no effect."""
    snapshot = Checkpoint(RunFolder(settings), "explore").read()  # none with MISC.create_restart: False
    reason = "" if snapshot is None else snapshot.state["stopped"] or ""
    return next(
        (words for start, words in NEXT.items() if reason.startswith(start)),
        "raise the limit that ended active learning (active_learning.log names it)",
    )


def _pretrain(run: RunContext) -> None:
    if run.settings.pretraining is not None:
        with to_file(run.folder.logs / "pretraining.log"), log_outcome():
            pretraining.run_pretraining(run)


def _initial(run: RunContext) -> None:
    with to_file(run.folder.logs / "initial_dataset.log"), log_outcome():
        if initial_dataset.superseded(run):
            log.info("active learning has begun and continues without the snapshots of the initial dataset")
            return
        state = initial_dataset.run_initial_dataset(run)
        save_models(run)
        log.info("initial dataset done: %s · data in %s", state.stopped, run.folder.data / "initial")


def _active_learning(run: RunContext, begun: bool = False) -> None:
    """begun: this process has just made the initial dataset or loaded it."""
    settings = run.settings.active_learning
    assert settings is not None
    with to_file(run.folder.logs / "active_learning.log"), log_outcome():
        _ready_to_explore(run, begun)
        state = active_learning.run_active_learning_stage(run)
        save_models(run)
        members = list(range(len(run.ensemble.members)))
        chosen = members
        if settings.converge_al:
            training = _final_training(run, grown=state.n_added > 0)
            convergence.discard_other_training(run, "converge", training)
            chosen = _converging(run, members)
            convergence.run_convergence(run, settings, "converge", chosen, training=training)
        deliver(run, chosen)


def _converging(run: RunContext, members: list[int]) -> list[int]:
    """The members to converge; the choice is stored, so that a restart converges the same ones."""
    settings = run.settings.active_learning
    assert settings is not None
    if not settings.converge_best:
        return members
    snapshot = Checkpoint(run.folder, "converge").read()
    if snapshot is not None:
        return [p["member"] for p in snapshot.state["members"]]
    return [convergence.best_member(run, settings.convergence_criterion)]


def _final_training(run: RunContext, grown: bool) -> str:
    """`final_training`; continued if every member was trained to convergence on exactly these structures already.

    grown: whether active learning added structures.
    """
    settings = run.settings.active_learning
    assert settings is not None
    converged = any(exists(run.folder.restart / name) for name in ("train-given", "converge-initial"))
    everything = run.dataset.union("train")
    shared = all(len(run.dataset.train(m)) == len(everything) for m in range(len(run.ensemble.members)))
    return CONTINUED if converged and shared and not grown else settings.final_training


def _ready_to_explore(run: RunContext, begun: bool) -> None:
    """Load the models that active learning starts from: its own snapshot, the initial dataset, or the user's models."""
    settings = run.settings
    if Checkpoint(run.folder, "explore").read() is not None:
        return
    discard(run.folder, "converge")  # an earlier attempt converged on other data
    if settings.initial_dataset is not None or initial_dataset.finished(run):
        snapshot = Checkpoint(run.folder, "initial").read()
        converged = Checkpoint(run.folder, "converge-initial").read()
        if snapshot is None and begun:
            return  # MISC.create_restart is False: models and data of the initial dataset are in memory
        if snapshot is None or not snapshot.state["stopped"]:
            raise SettingsError(_incomplete(settings))
        run.dataset.begin_again(snapshot.remarks["entries"])
        if converged is not None:
            run.ensemble.restore(
                {k: v for k, v in converged.weights.items() if not k.startswith(("best/", "earlier/"))}
            )
        else:
            run.ensemble.restore(snapshot.weights)
        return
    if not readiness.has_given_data(settings):
        raise SettingsError(
            "nothing to start from: run aims-PAX-initial-ds first, or set ACTIVE_LEARNING.initial_train_dataset "
            "or initial_models"
        )
    given_sets.begin_from_data(run)
    assert settings.active_learning is not None
    if not settings.active_learning.initial_models:
        log.info("training the members on the given data")
        convergence.run_convergence(
            run, settings.active_learning, "train-given", range(len(run.ensemble.members)), own_sets=True
        )


def _incomplete(settings: Settings) -> str:
    if settings.misc.create_restart:
        return "the initial dataset is not complete: run aims-PAX-initial-ds (or aims-PAX) first"
    return (
        "MISC.create_restart is False, so aims-PAX-al finds no snapshot of the initial dataset to continue from: run "
        "aims-PAX, which does both in one process, or set create_restart: True and run aims-PAX-initial-ds first"
    )


@contextlib.contextmanager
def _opened(settings: Settings, console: Console) -> Iterator[RunContext]:
    """Open everything that a run needs: console, lock, signals, reference, dataset, models."""
    from aims_pax.labelling import Labeller

    folder = RunFolder(settings)
    lock = Lock(folder.restart / "lock")
    watch = InterruptMonitor(
        remaining_walltime(settings.misc.max_walltime), lock.heartbeat, RequestFile(folder.restart)
    )
    display = Display(console, lambda: watch.paused_seconds)
    watch.on_pause = display.rest
    try:
        with (
            to_console(console, settings.model.log_level),
            watch.listening(),
            lock.held(watch.raise_if_signalled),
        ):
            for warning in settings.warnings:
                log.warning("%s", warning)
            systems = as_begun(folder, read_geometries(settings))
            for _, note in geometry_rules.noteworthy(settings, systems):
                log.warning("%s", note)
            for line in mixed_data.warnings(settings, systems):
                log.warning("%s", line)
            devices.check_devices(settings)
            readiness.stop_at_first(settings, systems)
            _limit_memory(settings)
            folder_owners.claim(folder, settings.model.name)
            with (
                display.on(),
                Labeller.from_settings(settings, folder.data, check=watch.raise_if_stopped) as labeller,
            ):
                compare_with_last_run(
                    folder, readiness.begun_settings(settings, systems), labeller.method,
                    {s.name: s.frame.id for s in systems}, readiness.baseline_in_words(settings),
                )  # fmt: skip
                made_under = remember_settings(folder, effective(settings))
                journal = Journal(folder)
                journal.write("run", "begun", _process())
                context = LabellingContext(
                    settings=settings, folder=folder, labeller=labeller, journal=journal, watch=watch
                )
                settings = atomic_energies.with_atomic_energies(
                    settings, context, elements(s.frame for s in systems)
                )
                ensemble = _ensemble(settings, systems)
                dataset = _dataset(folder)
                _of_constrained_inputs(settings, dataset)
                atoms = sum(len(s.frame) for s in systems) / len(systems)
                read_test_set(settings, ensemble)  # errors in the file appear before any calculation
                with (
                    kind_of_run(settings).compiling(ensemble, settings, atoms, watch),
                    background_training(settings, ensemble) as trainer,
                ):
                    yield RunContext(
                        settings=settings, folder=folder, systems=systems, labeller=labeller, dataset=dataset,
                        ensemble=ensemble, journal=journal, watch=watch, display=display,
                        reporter=Reporter(folder, settings.misc.report), background_training=trainer,
                        settings_hash=made_under,
                        augmentation=_augmentation(settings, folder, watch),
                    )  # fmt: skip
    except OSError as error:
        raise SetupError(describe_os_error(error)) from error


def _dataset(folder: RunFolder) -> Dataset:
    """The data of this run; if restart/ was removed, only the labelled frames are used."""
    dataset = Dataset(folder.data)
    if not has_snapshots(folder):
        dataset.begin_again(0)
    return dataset


def _augmentation(settings: Settings, folder: RunFolder, watch: InterruptMonitor) -> TrainingCopies | None:
    """What adds copies to the training sets, or None without the section AUGMENTATION."""
    if settings.augmentation is None:
        return None
    from aims_pax.models.gp.training_copies import TrainingCopies

    return TrainingCopies(settings.augmentation, folder.data, watch.raise_if_stopped)


def _process() -> dict[str, str | int]:
    """This process, for the journal."""
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "version": __version__,
        "cores": cores(),
    }


def _limit_memory(settings: Settings) -> None:
    """Limit the memory of evaluations to MISC.memory_limit, or to half of the memory available now."""
    from aims_pax.models import memory_budget

    asked = settings.model
    memory_budget.forget_measurement()
    if asked.memory_limit is not None:
        memory_budget.allow(asked.memory_limit * memory_budget.GB, asked.device, written=True)


def _of_constrained_inputs(settings: Settings, dataset: Dataset) -> None:
    """Warn of labels from earlier versions that passed constraints to FHI-aims, which prints zero for fixed atoms."""
    from aims_pax.labelling.validation import constrained

    if settings.reference.type != "aims":
        return
    n = sum(constrained(one.frame, one.label) for one in dataset.frames.values())
    if n:
        log.warning(
            "%d labelled structures have zero forces on their fixed atoms: an earlier version computed them with "
            "constraints, and the models learn these zeros; label data/labelled.xyz again (aims-PAX-recalc) and "
            "start in an empty folder with the result as initial_train_dataset", n,
        )  # fmt: skip


def _ensemble(settings: Settings, systems: Sequence[System]) -> ForceFieldModel:
    al = settings.active_learning
    if al is not None and al.initial_models:
        return given_ensemble(settings, elements(s.frame for s in systems), RunFolder(settings))
    zs = elements(s.frame for s in systems)
    return kind_of_run(settings).build(settings, readiness.untrained_member_seeds(settings), zs)
