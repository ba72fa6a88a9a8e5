"""Audit frames, calibration and stop rule in the state of active learning.

An audit frame is drawn at random from the frames that are checked, whatever their spread, while its trajectory
continues. Its error is measured on models that have not learnt it; then it is learnt like any other. Test frames and
frames for analysis are drawn independently of their spread too, and measure the error as well.
"""

from __future__ import annotations

import math
from dataclasses import replace

from aims_pax import seeds
from aims_pax.core.active_learning_state import BackgroundLabel, State, with_request
from aims_pax.core.error_calibration import ErrorCalibration
from aims_pax.core.rules import ActiveLearningRules
from aims_pax.core.stop_rule import FEWEST_AUDITS, NEW_REGION, StopDecision, decide
from aims_pax.core.work import Effect, FrameError, LogMessage, MeasuredError

CHANCE = 0.1  # of a check to be drawn, once an audit frame is due
EARLY = 20  # checks for each of the first FEWEST_AUDITS frames of a system
SAID_EVERY = 10  # labels of a system between two log lines about its error


def audit_due(state: State, rules: ActiveLearningRules) -> bool:
    """Whether the frame of this check is to be labelled to measure the error: at random, in the share that is set."""
    if rules.audit_share <= 0 or state.closing:
        return False
    early = min(FEWEST_AUDITS * len(state.calibrations), state.checks // EARLY)
    wanted = max(rules.audit_share * state.n_asked, early)
    missing = state.n_audits + state.n_tests < wanted
    return missing and seeds.uniform("audit", rules.audit_seed, state.checks) < CHANCE


def with_audit(state: State, frame: str, trajectory: int, step: int) -> State:
    """The state with this frame drawn as an audit frame."""
    background = BackgroundLabel(frame, trajectory, step)
    return replace(
        with_request(state, frame), audits=(*state.audits, background), n_audits=state.n_audits + 1
    )


def with_systems(state: State, rules: ActiveLearningRules) -> State:
    """The state with a calibration for each system, fitted and judged by the present rules."""
    known = dict(state.calibrations)
    systems = dict.fromkeys(t.system for t in state.trajectories)
    found = {s: known.get(s, ErrorCalibration()).fitted(rules.confidence) for s in systems}
    state = replace(state, calibrations=tuple(found.items()), decisions=())
    if rules.target_error > 0:
        judged = tuple((s, _judged(state, c, rules)) for s, c in found.items())
        state = replace(state, decisions=judged)
    return state


def with_check(state: State, system: str, spread: float, fair: bool, rules: ActiveLearningRules) -> State:
    """The state after an uncertainty check of a frame of this system. spread: eV/Å, the largest of the frame.

    fair: of a trajectory whose frames measure the error.
    """
    above = NEW_REGION * rules.target_error if rules.target_error > 0 else math.inf
    before = dict(state.calibrations).get(system, ErrorCalibration())
    return _with_calibration(state, system, before.seen(spread, rules.skip_step, above, fair))


def with_error(
    state: State, system: str, error: MeasuredError, selected: bool, rules: ActiveLearningRules
) -> tuple[State, tuple[Effect, ...]]:
    """The state after a label. selected: its spread was the reason for it."""
    before = dict(state.calibrations).get(system, ErrorCalibration())
    after = before.labelled(
        error.spread, error.largest, error.mean, state.n_train, selected, rules.confidence
    )
    state, changed, messages = _judged_again(_with_calibration(state, system, after), system, rules)
    if not changed and (not messages or len(after.pairs) % SAID_EVERY):
        return state, ()
    return state, messages


def with_validation(
    state: State, measured: tuple[FrameError, ...], rules: ActiveLearningRules
) -> tuple[State, tuple[Effect, ...]]:
    """The state after a training: what it did to validation structures says how the models have changed since errors
    were measured. measured: of the trained models."""
    effects: tuple[Effect, ...] = ()
    for system, before in state.calibrations:
        own = tuple((m.frame, m.spread, m.error) for m in measured if m.system == system)
        if own:
            state = _with_calibration(state, system, before.trained(own, rules.confidence))
            state, changed, messages = _judged_again(state, system, rules)
            effects += messages if changed else ()
    return state, effects


def all_done(state: State, rules: ActiveLearningRules) -> str | None:
    """The reason to stop, when the stop rule is used and every system is done; else None."""
    if math.isinf(rules.quiet_wanted) or len(state.decisions) < len(state.calibrations):
        return None
    calibrations = dict(state.calibrations)
    for system, decision in state.decisions:
        quiet = calibrations[system].quiet >= rules.quiet_wanted
        if decision.verdict == "open" or (decision.verdict == "reached" and not quiet):
            return None
    return "when_done: " + "; ".join(f"{s}: {d.verdict}, {d.reason}" for s, d in state.decisions)


def _judged_again(
    state: State, system: str, rules: ActiveLearningRules
) -> tuple[State, bool, tuple[Effect, ...]]:
    """The state with a new decision for a system, whether the verdict is new, and a line if the error is known."""
    if rules.target_error <= 0:
        return state, False, ()
    old = dict(state.decisions).get(system)
    new = _judged(state, dict(state.calibrations)[system], rules)
    state = replace(state, decisions=tuple({**dict(state.decisions), system: new}.items()))
    messages = () if math.isnan(new.error) else (LogMessage(f"{system} · {new.reason}"),)
    return state, old is not None and old.verdict != new.verdict, messages


def _judged(state: State, calibration: ErrorCalibration, rules: ActiveLearningRules) -> StopDecision:
    return decide(calibration, state.n_train, rules.target_error, rules.confidence)


def _with_calibration(state: State, system: str, calibration: ErrorCalibration) -> State:
    return replace(state, calibrations=tuple({**dict(state.calibrations), system: calibration}.items()))
