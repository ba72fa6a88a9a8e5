"""The state of active learning, and what follows from it alone: thresholds, progress, labels that are left."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from aims_pax.core.error_calibration import ErrorCalibration
from aims_pax.core.rules import ActiveLearningRules
from aims_pax.core.stop_rule import StopDecision
from aims_pax.core.threshold import Threshold
from aims_pax.core.trajectory import Trajectory
from aims_pax.core.warm_up import WarmUp
from aims_pax.core.window import AcquisitionWindow


@dataclass(frozen=True)
class BackgroundLabel:
    """A frame that is labelled while its trajectory continues: for testing or for analysis."""

    frame: str
    trajectory: int
    step: int
    threshold: float = math.inf  # eV/Å, when the frame was requested
    n_train: int = 0


@dataclass(frozen=True)
class State:
    """Everything that decides how active learning continues."""

    trajectories: tuple[Trajectory, ...]
    thresholds: tuple[tuple[str, Threshold], ...]  # one entry "" for all, or one per system
    n_train: int  # size of the training set (largest member), initial dataset included
    valid: tuple[tuple[str, int], ...]  # validation frames per system, over all members
    n_added: int = 0  # points added to training and validation in this stage
    n_valid_added: int = 0
    n_asked: int = 0  # reference calculations requested in this stage
    n_tests: int = 0
    checks: int = 0
    visit: int = 0  # training visits so far
    force_mae: tuple[float, ...] = ()  # eV/Å per member, last visit
    tests: tuple[BackgroundLabel, ...] = ()
    analyses: tuple[BackgroundLabel, ...] = ()
    audits: tuple[BackgroundLabel, ...] = ()
    n_audits: int = 0
    calibrations: tuple[tuple[str, ErrorCalibration], ...] = ()  # one entry per system
    decisions: tuple[tuple[str, StopDecision], ...] = ()  # of the stop rule, one entry per system
    moved_last: bool = False  # whether MD had the last turn: MD and training take turns on the device
    warm_up: WarmUp = field(default_factory=WarmUp)
    window: AcquisitionWindow = field(default_factory=AcquisitionWindow)
    closing: str | None = None  # the limit that was reached; only test frames are missing
    stopped: str | None = None


def threshold_of(state: State, system: str, rules: ActiveLearningRules) -> float:
    """δ in eV/Å that applies to this system now.

    With `threshold: calibrated` the spread whose error bound is the target, as soon as there is a calibration.
    """
    if rules.calibrated:
        fitted = dict(state.calibrations).get(system, ErrorCalibration()).map
        if fitted is not None:
            return fitted.spread_at(rules.target_error)
    return spread_threshold(state, system, rules)


def spread_threshold(state: State, system: str, rules: ActiveLearningRules) -> float:
    """δ in eV/Å by the spreads seen so far, whether it decides or a calibration does."""
    return dict(state.thresholds)[threshold_key(system, rules)].value(rules.c_x)


def fraction_done(state: State, rules: ActiveLearningRules) -> float:
    """Progress of the run, 0 … 1, relative to the nearest limit; without limits from the number of checks.

    Points of the initial dataset do not count as progress: all test frames would be due at once.
    """
    added = state.n_added - state.n_valid_added
    wanted = rules.max_train - (state.n_train - added)
    shares = [
        sum(t.step for t in state.trajectories) / (rules.max_steps * len(state.trajectories)),
        state.n_asked / rules.max_labels if rules.max_labels else 1.0,
        added / wanted if wanted > 0 else 1.0,
    ]
    if rules.max_steps == rules.max_labels == rules.max_train == math.inf:
        shares.append(1 - math.exp(-state.checks / (40 * len(state.trajectories))))
    return max(shares)


def budget_spent(state: State, rules: ActiveLearningRules) -> bool:
    """Whether no label is left for learning: those of test frames to come are set aside."""
    return labels_left(state, rules) < 1


def labels_left(state: State, rules: ActiveLearningRules) -> float:
    return rules.max_labels - max(0, rules.n_test - state.n_tests) - state.n_asked


def with_request(state: State, frame: str) -> State:
    """The state with one more requested label; a calculation for several purposes counts once."""
    return state if frame in under_way(state) else replace(state, n_asked=state.n_asked + 1)


def under_way(state: State) -> set[str]:
    """Frames with a requested label that is not finished."""
    waiting = {t.frame for t in state.trajectories if t.status == "waiting" and t.frame is not None}
    chosen = {frame for frame, _ in state.window.pending}
    return waiting | chosen | {a.frame for a in (*state.tests, *state.audits, *state.analyses)}


def without_background(state: State, frame: str) -> State:
    return replace(
        state,
        tests=tuple(a for a in state.tests if a.frame != frame),
        audits=tuple(a for a in state.audits if a.frame != frame),
        analyses=tuple(a for a in state.analyses if a.frame != frame),
    )


def with_point(state: State, system: str, split: str) -> State:
    valid = split == "valid"
    return replace(
        state,
        n_added=state.n_added + 1,
        n_valid_added=state.n_valid_added + valid,
        n_train=state.n_train + (not valid),
        valid=tuple((s, n + (valid and s == system)) for s, n in state.valid),
    )


def mean_force_mae(state: State) -> float:
    """Force MAE in eV/Å, mean over the members; NaN before the first visit."""
    return sum(state.force_mae) / len(state.force_mae) if state.force_mae else math.nan


def threshold_key(system: str, rules: ActiveLearningRules) -> str:
    return system if rules.per_system else ""


def with_trajectory(state: State, i: int, trajectory: Trajectory) -> State:
    trajectories = (*state.trajectories[:i], trajectory, *state.trajectories[i + 1 :])
    return replace(state, trajectories=trajectories)
