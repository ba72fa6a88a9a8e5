"""Reads the record of a run, finished or running, from the files of its folder.

Read-only, without torch, tolerant of files that are being written at the same time. The journal gives the events and
their times, snapshots give the current state, the data folder gives the labels.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from aims_pax.core.error_calibration import ErrorCalibration
from aims_pax.errors import RestartError, SettingsError
from aims_pax.record.checkpoint import from_plain
from aims_pax.record.delivered_models import models_of_run
from aims_pax.record.delivery_progress import REPORT, step_under_way
from aims_pax.report import predictions
from aims_pax.report.forecast import read_forecast
from aims_pax.report.md_test import read_md_test
from aims_pax.report.process_of_run import running_process
from aims_pax.report.run_history import FrameOrigin, RunHistory, UncertaintySeries
from aims_pax.report.run_record import (
    Converged,
    Epoch,
    LabelledPrediction,
    Observables,
    ReferenceCall,
    RunRecord,
    StageRecord,
    TrajectoryRecord,
    current_stage,
)
from aims_pax.report.seen_files import SeenFiles
from aims_pax.report.tolerant_readers import (
    StoredLabel,
    StructureHeader,
    csv_numbers,
    csv_rows,
    float_or_nan,
    json_file,
    json_lines,
    json_list,
    snapshot,
    snapshot_state,
)
from aims_pax.report.training_copies import read_copies_used
from aims_pax.version import __version__

ORDER = ("pretrain-sample", "pretrain", "initial", "converge-initial", "train-given", "explore", "converge")
# decisions after which a frame goes to the reference
ASKED = ("uncertain", "quiet", "candidate", "test", "audit")
NOTHING = UncertaintySeries(0, np.zeros(0, np.int64), *(np.zeros(0),) * 3, frames=[], decisions=[], faults=[])


def load_run(folder: Path, brief: bool = False, seen: SeenFiles | None = None) -> RunRecord:
    """Read a working folder. Raises SettingsError when no run was ever begun there.

    brief: leave out what only figures need; of the observables of a trajectory only the last line is read.
    seen: what an earlier call has read of this folder; only what was added is read.
    """
    folder = Path(folder)
    restart = folder / "restart"
    seen = SeenFiles(restart) if seen is None else seen
    known = json_file(restart / "settings.json")
    settings = _settings(known)
    paths = _Paths(folder, settings)
    process = running_process(restart)
    if not (process.lock or settings):
        _check_begun(folder, paths.pool)
    story = seen.journal()
    snapshots = _snapshots(restart, story, seen)
    last_training = snapshots.get("converge", ({}, {}, 0.0))[0]
    dealt = snapshots.get("explore", ({}, {}, 0.0))[0].get("trajectories", ())
    systems = tuple(str(t.get("system", "")) for t in dealt)
    stages = tuple(_stages(snapshots, story))
    frames = seen.structures(paths.pool)
    labels = seen.labels(paths.data / "labels")
    splits, member_train = _splits(seen.splits(paths.data / "splits.jsonl"))
    seen.save()
    open_now = [f for name, (state, _, _) in snapshots.items() for f in _open(name, state)]
    origins = story.frame_origins(
        {*story.answers, *open_now, *(f for split in splits.values() for f in split)}, systems
    )
    calls = tuple(_calls(story, origins, labels, frames, open_now))
    results = tuple(p.name for p in models_of_run(folder / "results"))
    heard = max([story.heard, *(moment for _, _, moment in snapshots.values()), 0.0])
    started = process.has_written(max(heard, story.other))
    writing = step_under_way(restart)
    delivered = results if writing in ("", REPORT) else ()  # the report itself says that the run is finished
    state = state_of(stages, delivered, process.holder, process.lock, started, _converges(settings))
    return RunRecord(
        folder=folder,
        name=settings.get("mace.GENERAL.name_exp", folder.resolve().name),
        state=state,
        unfinished_start=process.ended_early(max(heard, story.other)),
        holder=process.holder,
        began=story.began,
        heard=heard,
        settings=settings,
        geometries=tuple(known.get("geometries") or ()),
        method=json_file(paths.data / "labels" / settings.get("reference method", "-") / "method.json"),
        stages=stages,
        trajectories=tuple(_trajectories(story, origins, snapshots.get("explore"), calls, frames, splits)),
        observables=tuple(_observables(folder / "trajectories", brief)),
        calls=calls,
        calculations=len(labels),
        reference_seconds=math.fsum(label.seconds for label in labels.values()),
        visits=tuple(sorted(story.visits.values(), key=lambda v: v.time)),
        losses={p.stem: seen.unchanged(p, _epochs) for p in sorted(paths.losses.glob("*.csv"))},
        spans=tuple(story.spans),
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
        convergence=tuple(_converged(last_training)),
        final_training=str(last_training.get("training", "")),
        calibrations=tuple(_calibrations(snapshots.get("explore", ({}, {}, 0.0))[0])),
        n_train=int(snapshots.get("explore", ({}, {}, 0.0))[0].get("n_train", 0)),
        given=frozenset(f for split in splits.values() for f in split if f in frames and is_given(frames[f])),
    )


def is_given(structure: StructureHeader) -> bool:
    """Whether the label came with the user's data and not from the reference of this run."""
    return structure.source != "reference"


def _converged(state: Mapping[str, Any]) -> Iterable[Converged]:
    for p in state.get("members", ()):
        with contextlib.suppress(KeyError, TypeError, ValueError):
            yield Converged(
                int(p["member"]),
                int(p["epochs"]),
                int(p["best_epoch"]),
                float_or_nan(p["best_mae"]),
                bool(p["done"]),
                int(p.get("continued_at", 0)),
            )


def _calibrations(state: Mapping[str, Any]) -> Iterable[tuple[str, ErrorCalibration]]:
    for entry in state.get("calibrations", ()):
        with contextlib.suppress(RestartError, TypeError, ValueError):  # of another version
            system, content = entry
            yield str(system), from_plain(ErrorCalibration, content)


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


def state_of(
    stages: Iterable[StageRecord],
    results: tuple[str, ...],
    holder: Mapping[str, Any],
    lock: Mapping[str, Any] | None = None,
    started: bool = True,
    converges: bool = False,
) -> str:
    """finished | starting | running | killed | stopped.

    finished: models were delivered and the current stage has ended; a process that begins again is starting. If a
    process holds the lock: running, or starting if it has not written anything yet. Otherwise: killed if a lock was
    left behind (a clean end removes it), else stopped.
    started: whether the process has written anything. converges: the last stage is convergence, not active learning.
    """
    last = current_stage([s for s in stages if s.name in ORDER])
    ends = ("converge",) if converges else ("explore", "converge")
    over = last is not None and last.stopped and results and last.name in ends
    if over and (started or not holder):
        return "finished"
    if holder:
        return "running" if started else "starting"
    return "killed" if lock else "stopped"


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


def _settings(known: Mapping[str, Any]) -> dict[str, str]:
    stored = known.get("settings")
    return {str(k): str(v) for k, v in stored.items()} if isinstance(stored, dict) else {}


def _snapshots(restart: Path, story: RunHistory, seen: SeenFiles) -> dict[str, tuple[Any, Any, float]]:
    """{stage: (state, summary, time)} of its newest snapshot, or of its end when there are no snapshots."""
    found: dict[str, tuple[Any, Any, float]] = {}
    for folder in _stage_folders(restart):
        state, moment = snapshot(folder, lambda path: seen.unchanged(path, snapshot_state))
        found[folder.name] = (state, {}, moment)
    for name, final in story.ended.items():  # MISC.create_restart is False: there are no snapshots
        found.setdefault(name, (final, {}, 0.0))
    return found


def _stage_folders(restart: Path) -> list[Path]:
    found = [p for p in restart.glob("*") if p.is_dir() and any(p.glob("state-*.npy"))]
    return sorted(found, key=lambda p: (ORDER.index(p.name) if p.name in ORDER else len(ORDER), p.name))


def _stages(
    snapshots: Mapping[str, tuple[dict[str, Any], Any, float]], story: RunHistory
) -> Iterable[StageRecord]:
    names = [*snapshots, *(n for n in story.moments if n not in snapshots and n != "run")]
    for name in sorted(names, key=lambda n: (ORDER.index(n) if n in ORDER else len(ORDER), n)):
        state, _, moment = snapshots.get(name, ({}, {}, 0.0))
        began, heard = story.moments.get(name, (moment, moment))
        stopped = state.get("stopped")
        yield StageRecord(
            name,
            began,
            max(heard, moment),
            None if stopped is None else str(stopped),
            story.seconds.get(name, {}),
        )


def _trajectories(
    story: RunHistory,
    origins: Mapping[str, FrameOrigin],
    explore: tuple[dict[str, Any], Any, float] | None,
    calls: tuple[ReferenceCall, ...],
    frames: Mapping[str, StructureHeader],
    splits: Mapping[str, Mapping[str, None]],
) -> Iterable[TrajectoryRecord]:
    """Series from the journal; the current status from the newest snapshot, or from later journal entries."""
    state, _, moment = explore or ({}, {}, 0.0)
    stand = state.get("trajectories", [])
    asked = {c.frame for c in calls}
    pending = {c.frame for c in calls if c.outcome == "pending"}
    systems = {
        int(s.info["trajectory"]): s.system for s in frames.values() if s.info.get("trajectory", "").isdigit()
    }
    series = story.series()
    n = max([len(stand), *(i + 1 for i in series)], default=0)
    for i in range(n):
        t = stand[i] if i < len(stand) else {}
        c = series.get(i, NOTHING)
        status = str(t.get("status", "unknown"))
        if state.get("stopped"):
            status = "done"
        elif len(c.times) and c.times[-1] > moment and status != "done":
            last = c.frames[-1]  # the trajectory has not advanced since
            status = (
                "waiting" if last in pending else "training" if last in splits.get("train", ()) else "running"
            )
        labelled = np.zeros(len(c.steps), bool)
        for k in [k for k, frame in enumerate(c.frames) if frame in origins]:
            frame, decision = c.frames[k], c.decisions[k]
            # no decision: written by a version that did not record them
            requested = frame in asked and (decision in ASKED if decision else True)
            # after a rewind a frame may occur again that was labelled before: only its first occurrence asked for it
            labelled[k] = requested and origins[frame].time == c.times[k]
        yield TrajectoryRecord(
            index=i,
            system=str(t.get("system") or systems.get(i, "")),
            status=status,
            reason=t.get("reason") or state.get("stopped"),
            step=max(int(t.get("step", 0)), c.step),
            rewinds=int(t.get("life", 0)),
            steps=c.steps,
            uncertainty=c.uncertainty,
            threshold=c.threshold,
            times=c.times,
            labelled=labelled,  # frames labelled only for analysis do not count
            faults=tuple(c.faults),
            drawn=tuple(
                k
                for k in np.flatnonzero(labelled).tolist()
                if c.decisions[k] == "audit" or c.frames[k] in splits.get("test", ())
            ),
        )


def _calls(
    story: RunHistory,
    meetings: Mapping[str, FrameOrigin],
    labels: Mapping[str, StoredLabel],
    frames: Mapping[str, StructureHeader],
    open_now: Iterable[str],
) -> Iterable[ReferenceCall]:
    """One entry per frame that was sent to the reference, in the order of the results; pending ones last."""
    answered = list(story.answers)
    for frame in dict.fromkeys([*answered, *open_now]):
        moment, outcome, reason = story.answers.get(frame, (math.nan, "pending", ""))
        origins = meetings.get(frame)
        structure, stored = frames.get(frame), labels.get(frame)
        system = (structure.system if structure else "") or (origins.system if origins else "")
        asked = origins.time if origins else moment
        stage = origins.stage if origins else ""
        if not origins and not story.fresh and structure and structure.info.get("stage") == "active learning":
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


def _open(name: str, state: Mapping[str, Any]) -> list[str]:
    """Frames whose labels a stage waits for, according to its snapshot."""
    if name == "initial" and state.get("phase") == "label":
        done = {frame for frame, _ in state.get("answers", ())}
        return [frame for _, frame in state.get("batch", ()) if frame not in done]
    waiting = [t["frame"] for t in state.get("trajectories", ()) if t.get("status") == "waiting"]
    asides = [a["frame"] for key in ("tests", "audits", "analyses") for a in state.get(key, ())]
    return [frame for frame in waiting + asides if frame]


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
