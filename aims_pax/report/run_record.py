"""The record of a run, as plain frozen values. Times are seconds since 1970 unless stated otherwise."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aims_pax.core.error_calibration import ErrorCalibration
from aims_pax.frames import Array
from aims_pax.report.tolerant_readers import StructureHeader


@dataclass(frozen=True)
class StageRecord:
    """One stage: name of its folder in restart/, time of first and last entry, why it stopped (None: it has not)."""

    name: str
    began: float
    heard: float
    stopped: str | None
    seconds: dict[str, float]  # s by activity, of ended sessions only


@dataclass(frozen=True)
class TrajectoryRecord:
    """One trajectory of active learning and the series of its uncertainty checks.

    status: running | waiting | training | done | unknown. steps (K,), uncertainty (K,) eV/Å (the largest atom),
    threshold (K,) eV/Å (inf: none yet), times (K,), labelled (K,) bool: this frame was sent to the reference.
    """

    index: int
    system: str
    status: str
    reason: str | None
    step: int
    rewinds: int
    steps: NDArray[np.int64]
    uncertainty: Array
    threshold: Array
    times: Array
    labelled: NDArray[np.bool_]
    faults: tuple[tuple[int, str], ...] = ()  # (step, why) of impossible frames
    drawn: tuple[int, ...] = ()  # which of the K were drawn at random, for testing or to measure the error


@dataclass(frozen=True)
class Observables:
    """Measured along one trajectory (`trajectories/observables_*.csv`), each (K,), NaN where absent."""

    trajectory: int
    steps: Array
    temperature: Array  # K
    energy: Array  # eV, the models' mean
    shortest: Array  # Å
    volume: Array  # Å³


@dataclass(frozen=True)
class ReferenceCall:
    """One frame that was sent to the reference.

    outcome: labelled | pending | a failure class. began, ended, seconds: of the calculation, NaN when unknown.
    """

    frame: str
    system: str
    stage: str
    outcome: str
    asked: float
    answered: float
    reason: str = ""
    began: float = math.nan
    ended: float = math.nan
    seconds: float = math.nan
    host: str = ""

    @property
    def reused(self) -> bool:
        """Whether its label was in the store before it was requested."""
        return self.outcome == "labelled" and self.ended < self.asked - 1.0


@dataclass(frozen=True)
class TrainingRecord:
    """One training visit. labels: received by then. force_mae eV/Å and valid_loss: one entry per member trained."""

    stage: str
    visit: int
    member: int | None
    time: float
    labels: int
    n_train: int
    valid_loss: tuple[float, ...]
    force_mae: tuple[float, ...]


@dataclass(frozen=True)
class Epoch:
    """One epoch of one member; energy_mae eV/atom, force_mae eV/Å, on its validation set."""

    stage: str
    visit: int
    epoch: int
    train_loss: float
    valid_loss: float
    energy_mae: float
    force_mae: float


@dataclass(frozen=True)
class Span:
    """Activity of the device from `began` to `ended`: a key of `report.time_left.DOING`, `paused` or `stopped`."""

    doing: str
    began: float
    ended: float


@dataclass(frozen=True)
class Converged:
    """State of the convergence of one member. best_epoch: the last that improved clearly.

    best_mae: force MAE at that epoch, eV/Å on the validation set. continued_at: epochs after which a new training that
    was worse than the earlier weights was given up and these were trained on; 0: it was not.
    """

    member: int
    epochs: int
    best_epoch: int
    best_mae: float
    done: bool
    continued_at: int = 0


@dataclass(frozen=True)
class LabelledPrediction:
    """A prediction compared with the label obtained later; all quantities in eV/Å."""

    frame: str
    trajectory: int
    step: int
    n_train: int
    uncertainty: float
    threshold: float
    force_mae: float
    max_force_error: float


@dataclass(frozen=True)
class CopiesUsed:
    """What a member was last trained on besides `labels` structures: `copies` of `wanted`, labelled by a process.

    loo_force_mae, validation_force_mae: eV/Å, of the process and of the member. process: its hash. refused: by reason.
    reason: why there were no copies, "" if there were.
    """

    member: str
    labels: int
    copies: int
    wanted: int
    loo_force_mae: float
    validation_force_mae: float
    process: str
    refused: dict[str, int]
    reason: str = ""


def current_stage(stages: Sequence[StageRecord]) -> StageRecord | None:
    """The last stage; after the end of the run, an earlier one that a raised limit has begun again. None: none yet."""
    last = stages[-1] if stages else None
    again = (s for s in stages if last is not None and s.stopped is None and s.heard > last.heard)
    return next(again, last)


@dataclass(frozen=True)
class RunRecord:
    """Everything that the files of a working folder say about its run."""

    folder: Path
    name: str
    state: str  # starting | running | stopped | killed | finished: see stage_snapshots.state_of
    holder: dict[str, Any]  # the lock: pid, host; {} when no process works here
    began: float
    heard: float  # time of the last entry or snapshot
    settings: dict[str, str]
    geometries: tuple[str, ...]
    method: dict[str, Any]
    stages: tuple[StageRecord, ...]
    trajectories: tuple[TrajectoryRecord, ...]
    observables: tuple[Observables, ...]
    calls: tuple[ReferenceCall, ...]
    calculations: int  # label files of all methods, isolated atoms included
    reference_seconds: float  # their sum
    visits: tuple[TrainingRecord, ...]
    losses: dict[str, tuple[Epoch, ...]]
    spans: tuple[Span, ...]
    structures: tuple[StructureHeader, ...]  # labelled, in the order of the file
    splits: dict[str, dict[str, None]]  # split → frame ids, in order, over all members
    # given labels compared with the reference, see `stages.given_data_check`
    given_check: tuple[dict[str, Any], ...]
    checked: tuple[LabelledPrediction, ...]
    predictions: dict[str, NDArray[Any]]  # results/predictions.npz, {} when there is none
    results: tuple[str, ...]  # delivered models
    error: str  # the last line of a traceback, "" when there is none
    version: str = ""
    member_train: int = 0  # training frames of the member that has most
    unfinished_start: bool = False  # killed before it had written anything
    convergence: tuple[Converged, ...] = ()  # of the stage `converge`
    final_training: str = ""  # as ACTIVE_LEARNING.final_training; "": not begun, or not recorded
    calibrations: tuple[tuple[str, ErrorCalibration], ...] = ()  # of each system
    n_train: int = 0  # size of the training set in active learning
    given: frozenset[str] = frozenset()  # frames in the sets that the user provided with labels
    forecast: dict[str, Any] = field(default_factory=dict)  # logs/forecast.json, {} when there is none
    copies: tuple[CopiesUsed, ...] = ()  # with AUGMENTATION, of each member
    md_test: dict[str, Any] = field(default_factory=dict)  # results/md_test.json, {} when there is none
    writing: str = ""  # the step of the delivery that began and did not end, see record.delivery_progress

    def setting(self, key: str, default: str = "") -> str:
        """A setting by the end of its key, `MD.temperature`."""
        for name, value in self.settings.items():
            if name == key or name.endswith("." + key):
                return default if value == "None" else value
        return default

    @property
    def failures(self) -> Counter[str]:
        """Failed labels by class."""
        return Counter(c.outcome for c in self.calls if c.outcome not in ("labelled", "pending"))

    @property
    def labelled(self) -> int:
        """Number of frames that the reference has labelled."""
        return sum(c.outcome == "labelled" for c in self.calls)

    @property
    def pending(self) -> int:
        """Number of frames sent to the reference and not answered yet."""
        return sum(c.outcome == "pending" for c in self.calls)

    @property
    def reused(self) -> int:
        """Number of labels taken from the store, without a calculation."""
        return sum(c.reused for c in self.calls)

    def counts(self) -> dict[str, dict[str, int]]:
        """{system: {split: frames}}, each frame once."""
        system = {s.id: s.system or "—" for s in self.structures}
        table: dict[str, dict[str, int]] = {}
        for split, frames in self.splits.items():
            for frame in frames:
                row = table.setdefault(system.get(frame, "—"), {})
                row[split] = row.get(split, 0) + 1
        return dict(sorted(table.items()))

    def sources(self) -> dict[str, int]:
        """{source of the labels, a file or `reference`: number of frames in the sets}."""
        source = {s.id: s.source for s in self.structures}
        frames = {frame for split in self.splits.values() for frame in split}
        table: dict[str, int] = {}
        for frame in frames:
            name = source.get(frame, "reference")
            table[name] = table.get(name, 0) + 1
        return dict(sorted(table.items(), key=lambda item: (item[0] != "reference", item[0])))

    def shares(self) -> dict[str, float]:
        """{activity: seconds of the device}."""
        seconds: dict[str, float] = {}
        for span in self.spans:
            seconds[span.doing] = seconds.get(span.doing, 0.0) + span.ended - span.began
        return seconds
