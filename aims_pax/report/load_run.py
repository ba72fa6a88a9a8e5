"""Reads the record of a run, finished or running, from the files of its folder.

Read-only, without torch, tolerant of files that are being written at the same time. The journal gives the events and
their times, snapshots give the current state, the data folder gives the labels.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from aims_pax.errors import SettingsError
from aims_pax.record.delivered_models import models_of_run
from aims_pax.record.delivery_progress import REPORT, step_under_way
from aims_pax.report import predictions
from aims_pax.report.forecast import read_forecast
from aims_pax.report.md_test import read_md_test
from aims_pax.report.process_of_run import running_process
from aims_pax.report.run_history import FrameOrigin, RunHistory
from aims_pax.report.run_record import Epoch, LabelledPrediction, Observables, ReferenceCall, RunRecord
from aims_pax.report.seen_files import SeenFiles
from aims_pax.report.stage_snapshots import (
    NO_SNAPSHOT,
    awaited_frames,
    calibrations,
    members_of_convergence,
    newest_snapshots,
    stage_records,
    state_of,
)
from aims_pax.report.tolerant_readers import (
    StoredLabel,
    StructureHeader,
    csv_numbers,
    csv_rows,
    float_or_nan,
    json_file,
    json_lines,
    json_list,
)
from aims_pax.report.training_copies import read_copies_used
from aims_pax.report.trajectory_records import trajectory_records
from aims_pax.version import __version__


def load_run(folder: Path, brief: bool = False, seen: SeenFiles | None = None) -> RunRecord:
    """Read a working folder. Raises SettingsError when no run was ever begun there.

    brief: leave out what only figures need; of the observables of a trajectory only the last line is read.
    seen: what an earlier call has read of this folder; only what was added is read.
    """
    folder = Path(folder)
    restart = folder / "restart"
    seen = SeenFiles(restart) if seen is None else seen
    begun_with = json_file(restart / "settings.json")
    settings = _settings(begun_with)
    paths = _Paths(folder, settings)
    process = running_process(restart)
    if not (process.lock or settings):
        _check_begun(folder, paths.pool)
    history = seen.journal()
    snapshots = newest_snapshots(restart, history, seen)
    active, convergence = (snapshots.get(name, NO_SNAPSHOT) for name in ("explore", "converge"))
    stages = stage_records(snapshots, history)
    frames = seen.structures(paths.pool)
    labels = seen.labels(paths.data / "labels")
    splits, member_train = _splits(seen.splits(paths.data / "splits.jsonl"))
    seen.save()
    awaited = [f for name, newest in snapshots.items() for f in awaited_frames(name, newest.state)]
    systems = tuple(str(t.get("system", "")) for t in active.state.get("trajectories", ()))
    in_sets = {f for split in splits.values() for f in split}
    origins = history.frame_origins({*history.answers, *awaited, *in_sets}, systems)
    calls = tuple(_calls(history, origins, labels, frames, awaited))
    results = tuple(p.name for p in models_of_run(folder / "results"))
    heard = max([history.heard, *(newest.time for newest in snapshots.values()), 0.0])
    started = process.has_written(max(heard, history.other))
    writing = step_under_way(restart)
    delivered = results if writing in ("", REPORT) else ()  # the report itself says that the run is finished
    return RunRecord(
        folder=folder,
        name=settings.get("mace.GENERAL.name_exp", folder.resolve().name),
        state=state_of(stages, delivered, process.holder, process.lock, started, _converges(settings)),
        unfinished_start=process.ended_early(max(heard, history.other)),
        holder=process.holder,
        began=history.began,
        heard=heard,
        settings=settings,
        geometries=tuple(begun_with.get("geometries") or ()),
        method=json_file(paths.data / "labels" / settings.get("reference method", "-") / "method.json"),
        stages=stages,
        trajectories=tuple(trajectory_records(history, origins, active, calls, frames, splits)),
        observables=tuple(_observables(folder / "trajectories", brief)),
        calls=calls,
        calculations=len(labels),
        reference_seconds=math.fsum(label.seconds for label in labels.values()),
        visits=tuple(sorted(history.visits.values(), key=lambda v: v.time)),
        losses={p.stem: seen.unchanged(p, _epochs) for p in sorted(paths.losses.glob("*.csv"))},
        spans=tuple(history.spans),
        structures=tuple(frames.values()),
        splits=splits,
        given_check=tuple(e for e in json_list(paths.data / "given_check.json") if isinstance(e, dict)),
        member_train=member_train,
        checked=() if brief else tuple(_checked(folder / "analysis")),
        predictions=seen.unchanged(folder / "results" / predictions.FILE, predictions.load_predictions),
        results=results,
        writing=writing,
        error=_error(paths.logs),
        version=__version__,
        forecast=read_forecast(paths.logs),
        md_test={} if brief else read_md_test(folder / "results"),
        copies=read_copies_used(paths.data),
        convergence=tuple(members_of_convergence(convergence.state)),
        final_training=str(convergence.state.get("training", "")),
        calibrations=tuple(calibrations(active.state)),
        n_train=int(active.state.get("n_train", 0)),
        given=frozenset(f for f in in_sets if f in frames and is_given(frames[f])),
    )


def is_given(structure: StructureHeader) -> bool:
    """Whether the label came with the user's data and not from the reference of this run."""
    return structure.source != "reference"


def _check_begun(folder: Path, pool: Path) -> None:
    """Raise SettingsError for a folder in which no run was ever begun."""
    if not folder.is_dir():
        from aims_pax.suggestions import no_such

        raise SettingsError(f"{folder}: {no_such(folder, 'folder')}")
    if not (folder / "restart/journal.jsonl").exists() and not pool.exists():
        raise SettingsError(
            f"{folder.resolve()}: no aims-PAX run was begun here (there is no restart/journal.jsonl); go to the folder "
            "with aimsPAX.yaml in which it runs, or name that folder"
        )


def _converges(settings: Mapping[str, str]) -> bool:
    return settings.get("aimsPAX.ACTIVE_LEARNING.converge_al") == "True"


class _Paths:
    """The paths of this run, as its settings have them."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        def of(key: str, default: str) -> Path:
            return folder / Path(settings.get(key, default)).expanduser()

        self.data = of("aimsPAX.MISC.dataset_dir", "data")
        self.logs = of("aimsPAX.MISC.log_dir", "logs")
        self.losses = of("mace.GENERAL.loss_dir", "losses")
        self.pool = self.data / "labelled.xyz"


def _settings(begun_with: Mapping[str, Any]) -> dict[str, str]:
    stored = begun_with.get("settings")
    return {str(k): str(v) for k, v in stored.items()} if isinstance(stored, dict) else {}


def _calls(
    history: RunHistory,
    origins: Mapping[str, FrameOrigin],
    labels: Mapping[str, StoredLabel],
    frames: Mapping[str, StructureHeader],
    awaited: Iterable[str],
) -> Iterable[ReferenceCall]:
    """One entry per frame that was sent to the reference, in the order of the results; pending ones last."""
    answered = list(history.answers)
    for frame in dict.fromkeys([*answered, *awaited]):
        moment, outcome, reason = history.answers.get(frame, (math.nan, "pending", ""))
        origin = origins.get(frame)
        structure, stored = frames.get(frame), labels.get(frame)
        system = (structure.system if structure else "") or (origin.system if origin else "")
        asked = origin.time if origin else moment
        stage = origin.stage if origin else ""
        if (
            not origin
            and not history.fresh
            and structure
            and structure.info.get("stage") == "active learning"
        ):
            stage = "explore"  # damaged journal: its origin is lost
        if outcome == "dropped":
            continue
        if stored is None:
            yield ReferenceCall(frame, system, stage, outcome, asked, moment, reason)
        else:
            yield ReferenceCall(
                frame, system, stage, "labelled" if outcome == "pending" else outcome, asked, moment, reason,
                stored.began, stored.ended, stored.seconds, stored.host,
            )  # fmt: skip


def _epochs(path: Path) -> tuple[Epoch, ...]:
    """The epochs of the file, each visit once: of a visit repeated after a restart, the last repetition counts."""
    found: list[Epoch] = []
    for epoch in _written_epochs(path):
        later = (epoch.visit, epoch.epoch)
        while found and found[-1].stage == epoch.stage and (found[-1].visit, found[-1].epoch) >= later:
            found.pop()
        found.append(epoch)
    return tuple(found)


def _written_epochs(path: Path) -> Iterable[Epoch]:
    for row in csv_rows(path):
        values = [
            float_or_nan(row.get(k))
            for k in ("train_loss", "valid_loss", "energy_mae_eV_atom", "force_mae_eV_A")
        ]
        visit, epoch = float_or_nan(row.get("visit")), float_or_nan(row.get("epoch"))
        if math.isfinite(visit) and math.isfinite(epoch):
            yield Epoch(row.get("stage", ""), int(visit), int(epoch), *values)


def _observables(folder: Path, newest: bool) -> Iterable[Observables]:
    """`observables_<trajectory>.csv`: step, temperature_K, energy_eV, shortest_A, volume_A3; any may be missing."""
    names = ("step", "temperature_K", "energy_eV", "shortest_A", "volume_A3")
    for path in sorted(folder.glob("observables_*.csv")):
        index = path.stem.removeprefix("observables_")
        columns = csv_numbers(path, names, newest)
        if index.isdigit() and len(columns[0]):
            yield Observables(int(index), *columns)


def _splits(entries: Iterable[Any]) -> tuple[dict[str, dict[str, None]], int]:
    """(frames by split, over all members; training frames of the member that has most).

    As in `Dataset.ids`, a line without a member applies to every member.
    """
    splits: dict[str, dict[str, None]] = {}
    of: dict[int | None, set[str]] = {None: set()}
    for entry in entries:
        if isinstance(entry, list) and len(entry) in (3, 4):  # frame, split, member, label
            splits.setdefault(str(entry[1]), {})[str(entry[0])] = None
            if entry[1] == "train" and isinstance(entry[2], int | None):
                of.setdefault(entry[2], set()).add(str(entry[0]))
    return splits, max(len(of[None] | frames) for frames in of.values())


def _checked(folder: Path) -> Iterable[LabelledPrediction]:
    """Predictions that were compared with a label: made for analysis, or when a label was requested."""
    rows = {str(r.get("frame")): r for r in json_lines(folder / "predicted.jsonl") if isinstance(r, dict)}
    for line in rows.values():  # once per frame: a restart writes the last ones again
        try:
            yield LabelledPrediction(
                str(line["frame"]), int(line["trajectory"]), int(line["step"]), int(line["n_train"]),
                float(line["uncertainty"]), float(line["threshold"]), float(line["force_mae"]),
                float(line["max_force_error"]),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError):
            continue
    for path in sorted(folder.glob("trajectory_*/step_*.npz")):
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
                names = (
                    "trajectory",
                    "step",
                    "n_train",
                    "max_atomic_sd",
                    "threshold",
                    "force_mae",
                    "max_force_error",
                )
                i, step, n, sd, threshold, mae, largest = (stored[name].item() for name in names)
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            continue
        yield LabelledPrediction("", int(i), int(step), int(n), sd, threshold, mae, largest)


def _error(logs: Path) -> str:
    """The last error of the newest log, if it is among the last three lines; else ""."""
    newest = sorted(
        (p for p in logs.glob("*.log") if p.name != "traceback.log"), key=lambda p: p.stat().st_mtime
    )
    if not newest:
        return ""
    try:
        with open(newest[-1], "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 4000))
            lines = file.read().decode("utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    errors = [line.split(" · ERROR · ", 1)[1] for line in lines[-3:] if " · ERROR · " in line]
    return errors[-1] if errors else ""
