"""The content of a journal as values: MD advances, uncertainty checks, training visits, reference results, times.

A journal has a line for every advance of a trajectory, up to millions: they are stored as columns of numbers.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aims_pax.frames import Array
from aims_pax.report.run_record import Span, TrainingRecord

CHECK, GONE = 1, 4  # flags of a row: the uncertainty criterion was applied; repeated later, so not counted


DECISIONS = (  # "": not recorded
    "", "certain", "uncertain", "quiet", "test", "budget spent", "candidate", "implausible", "audit",
)  # fmt: skip


@dataclass(frozen=True)
class FrameOrigin:
    """Where and when a frame was generated."""

    stage: str
    system: str
    time: float


@dataclass
class UncertaintyTable:
    """Every advance of a trajectory that gave finite uncertainties, one row each, in order."""

    trajectory: array[int] = field(default_factory=lambda: array("i"))
    step: array[int] = field(default_factory=lambda: array("q"))
    time: array[float] = field(default_factory=lambda: array("d"))
    largest: array[float] = field(default_factory=lambda: array("d"))  # eV/Å
    threshold: array[float] = field(default_factory=lambda: array("d"))  # eV/Å, NaN: not recorded
    decision: array[int] = field(default_factory=lambda: array("b"))  # index in DECISIONS
    flags: array[int] = field(default_factory=lambda: array("b"))
    frames: list[str] = field(default_factory=list)


@dataclass
class UncertaintySeries:
    """The uncertainty checks of one trajectory, (K,) each, in order; `step`: its current step.

    threshold: as the core used it, NaN in journals written before version 0.2. decisions: entries of DECISIONS.
    """

    step: int
    steps: NDArray[np.int64]
    uncertainty: Array
    threshold: Array
    times: Array
    frames: list[str]
    decisions: list[str]
    faults: list[tuple[int, str]]


@dataclass
class RunHistory:
    """The content of a journal. answers: frame → (time, outcome, reason). moments: stage → time of first, last entry.

    sampled: frames of the initial dataset. seconds: stage → time spent by activity, of ended sessions only.
    stood: current step of each trajectory. faults: trajectory → (step, why). other: last entry of a recalculation here.
    fresh: stage → when its present attempt began, if recorded. ended: stage → its final state.
    """

    began: float = math.nan
    heard: float = 0.0
    other: float = 0.0
    looks: UncertaintyTable = field(default_factory=UncertaintyTable)
    stood: dict[int, int] = field(default_factory=dict)
    faults: dict[int, list[tuple[int, str]]] = field(default_factory=dict)
    sampled: dict[str, FrameOrigin] = field(default_factory=dict)
    answers: dict[str, tuple[float, str, str]] = field(default_factory=dict)
    visits: dict[tuple[str, int, int | None], TrainingRecord] = field(default_factory=dict)
    spans: list[Span] = field(default_factory=list)
    moments: dict[str, tuple[float, float]] = field(default_factory=dict)
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)
    labels: int = 0
    fresh: dict[str, float] = field(default_factory=dict)
    ended: dict[str, dict[str, Any]] = field(default_factory=dict)
    last: tuple[float, str, str] | None = None  # time, stage, kind of the entry before
    pauses: list[tuple[float, float]] = field(default_factory=list)  # since `last`

    def frame_origins(self, wanted: Container[str], systems: tuple[str, ...]) -> dict[str, FrameOrigin]:
        """Where and when these frames were first generated; rows that were repeated later do not count."""
        found: dict[str, FrameOrigin] = {}
        looks = self.looks
        for k in [k for k, frame in enumerate(looks.frames) if frame in wanted]:
            if not looks.flags[k] & GONE and looks.frames[k] not in found:
                i = looks.trajectory[k]
                system = systems[i] if i < len(systems) else ""
                found[looks.frames[k]] = FrameOrigin("explore", system, looks.time[k])
        return {f: m for f, m in self.sampled.items() if f in wanted} | found

    def series(self) -> dict[int, UncertaintySeries]:
        """The checks of every trajectory."""
        looks = self.looks
        flags = np.frombuffer(looks.flags, np.int8)
        rows = np.flatnonzero((flags & (CHECK | GONE)) == CHECK)
        columns = [np.frombuffer(c, c.typecode)[rows] for c in (
            looks.trajectory, looks.step, looks.time, looks.largest, looks.threshold, looks.decision
        )]  # fmt: skip
        trajectory, step, time, largest, δ, decision = columns
        order = np.argsort(trajectory, kind="stable")
        found: dict[int, UncertaintySeries] = {}
        for i in sorted({*self.stood, *self.faults}):
            first, end = np.searchsorted(trajectory[order], (i, i + 1))
            mine = order[first:end]
            names = [looks.frames[k] for k in rows[mine].tolist()]
            steps = step[mine].astype(np.int64)
            stands = self.stood.get(i, 0)
            decisions = [DECISIONS[k] for k in decision[mine].tolist()]
            faults = self.faults.get(i, [])
            found[i] = UncertaintySeries(
                stands, steps, largest[mine], δ[mine], time[mine], names, decisions, faults
            )
        return found
