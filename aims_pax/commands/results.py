"""The end of a run: models, final datasets, predictions and report in `results/`."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase.data import chemical_symbols

from aims_pax.dataset import write_extxyz
from aims_pax.engine.run_context import RunContext
from aims_pax.errors import Abandoned
from aims_pax.given_data import GivenFile, overlap, read_given
from aims_pax.isolated_atoms import is_lone
from aims_pax.labelled_data import LabelKeys
from aims_pax.models.base import ForceFieldModel
from aims_pax.models.kinds import kind_of_run
from aims_pax.potential import Potential
from aims_pax.record import delivery_progress
from aims_pax.record.delivered_models import FILE as MODELS
from aims_pax.record.delivered_models import content, file_digest, remove_replaced
from aims_pax.report.formatting import missing_test_frames
from aims_pax.settings.geometries import completing
from aims_pax.stages import delivery_precision
from aims_pax.stages.given_data_check import check_learnable

if TYPE_CHECKING:
    from aims_pax.frames import LabelledFrame
    from aims_pax.settings import Settings

log = logging.getLogger(__name__)


def deliver(run: RunContext, chosen: list[int]) -> None:
    """Write `results/`: the converged models, the rest of the committee, the final datasets, the errors."""
    from aims_pax.models import evaluate
    from aims_pax.report.label_counts import frames_line, labels_line
    from aims_pax.report.load_run import load_run
    from aims_pax.report.run_verdict import run_verdict
    from aims_pax.report.training_copies import copies_line

    results, kind, restart = run.folder.results, kind_of_run(run.settings), run.folder.restart
    delivery_progress.begin_step(restart, delivery_progress.MODELS)
    delivered_files = _save_members(run, chosen)
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
        sets["test set"] = read_test_set(run.settings, run.ensemble)
        test = GivenFile(misc.test_set, "test", tuple(sets["test set"]))
        for name, use in (("training", "train"), ("validation", "valid")):
            for line in overlap(GivenFile(f"results/{name}.xyz", use, tuple(sets[name])), test):
                log.warning("%s", line)
    delivery_precision.check_delivery(
        run, {m: results / f"{run.ensemble.members[m].name}{kind.suffix}" for m in chosen}, sets
    )
    entries = {
        str(path.relative_to(results)): {"sha256": file_digest(path), **entry}
        for path, entry in delivered_files.items()
    }
    for path in remove_replaced(results, entries):
        log.info("%s of an earlier end of this run removed: its member is not delivered there now", path)
    run.folder.write_text(results / MODELS, content(entries))
    potential = run.ensemble.potential(members=chosen)
    lone = len({f.frame.id for frames in sets.values() for f in frames if is_lone(f)})
    if lone:
        log.info("%d isolated atoms only set the zero of energy; they are left out of the errors", lone)
    delivery_progress.begin_step(restart, delivery_progress.PREDICTIONS)
    _predict(run, potential, sets)
    for name, frames in sets.items():
        frames = [f for f in frames if not is_lone(f)]
        if frames and name != "training":
            table = evaluate.evaluate_potential(potential, frames)
            log.info("%s (%d frames): %s", name, len(frames), table.line(run.settings.model.error_table))
    active = run.settings.active_learning
    if active is not None and (missing := missing_test_frames(len(sets["test"]), active.n_test or 0)):
        log.warning("test frames: only %s", missing)
    names = ", ".join(f"{run.ensemble.members[m].name}{kind.suffix}" for m in chosen)
    record = load_run(run.folder.root, brief=True)
    log.info("final datasets: %s", frames_line(record))
    log.info("%s; %d calculated since this start", labels_line(record), run.labeller.calls.finished)
    if copies := copies_line(record):
        log.info("%s", copies)
    if misc.report or "md_test" in misc.model_fields_set:
        delivery_progress.begin_step(restart, delivery_progress.MD_TEST)
        _test_in_md(run, chosen)
    if misc.report:
        delivery_progress.begin_step(restart, delivery_progress.REPORT)
        _report(run)
    delivery_progress.all_written(restart)
    end = run_verdict(replace(record, state="finished"))
    log.info('in ASE, with the uncertainty of the committee: aims_pax.calculator("%s")', results)
    level = logging.WARNING if end.kind == "missed" else logging.INFO
    log.log(level, "done: %s and the final datasets are in %s · %s", names, results, end.text)


def _save_members(run: RunContext, chosen: list[int]) -> dict[Path, dict[str, Any]]:
    """Write all members, those not chosen into `committee/`. Returns {path: its entry in models.json}."""
    results, kind = run.folder.results, kind_of_run(run.settings)
    entries: dict[Path, dict[str, Any]] = {}
    given = (run.settings.active_learning and run.settings.active_learning.initial_models) or ()
    free = run.settings.pretraining
    learnt = free and f"{free.n_frames} structures with free labels from {free.in_words}"
    for m, member in enumerate(run.ensemble.members):
        path = (results if m in chosen else results / "committee") / f"{member.name}{kind.suffix}"
        delivery_precision.save_member(run, m, path)
        entries[path] = {
            "kind": run.settings.model.kind,
            "title": kind.title,
            "packages": list(kind.packages),
            "begun_from": given[m] if given else kind.beginning(run.settings),
            "pre-training": learnt,
            "architecture": run.ensemble.describe(m),
            **kind.recorded(run.ensemble),
        }
    if len(chosen) < len(run.ensemble.members):
        text = "These members were not converged on the final data; they are used only to estimate the uncertainty.\n"
        run.folder.write_text(results / "committee" / "not_converged.txt", text)
    return entries


def read_test_set(settings: Settings, ensemble: ForceFieldModel) -> list[LabelledFrame]:
    """The user's test structures. Raises SettingsError for a file that cannot be used."""
    misc = settings.misc
    if not misc.test_set:
        return []
    path, keys = settings.path(misc.test_set), LabelKeys.of(misc)
    file = read_given(path, misc.test_set, "test", keys, ensemble.elements, settled=completing(settings))
    ensemble.check_frames([f.frame for f in file.frames])
    check_learnable(ensemble.check_frame, file, "MISC.test_set")
    return list(file.frames)


def _predict(run: RunContext, potential: Potential, sets: Mapping[str, Sequence[LabelledFrame]]) -> None:
    """Write `results/predictions.npz`: predictions for all labelled frames, with the spread of the committee.

    Without isolated atoms: models do not train on them, and ScaleShiftMACE adds its shift to their energies.
    """
    from aims_pax.report import predictions

    short = {"training": "train", "validation": "valid"}
    bonded = {name: [f for f in frames if not is_lone(f)] for name, frames in sets.items()}
    chosen = {short.get(name, name): frames for name, frames in bonded.items() if frames}
    tells = len(run.ensemble) > 1 or run.ensemble.has_spread
    committee = run.ensemble.potential() if tells else None
    arrays = predictions.predictions(potential, chosen, committee)
    run.folder.write_bytes(run.folder.results / predictions.FILE, predictions.pack_predictions(arrays))
    zero = run.ensemble.energy_zero()
    if zero is not None:
        E0 = {chemical_symbols[z]: e for z, e in zero.energies.items()}
        known = {"source": zero.source, "rank": zero.rank, "energies": E0}
        text = json.dumps(known, indent=1) + "\n"
        run.folder.write_text(run.folder.results / "atomic_energies.json", text)


def _test_in_md(run: RunContext, chosen: list[int]) -> None:
    """The short MD test of the delivered model, `results/md_test.json`; skipped if it is there for these models."""
    from aims_pax.commands.md_test.at_end_of_run import md_test_at_end

    try:
        md_test_at_end(run, chosen)
    except Abandoned:
        run.watch.raise_if_stopped()
        raise
    except Exception as error:  # the models are delivered: a test that fails is no failure of the run
        log.warning("no MD test: %s: %s", type(error).__name__, error)
        log.debug("traceback", exc_info=True)


def _report(run: RunContext) -> None:
    """Write the model cards and `report.html`."""
    from aims_pax.report.model_card import write_cards

    run.reporter.write()
    try:
        for path in write_cards(run.folder.root):
            log.debug("%s written", path)
    except Exception as error:  # an error in a card must not stop the run
        log.warning("no model card: %s: %s", type(error).__name__, error)
        log.debug("traceback", exc_info=True)
    log.info("report: %s", run.folder.root / "report.html")


def save_models(run: RunContext) -> None:
    """Write the models at the end of a stage to GENERAL.model_dir, and their training state to the checkpoints.

    The energy offsets are fitted to the present data first: with a large force weight they lag behind in training.
    """
    from aims_pax.record.arrays import pack_arrays

    run.ensemble.refit_offsets({m: run.member_data(m) for m in range(len(run.ensemble.members))})
    for m, member in enumerate(run.ensemble.members):
        delivery_precision.save_member(
            run, m, run.folder.model / f"{member.name}{kind_of_run(run.settings).suffix}"
        )
        arrays = run.ensemble.member_arrays(m)
        run.folder.write_bytes(
            run.folder.checkpoints / f"{member.name}.npy", pack_arrays(arrays, {"name": member.name})
        )
