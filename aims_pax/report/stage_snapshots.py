"""The stages of a run, from their snapshots and the journal: how far each is, and whether the run is finished."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from aims_pax.core.error_calibration import ErrorCalibration
from aims_pax.errors import RestartError
from aims_pax.record.checkpoint import from_plain
from aims_pax.report.run_history import RunHistory
from aims_pax.report.run_record import Converged, StageRecord, current_stage
from aims_pax.report.seen_files import SeenFiles
from aims_pax.report.tolerant_readers import float_or_nan, snapshot, snapshot_state

# the folders of the stages in restart/, in the order in which a run has them
STAGES_OF_A_RUN = (
    *("pretrain-sample", "pretrain", "initial", "converge-initial"),
    *("train-given", "explore", "converge"),
)


class StageSnapshot(NamedTuple):
    """The newest state of a stage as plain values, {} without one, and its time (s since 1970, 0: unknown)."""

    state: Mapping[str, Any]
    time: float


NO_SNAPSHOT = StageSnapshot({}, 0.0)


def newest_snapshots(restart: Path, history: RunHistory, seen: SeenFiles) -> dict[str, StageSnapshot]:
    """{stage: its newest snapshot, or its end according to the journal}."""
    found: dict[str, StageSnapshot] = {}
    for folder in sorted((p for p in restart.glob("*") if _is_stage(p)), key=lambda p: _place(p.name)):
        found[folder.name] = StageSnapshot(*snapshot(folder, lambda p: seen.unchanged(p, snapshot_state)))
    for name, final in history.ended.items():  # MISC.create_restart is False: there are no snapshots
        found.setdefault(name, StageSnapshot(final, 0.0))
    return found


def stage_records(snapshots: Mapping[str, StageSnapshot], history: RunHistory) -> tuple[StageRecord, ...]:
    """The stages that have begun, in the order of a run."""
    names = [*snapshots, *(n for n in history.moments if n not in snapshots and n != "run")]
    return tuple(
        _stage_record(name, snapshots.get(name, NO_SNAPSHOT), history) for name in sorted(names, key=_place)
    )


def _stage_record(name: str, newest: StageSnapshot, history: RunHistory) -> StageRecord:
    began, heard = history.moments.get(name, (newest.time, newest.time))
    stopped = newest.state.get("stopped")
    return StageRecord(
        name,
        began,
        max(heard, newest.time),
        None if stopped is None else str(stopped),
        history.seconds.get(name, {}),
    )


def _is_stage(folder: Path) -> bool:
    return folder.is_dir() and any(folder.glob("state-*.npy"))


def _place(name: str) -> tuple[int, str]:
    """Where a stage stands in a run; unknown ones are last."""
    known = STAGES_OF_A_RUN
    return known.index(name) if name in known else len(known), name


def state_of(
    stages: Iterable[StageRecord],
    results: Sequence[str],
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
    last = current_stage([s for s in stages if s.name in STAGES_OF_A_RUN])
    ends = ("converge",) if converges else ("explore", "converge")
    over = last is not None and last.stopped and results and last.name in ends
    if over and (started or not holder):
        return "finished"
    if holder:
        return "running" if started else "starting"
    return "killed" if lock else "stopped"


# ---------------------------------------------------------------- what a state says


def awaited_frames(stage: str, state: Mapping[str, Any]) -> list[str]:
    """Frames whose labels a stage waits for."""
    if stage == "initial" and state.get("phase") == "label":
        done = {frame for frame, _ in state.get("answers", ())}
        return [frame for _, frame in state.get("batch", ()) if frame not in done]
    waiting = [t["frame"] for t in state.get("trajectories", ()) if t.get("status") == "waiting"]
    chosen = [frame for frame, _ in state.get("window", {}).get("pending", ())]
    asides = [a["frame"] for key in ("tests", "audits", "analyses") for a in state.get(key, ())]
    return list(dict.fromkeys(frame for frame in (*waiting, *chosen, *asides) if frame))


def members_of_convergence(state: Mapping[str, Any]) -> Iterable[Converged]:
    """Each member of convergence, from the state of this stage."""
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


def calibrations(state: Mapping[str, Any]) -> Iterable[tuple[str, ErrorCalibration]]:
    """The calibration of each system, from the state of active learning."""
    for entry in state.get("calibrations", ()):
        with contextlib.suppress(RestartError, TypeError, ValueError):  # of another version
            system, content = entry
            yield str(system), from_plain(ErrorCalibration, content)
