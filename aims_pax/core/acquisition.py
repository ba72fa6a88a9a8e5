"""Acquisition: what happens to a frame that MD has reached, from its uncertainty and the threshold.

Every `skip_step` MD steps the uncertainty of a frame is compared with δ (`core.threshold`). In this order:

    implausible   uncertain, and no structure of this MD: the trajectory is rewound
    test          drawn for the test set, whatever its spread
    audit         drawn at random to measure the error, then learnt (`core.audits`)
    certain       spread ≤ δ: the trajectory continues
    budget spent  it would be labelled, but no label is left
    candidate     `acquisition: window`: the best candidates of a window are labelled (`core.window`)
    uncertain     `acquisition: crossing`: its trajectory waits for the label
    quiet         the same for a frame that is certain, after a long time without a label
"""

from __future__ import annotations

import math
from dataclasses import replace

from aims_pax.core.active_learning_state import (
    BackgroundLabel,
    State,
    budget_spent,
    fraction_done,
    spread_threshold,
    threshold_key,
    threshold_of,
    under_way,
    with_request,
    with_trajectory,
)
from aims_pax.core.audits import audit_due, with_audit, with_check
from aims_pax.core.rules import MAX_FAULTS, ActiveLearningRules
from aims_pax.core.threshold import Threshold
from aims_pax.core.trajectory import Trajectory
from aims_pax.core.window import UncertainFrame
from aims_pax.core.work import Advanced, Decision, Effect, LogMessage, UncertaintyCheck


def after_md(state: State, event: Advanced, rules: ActiveLearningRules) -> tuple[State, tuple[Effect, ...]]:
    """The state after MD steps of one trajectory: a label for analysis, the uncertainty criterion, or a rewind."""
    i = event.work.trajectory
    fault = event.fault
    state = replace(state, moved_last=True)
    if fault is None and not all(map(math.isfinite, event.uncertainty)):
        fault = "the uncertainty is not finite"
    if fault is not None:
        return _exploded(state, event, fault, rules)

    trajectory = replace(state.trajectories[i], step=event.step)
    state = with_trajectory(state, i, trajectory.run_on(rules))
    effects: tuple[Effect, ...] = ()
    analysed = bool(rules.analysis_skip) and event.step % rules.analysis_skip == 0
    if analysed and not budget_spent(state, rules) and not state.closing:
        δ = threshold_of(state, trajectory.system, rules)
        background = BackgroundLabel(event.frame, i, event.step, δ, state.n_train)
        state = replace(with_request(state, event.frame), analyses=(*state.analyses, background))
    if event.step % rules.skip_step == 0 or event.step >= rules.max_steps:
        state, effects = _checked(state, i, trajectory, event, rules)
    return state, effects


def _exploded(
    state: State, event: Advanced, why: str, rules: ActiveLearningRules
) -> tuple[State, tuple[Effect, ...]]:
    """The trajectory is rewound; of its candidates, the one where its uncertainty began to rise remains."""
    i = event.work.trajectory
    trajectory = state.trajectories[i]
    trajectory = replace(trajectory, step=event.step, faults=trajectory.faults + 1)
    trajectory, effects = trajectory.rewound(i, why, MAX_FAULTS, trajectory.faults)
    state = replace(
        with_trajectory(state, i, trajectory.run_on(rules)), window=state.window.without_exploded(i)
    )
    return state, effects


def _checked(
    state: State, i: int, trajectory: Trajectory, event: Advanced, rules: ActiveLearningRules
) -> tuple[State, tuple[Effect, ...]]:
    """Apply the uncertainty criterion to one frame."""
    δ = threshold_of(state, trajectory.system, rules)
    spread = max(event.uncertainty)
    quiet = event.step - trajectory.last_label_step
    state = replace(state, checks=state.checks + 1)

    def checked(decision: Decision) -> UncertaintyCheck:
        return UncertaintyCheck(i, event.step, spread, δ, decision)

    why = _implausible(event, spread, δ, max(δ, spread_threshold(state, trajectory.system, rules)), rules)
    if why and trajectory.faults + 1 < MAX_FAULTS and not state.closing:
        state, effects = _exploded(state, event, why, rules)
        return state, (checked("implausible"), *effects)
    state = with_trajectory(state, i, replace(state.trajectories[i], faults=0))
    state = _seen(state, trajectory.system, event.uncertainty, rules)
    state = with_check(state, trajectory.system, spread, is_fair(i, rules), rules)
    asked_already = event.frame in under_way(state)  # for analysis: its label is already requested
    spent = budget_spent(state, rules) and not asked_already
    if _test_due(state, i, event, rules):
        return _drawn_for_testing(state, i, event, checked("test"))
    if not spent and is_fair(i, rules) and audit_due(state, rules):
        text = (
            f"trajectory {i} · step {event.step} · drawn to measure the error · labelling {event.frame[:6]}"
        )
        return with_audit(state, event.frame, i, event.step), (checked("audit"), LogMessage(text))
    if (spread <= δ and quiet < rules.quiet_limit) or state.closing:
        return state, (checked("certain" if spread <= δ else "budget spent"),)
    if spent and (rules.by_windows or state.n_tests < rules.n_test):
        return state, (checked("budget spent"),)
    if spent:
        ended = replace(trajectory, status="done", reason="max_labels: the budget is spent")
        return with_trajectory(state, i, ended), (checked("budget spent"),)
    if rules.by_windows:
        candidate = UncertainFrame(event.frame, i, event.step, spread)
        return replace(state, window=state.window.collected(candidate)), (checked("candidate"),)
    digits = 3 if f"{spread:.3f}" != f"{δ:.3f}" else 5
    why = f"spread {spread:.{digits}f} > {δ:.{digits}f} eV/Å" if spread > δ else f"no label for {quiet} steps"
    waiting = replace(trajectory, status="waiting", frame=event.frame, last_label_step=event.step, faults=0)
    state = with_trajectory(with_request(state, event.frame), i, waiting)
    text = f"trajectory {i} · step {event.step} · {why} · labelling {event.frame[:6]}"
    return state, (checked("uncertain" if spread > δ else "quiet"), LogMessage(text))


def _implausible(
    event: Advanced, spread: float, δ: float, usual: float, rules: ActiveLearningRules
) -> str | None:
    """Why an uncertain frame is no structure of this MD: its energy, or the models agree on nothing there.

    usual: eV/Å, a spread of usual structures; δ may be far below it while errors are above the target of a calibration.
    """
    if usual > 0 and spread > rules.exploded * usual:
        return f"spread {spread:.3f} eV/Å, {spread / usual:.1f} times the threshold"
    return event.implausible if spread > δ or math.isinf(δ) else None


def is_fair(trajectory: int, rules: ActiveLearningRules) -> bool:
    """Whether the frames of a trajectory measure the error: without bias, and at MD.temperature."""
    return not rules.fair_trajectories or trajectory in rules.fair_trajectories


def _seen(state: State, system: str, uncertainty: tuple[float, ...], rules: ActiveLearningRules) -> State:
    """The state whose threshold knows this uncertainty (eV/Å), frozen when the training set is large enough."""
    key = threshold_key(system, rules)
    freeze = state.n_train >= rules.freeze_at

    def after(threshold: Threshold) -> Threshold:
        return threshold.seen(uncertainty).freeze(rules.c_x) if freeze else threshold.seen(uncertainty)

    return replace(state, thresholds=tuple((k, after(t) if k == key else t) for k, t in state.thresholds))


def _drawn_for_testing(
    state: State, i: int, event: Advanced, check: UncertaintyCheck
) -> tuple[State, tuple[Effect, ...]]:
    state = with_trajectory(state, i, replace(state.trajectories[i], last_test_step=event.step))
    background = BackgroundLabel(event.frame, i, event.step)
    state = replace(
        with_request(state, event.frame), tests=(*state.tests, background), n_tests=state.n_tests + 1
    )
    text = f"trajectory {i} · step {event.step} · drawn for testing · labelling {event.frame[:6]}"
    return state, (check, LogMessage(text))


def _test_due(state: State, i: int, event: Advanced, rules: ActiveLearningRules) -> bool:
    """Whether this frame is to be a test frame: at random values of the run's progress, each on a trajectory drawn
    beforehand, once that has moved for the time of equilibration. While closing, as soon as any has. Trajectories at
    another temperature, or with a bias, give test frames only if no other is left.
    """
    k, able = state.n_tests, [j for j, t in enumerate(state.trajectories) if t.status != "done" or j == i]
    fair = [j for j in able if j in rules.fair_trajectories] or able
    if k >= rules.n_test or i not in fair or not state.trajectories[i].equilibrated(event.step, rules):
        return False
    if state.closing:
        return True
    if state.n_asked >= rules.max_labels or fraction_done(state, rules) < rules.test_due[k]:
        return False
    return i == rules.test_trajectory[k] or rules.test_trajectory[k] not in fair
