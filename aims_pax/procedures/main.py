"""The whole program: from settings and a geometry to converged models."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ase.data import chemical_symbols
from rich.console import Console

from aims_pax import __version__, seeds
from aims_pax.dataset import Dataset, write_extxyz
from aims_pax.errors import SettingsError, SetupError
from aims_pax.given_data import GivenFile, overlap, read_given
from aims_pax.labelled_data import LabelKeys
from aims_pax.labelling.executor import cores
from aims_pax.procedures import atomic_energies, converge, delivered, explore, initial
from aims_pax.procedures.beside import beside
from aims_pax.procedures.compiling import compiling
from aims_pax.procedures.listed import Desk
from aims_pax.procedures.reporting import Reporter
from aims_pax.procedures.told import refused, told
from aims_pax.procedures.watch import Watch, walltime
from aims_pax.procedures.world import Run
from aims_pax.record import owners
from aims_pax.record.checkpoint import Checkpoint
from aims_pax.record.control import Wishes
from aims_pax.record.folder import RunFolder
from aims_pax.record.identity import compare, has_snapshots, remember
from aims_pax.record.journal import Journal
from aims_pax.record.lock import Lock
from aims_pax.record.log import to_console, to_file
from aims_pax.record.progress import Display
from aims_pax.report.words import misses
from aims_pax.settings import effective
from aims_pax.systems import System, elements, read_systems

if TYPE_CHECKING:
    from aims_pax.force_field import Ensemble
    from aims_pax.force_field.inference import Committee
    from aims_pax.frames import LabelledFrame
    from aims_pax.settings import Settings

log = logging.getLogger(__name__)


def run_all(settings: Settings, console: Console) -> None:
    """`aims-PAX`: initial dataset, active learning, convergence, results."""
    if _nothing_to_do(settings, console):
        return
    begun_with = delivered.asked(settings)
    with _opened(settings, console) as run:
        if settings.initial_dataset is not None:
            _initial(run)
        elif not _given(settings):
            raise SettingsError(
                "nothing to start from: write a section INITIAL_DATASET_GENERATION, or name "
                "ACTIVE_LEARNING.initial_train_dataset or initial_models"
            )
        if settings.active_learning is not None:
            _active_learning(run)
            delivered.remember(settings, begun_with)


def run_initial(settings: Settings, console: Console) -> None:
    """`aims-PAX-initial-ds`: the initial dataset only."""
    if settings.initial_dataset is None:
        raise SettingsError("aimsPAX.yaml has no section INITIAL_DATASET_GENERATION")
    with _opened(settings, console) as run:
        _initial(run)


def run_active_learning(settings: Settings, console: Console) -> None:
    """`aims-PAX-al`: active learning and convergence, from an initial dataset or from what the user brings."""
    if settings.active_learning is None:
        raise SettingsError("aimsPAX.yaml has no section ACTIVE_LEARNING")
    if _nothing_to_do(settings, console):
        return
    begun_with = delivered.asked(settings)
    with _opened(settings, console) as run:
        _active_learning(run)
        delivered.remember(settings, begun_with)


def _nothing_to_do(settings: Settings, console: Console) -> bool:
    """Whether all was delivered and nothing has changed since; then that is said."""
    if not delivered.unchanged(settings):
        return False
    with to_console(console, settings.mace.misc.log_level):
        for warning in settings.warnings:
            log.warning("%s", warning)
        log.info(
            "this run is complete and nothing has changed since: models and final datasets are in %s. Raise a limit to "
            "go on (ACTIVE_LEARNING.max_MD_steps, say); aims-PAX report draws the report again",
            RunFolder(settings).results,
        )
    return True


def _initial(run: Run) -> None:
    with to_file(run.folder.logs / "initial_dataset.log"), told():
        state = initial.create(run)
        _save_models(run)
        log.info("initial dataset done: %s · data in %s", state.stopped, run.folder.data / "initial")


def _active_learning(run: Run) -> None:
    settings = run.settings.active_learning
    assert settings is not None
    with to_file(run.folder.logs / "active_learning.log"), told():
        _ready_to_explore(run)
        explore.run(run)
        _save_models(run)
        members = list(range(len(run.ensemble.members)))
        chosen = members
        if settings.converge_al:
            chosen = _converging(run, members)
            converge.run(run, settings, "converge", chosen)
        deliver(run, chosen)


def _converging(run: Run, members: list[int]) -> list[int]:
    """The members to converge; chosen once and remembered, so that a restart converges the same one."""
    settings = run.settings.active_learning
    assert settings is not None
    if not settings.converge_best:
        return members
    snapshot = Checkpoint(run.folder, "converge").read()
    if snapshot is not None:
        return [p["member"] for p in snapshot.state["members"]]
    return [converge.best_member(run)]


def _ready_to_explore(run: Run) -> None:
    """The models active learning begins with: from its own restart, the initial dataset, or the user."""
    settings = run.settings
    if Checkpoint(run.folder, "explore").read() is not None:
        return
    if settings.initial_dataset is not None or initial.finished(run):
        snapshot = Checkpoint(run.folder, "initial").read()
        converged = Checkpoint(run.folder, "converge-initial").read()
        if snapshot is None or not snapshot.state["stopped"]:
            raise SettingsError(
                "the initial dataset is not complete: run aims-PAX-initial-ds (or aims-PAX) first"
            )
        if converged is not None:
            run.ensemble.restore({k: v for k, v in converged.weights.items() if not k.startswith("best/")})
        else:
            run.ensemble.restore(snapshot.weights)
        return
    if not _given(settings):
        raise SettingsError(
            "nothing to start from: run aims-PAX-initial-ds first, or name ACTIVE_LEARNING.initial_train_dataset "
            "or initial_models"
        )
    explore.begin_from_data(run)
    assert settings.active_learning is not None
    if not settings.active_learning.initial_models:
        log.info("training the members on the given data")
        converge.run(
            run, settings.active_learning, "train-given", range(len(run.ensemble.members)), own_sets=True
        )


def _given(settings: Settings) -> bool:
    al = settings.active_learning
    return al is not None and bool(al.initial_train_dataset or al.initial_models)


def deliver(run: Run, chosen: list[int]) -> None:
    """`results/`: the delivered models, the rest of the committee, the final datasets, the errors."""
    from aims_pax.force_field import evaluate

    results = run.folder.results
    for m, member in enumerate(run.ensemble.members):
        folder = results if m in chosen else results / "committee"
        _save(run, m, folder / f"{member.name}.model")
    if len(chosen) < len(run.ensemble.members):
        text = "These members were not converged on the final data; they serve to estimate uncertainty.\n"
        run.folder.write_text(results / "committee" / "not_converged.txt", text)
    sets = {
        "training": run.dataset.union("train"),
        "validation": run.dataset.union("valid"),
        "test": run.dataset.test,
    }
    for name, frames in sets.items():
        if frames:
            write_extxyz(results / f"{name}.xyz", frames)
    misc = run.settings.misc
    if misc.test_set:
        sets["test set"] = _test_set(run.settings, run.ensemble)
        train = GivenFile("results/training.xyz", "train", tuple(sets["training"]))
        for line in overlap(train, GivenFile(misc.test_set, "test", tuple(sets["test set"]))):
            log.warning("%s", line)
    potential = run.ensemble.potential(members=chosen)
    _predict(run, potential, sets)
    for name, frames in sets.items():
        if frames and name != "training":
            table = evaluate.evaluate(potential, frames)
            log.info("%s (%d frames): %s", name, len(frames), table.line(run.settings.mace.misc.error_table))
    counts = " + ".join(f"{len(sets[n])} {n}" for n in ("training", "validation", "test") if sets[n])
    log.info("final datasets: %s frames (those of all members together)", counts)
    active = run.settings.active_learning
    if active is not None and (missing := misses(len(sets["test"]), active.n_test or 0)):
        log.warning("test frames: only %s", missing)
    names = ", ".join(f"{run.ensemble.members[m].name}.model" for m in chosen)
    log.info("reference calculations in this run: %d", run.labeller.calls.finished)
    if misc.report:
        _report(run)
    log.info("done: %s and the final datasets are in %s", names, results)


def _test_set(settings: Settings, ensemble: Ensemble) -> list[LabelledFrame]:
    """The user's own test structures. Raises SettingsError for a file the models cannot be tested with."""
    misc = settings.misc
    if not misc.test_set:
        return []
    path, keys = settings.path(misc.test_set), LabelKeys.of(misc)
    return list(read_given(path, misc.test_set, "test", keys, ensemble.elements).frames)


def _predict(run: Run, potential: Committee, sets: Mapping[str, Sequence[LabelledFrame]]) -> None:
    """`results/predictions.npz`: the delivered model on all labelled frames, with the spread of the committee."""
    from aims_pax.report import predictions

    short = {"training": "train", "validation": "valid"}
    chosen = {short.get(name, name): frames for name, frames in sets.items() if frames}
    committee = run.ensemble.potential() if len(run.ensemble) > 1 else None
    arrays = predictions.predictions(potential, chosen, committee)
    run.folder.write_bytes(run.folder.results / predictions.FILE, predictions.pack(arrays))
    members = run.ensemble.members
    energies = members[0].statistics
    if energies is not None:
        E0 = {chemical_symbols[z]: float(e) for z, e in zip(members[0].elements, energies.E0, strict=True)}
        known = {"source": energies.source, "rank": energies.rank, "energies": E0}
        text = json.dumps(known, indent=1) + "\n"
        run.folder.write_text(run.folder.results / "atomic_energies.json", text)


def _report(run: Run) -> None:
    """Model cards and `report.html`."""
    from aims_pax.report.card import write_cards

    run.reporter.write()
    try:
        for path in write_cards(run.folder.root):
            log.debug("%s written", path)
    except Exception as error:  # a card that cannot be written takes nothing from the models
        log.warning("no model card: %s: %s", type(error).__name__, error)
    log.info("report: %s", run.folder.root / "report.html")


def _save_models(run: Run) -> None:
    """The models as they stand at the end of a stage, in GENERAL.model_dir, and their training state beside.

    Their energy offsets are fitted to the data they have: at a large force weight these lag behind in training.
    """
    from aims_pax.record.arrays import pack

    run.ensemble.refit_offsets({m: run.member_data(m) for m in range(len(run.ensemble.members))})
    for m, member in enumerate(run.ensemble.members):
        _save(run, m, run.folder.model / f"{member.name}.model")
        arrays = run.ensemble.members[m].arrays()
        run.folder.write_bytes(
            run.folder.checkpoints / f"{member.name}.npy", pack(arrays, {"name": member.name})
        )


def _save(run: Run, member: int, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    run.ensemble.save(member, path)


@contextlib.contextmanager
def _opened(settings: Settings, console: Console) -> Iterator[Run]:
    """Everything open: console, lock, signals, reference, dataset, models."""
    from aims_pax.labelling import Labeller

    folder = RunFolder(settings)
    lock = Lock(folder.restart / "lock")
    watch = Watch(walltime(settings.misc.max_walltime), lock.beat, Wishes(folder.restart))
    display = Display(console, lambda: watch.rested)
    watch.resting = display.rest
    try:
        with to_console(console, settings.mace.misc.log_level), lock.held():
            for warning in settings.warnings:
                log.warning("%s", warning)
            systems = read_systems(_paths(settings))
            _check_start(settings, systems)
            if settings.active_learning is not None:
                explore.refuse_fewer(folder, settings.active_learning.num_trajectories, systems)
            owners.claim(folder, settings.mace.general.name_exp)
            with watch.listening(), display.on(), Labeller.from_settings(settings, folder.data) as labeller:
                labeller.check_elements(elements(s.frame for s in systems))
                compare(folder, effective(settings), labeller.method, {s.name: s.frame.id for s in systems})
                made_under = remember(folder, effective(settings))
                journal = Journal(folder)
                journal.write("run", "begun", _process())
                desk = Desk(settings, folder, labeller, journal, watch)
                settings = atomic_energies.settled(desk, elements(s.frame for s in systems))
                ensemble = _ensemble(settings, elements(s.frame for s in systems))
                _test_set(settings, ensemble)  # a bad one is said before anything is paid
                with (
                    compiling(settings, ensemble, sum(len(s.frame) for s in systems) / len(systems)),
                    beside(settings, ensemble) as trainer,
                ):
                    yield Run(
                        settings, folder, systems, labeller, _dataset(folder), ensemble, journal, watch,
                        display, Reporter(folder, settings.misc.report), trainer, made_under,
                    )  # fmt: skip
    except OSError as error:
        raise SetupError(refused(error)) from error


def _dataset(folder: RunFolder) -> Dataset:
    """The data of this run; of a run whose restart/ was removed only the labelled frames remain."""
    dataset = Dataset(folder.data)
    if not has_snapshots(folder):
        dataset.begin_again(0)
    return dataset


def _process() -> dict[str, str | int]:
    """Who runs this, for the journal."""
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "version": __version__,
        "cores": cores(),
    }


def _check_start(settings: Settings, systems: tuple[System, ...]) -> None:
    """What needs torch or the labelling room to be seen, before anything is paid. Raises SettingsError."""
    import torch

    from aims_pax.errors import LabelError
    from aims_pax.labelling.validation import check_geometry

    device = settings.mace.misc.device
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise SettingsError(
            f"mace.yaml: MISC.device: {device}, but torch finds no GPU here; write device: cpu"
        )
    for system in systems:
        try:
            check_geometry(system.frame)
        except LabelError as error:
            raise SettingsError(
                f"geometry {system.name}: {error.reason}; mend the starting structure"
            ) from error


def _paths(settings: Settings) -> Path | list[Path]:
    given = settings.misc.path_to_geometry
    return settings.path(given) if isinstance(given, str) else [settings.path(p) for p in given]


def _ensemble(settings: Settings, elements: tuple[int, ...]) -> Ensemble:
    from aims_pax.force_field import Ensemble

    al, section = settings.active_learning, settings.active_learning or settings.initial_dataset
    if al is not None and al.initial_models:
        ensemble = Ensemble.from_models([settings.path(p) for p in al.initial_models], settings.mace)
        unknown = sorted(set(elements) - set(ensemble.elements))
        if unknown:
            raise SettingsError(
                f"ACTIVE_LEARNING.initial_models: the models do not know the elements with atomic numbers {unknown}; "
                "train models that do (initial_train_dataset), or remove those geometries"
            )
        return ensemble
    if al is not None and al.seeds_tags_dict:
        chosen = tuple(al.seeds_tags_dict.values())
    else:
        assert section is not None
        chosen = seeds.member_seeds(settings.mace.general.seed, section.ensemble_size)
    return Ensemble.build(settings.mace, chosen, elements, settings.folder)
