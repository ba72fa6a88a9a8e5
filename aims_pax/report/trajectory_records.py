"""The trajectories of active learning: series from the journal, status from the newest snapshot or later entries."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from aims_pax.report.run_history import FrameOrigin, RunHistory, UncertaintySeries
from aims_pax.report.run_record import ReferenceCall, TrajectoryRecord
from aims_pax.report.stage_snapshots import StageSnapshot
from aims_pax.report.tolerant_readers import StructureHeader

# decisions after which a frame goes to the reference
ASKED = ("uncertain", "quiet", "candidate", "test", "audit")
NOTHING = UncertaintySeries(0, np.zeros(0, np.int64), *(np.zeros(0),) * 3, frames=[], decisions=[], faults=[])


def trajectory_records(
    history: RunHistory,
    origins: Mapping[str, FrameOrigin],
    newest: StageSnapshot,
    calls: Collection[ReferenceCall],
    frames: Mapping[str, StructureHeader],
    splits: Mapping[str, Collection[str]],
) -> Iterable[TrajectoryRecord]:
    """newest: of active learning. frames: the dataset by frame id. splits: its frames by set."""
    states = newest.state.get("trajectories", [])
    stopped = newest.state.get("stopped")
    asked = {c.frame for c in calls}
    pending = {c.frame for c in calls if c.outcome == "pending"}
    systems = {
        int(s.info["trajectory"]): s.system for s in frames.values() if s.info.get("trajectory", "").isdigit()
    }
    series = history.series()
    for i in range(max([len(states), *(i + 1 for i in series)], default=0)):
        t = states[i] if i < len(states) else {}
        checks = series.get(i, NOTHING)
        status = str(t.get("status", "unknown"))
        if stopped:
            status = "done"
        elif len(checks.times) and checks.times[-1] > newest.time and status != "done":
            status = _later_status(checks.frames[-1], pending, splits)
        labelled = _labelled(checks, origins, asked)
        yield TrajectoryRecord(
            index=i,
            system=str(t.get("system") or systems.get(i, "")),
            status=status,
            reason=t.get("reason") or stopped,
            step=max(int(t.get("step", 0)), checks.step),
            rewinds=int(t.get("life", 0)),
            steps=checks.steps,
            uncertainty=checks.uncertainty,
            threshold=checks.threshold,
            times=checks.times,
            labelled=labelled,
            faults=tuple(checks.faults),
            drawn=_drawn_at_random(checks, labelled, splits.get("test", ())),
        )


def _later_status(last: str, pending: Collection[str], splits: Mapping[str, Collection[str]]) -> str:
    """The status after the snapshot: the trajectory has not advanced since its last checked frame."""
    if last in pending:
        return "waiting"
    return "training" if last in splits.get("train", ()) else "running"


def _labelled(
    checks: UncertaintySeries, origins: Mapping[str, FrameOrigin], asked: Collection[str]
) -> NDArray[np.bool_]:
    """(K,) which of the checked frames were sent to the reference by their check; not those for analysis only."""
    labelled = np.zeros(len(checks.steps), bool)
    for k in [k for k, frame in enumerate(checks.frames) if frame in origins]:
        frame, decision = checks.frames[k], checks.decisions[k]
        # no decision: written by a version that did not record them
        requested = frame in asked and (decision in ASKED if decision else True)
        # after a rewind a frame may occur again that was labelled before: only its first occurrence asked for it
        labelled[k] = requested and origins[frame].time == checks.times[k]
    return labelled


def _drawn_at_random(
    checks: UncertaintySeries, labelled: NDArray[np.bool_], tests: Collection[str]
) -> tuple[int, ...]:
    """Which of the K labelled frames were drawn at random, for testing or to measure the error."""
    return tuple(
        k
        for k in np.flatnonzero(labelled).tolist()
        if checks.decisions[k] == "audit" or checks.frames[k] in tests
    )
