"""Active learning: the consequences of each event, and the work that should be running.

States of one trajectory:

    RUNNING   -- certain ------------------------>  RUNNING
    RUNNING   -- uncertain, or long unlabelled -->  WAITING
    RUNNING   -- last MD step ------------------->  DONE
    RUNNING   -- exploded: rewind --------------->  RUNNING   (DONE, with the reason, after 5 in a row)
    WAITING   -- label used for validation ------>  RUNNING
    WAITING   -- label used for training -------->  TRAINING
    WAITING   -- label failed: rewind ----------->  RUNNING   (DONE, with the reason, if it keeps failing)
    TRAINING  -- epochs left -------------------->  TRAINING
    TRAINING  -- enough epochs ------------------>  RUNNING

Frames for testing and analysis are labelled while their trajectory continues.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from aims_pax.core.rules import BELIEVED, BELIEVED_PER_SYSTEM, MAX_FAILURES, MAX_FAULTS, ExploreRules
from aims_pax.core.threshold import Threshold
from aims_pax.core.trajectory import Trajectory
from aims_pax.core.work import (
    AddToDataset,
    Advanced,
    Decision,
    Effect,
    Event,
    IllegalEvent,
    LabelDropped,
    LabelFailed,
    Labelled,
    LogMessage,
    RecordError,
    RequestLabel,
    RunMD,
    RunTraining,
    Trained,
    UncertaintyCheck,
    Work,
)

NAME = "explore"


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
    moved_last: bool = False  # whether MD had the last turn: MD and training take turns on the device
    stopped: str | None = None


def begin(systems: tuple[str, ...], rules: ExploreRules, n_train: int, valid: dict[str, int]) -> State:
    """The state before the first step: one trajectory for each entry of `systems`."""
    keys = dict.fromkeys(systems) if rules.per_system else {"": None}
    return State(
        trajectories=tuple(Trajectory(system) for system in systems),
        thresholds=tuple((key, Threshold()) for key in keys),
        n_train=n_train,
        valid=tuple((system, valid.get(system, 0)) for system in dict.fromkeys(systems)),
    )


def reopen(state: State, systems: tuple[str, ...], rules: ExploreRules) -> State:
    """The state after a change of settings: new trajectories begin, those whose limit was raised continue.

    A stop whose reason no longer holds is cancelled. Raises ValueError when a trajectory would have to be removed.
    """
    before = state
    if len(systems) < len(state.trajectories) or any(
        t.system != s for t, s in zip(state.trajectories, systems, strict=False)
    ):
        raise ValueError("trajectories were removed or assigned to other systems")
    added = tuple(Trajectory(s) for s in systems[len(state.trajectories) :])
    known = dict(state.valid)
    keys = {key for key, _ in state.thresholds}
    wanted = dict.fromkeys(systems) if rules.per_system else {"": None}
    state = replace(
        state,
        trajectories=tuple(t.revived(rules) for t in state.trajectories) + added,
        valid=tuple((s, known.get(s, 0)) for s in dict.fromkeys([*known, *systems])),
        thresholds=state.thresholds + tuple((k, Threshold()) for k in wanted if k not in keys),
    )
    over = state.n_train >= rules.max_train or _why_over(state, rules) is not None
    accurate = rules.desired_acc > 0 and _mae(state) <= rules.desired_acc and not added
    if state.stopped is not None and not over and not accurate:
        return replace(state, stopped=None)
    return state if state.stopped is None else before


def outstanding(state: State, rules: ExploreRules) -> tuple[Work, ...]:
    """The work that should be running now: labels first (they take longest), then MD and training by turns."""
    frames = [t.frame for t in state.trajectories if t.status == "waiting" and t.frame is not None]
    frames += [aside.frame for aside in (*state.tests, *state.analyses)]
    labels = tuple(RequestLabel(frame) for frame in dict.fromkeys(frames))
    if state.stopped:
        return labels
    training = any(t.status == "training" for t in state.trajectories)
    visit = (RunTraining(state.visit, rules.epochs_per_visit),) if training else ()
    moving = tuple(
        RunMD(i, t.step, _next_stop(t.step, rules), t.n_rewinds)
        for i, t in enumerate(state.trajectories)
        if t.status == "running"
    )
    return labels + (visit + moving if state.moved_last else moving + visit)


def step(state: State, event: Event, rules: ExploreRules) -> tuple[State, tuple[Effect, ...]]:
    """The consequences of an event. Raises IllegalEvent when its work is not outstanding."""
    if event.work not in outstanding(state, rules):
        raise IllegalEvent(f"{event} while outstanding is {outstanding(state, rules)}")
    match event:
        case Advanced():
            state, effects = _advanced(state, event, rules)
        case Labelled():
            state, effects = _labelled(state, event, rules)
        case LabelFailed():
            state, effects = _label_failed(state, event, rules)
        case LabelDropped():
            state, effects = _dropped(state, event.work.frame), ()
        case Trained():
            state, effects = _trained(state, event, rules)
        case _:
            raise IllegalEvent(f"{type(event).__name__} has no meaning in active learning")
    why = _why_over(state, rules)
    if state.stopped is None and why is not None:
        return replace(state, stopped=why), (*effects, LogMessage(f"stop: {why}"))
    return state, effects


def threshold_of(state: State, system: str, rules: ExploreRules) -> float:
    """δ in eV/Å that applies to this system now."""
    return dict(state.thresholds)[_key(system, rules)].value(rules.c_x)


# ---------------------------------------------------------------- after MD steps


def _advanced(state: State, event: Advanced, rules: ExploreRules) -> tuple[State, tuple[Effect, ...]]:
    i = event.work.trajectory
    fault = event.fault
    state = replace(state, moved_last=True)
    if fault is None and not all(map(math.isfinite, event.uncertainty)):
        fault = "the uncertainty is not finite"
    if fault is not None:
        trajectory = state.trajectories[i]
        trajectory = replace(trajectory, step=event.step, faults=trajectory.faults + 1)
        trajectory, effects = trajectory.rewound(i, fault, MAX_FAULTS, trajectory.faults)
        return _put(state, i, trajectory.run_on(rules)), effects

    trajectory = replace(state.trajectories[i], step=event.step, faults=0)
    state = _put(state, i, trajectory.run_on(rules))
    said: tuple[Effect, ...] = ()
    if rules.analysis_skip and event.step % rules.analysis_skip == 0 and state.n_asked < rules.max_labels:
        δ = threshold_of(state, trajectory.system, rules)
        aside = BackgroundLabel(event.frame, i, event.step, δ, state.n_train)
        state = replace(_asked(state, event.frame), analyses=(*state.analyses, aside))
    if event.step % rules.skip_step == 0 or event.step >= rules.max_steps:
        state, said = _checked(state, i, trajectory, event, rules)
    return state, said


def _checked(
    state: State, i: int, trajectory: Trajectory, event: Advanced, rules: ExploreRules
) -> tuple[State, tuple[Effect, ...]]:
    """Apply the uncertainty criterion to one frame."""
    δ = threshold_of(state, trajectory.system, rules)
    spread = max(event.uncertainty)
    quiet = event.step - trajectory.last_label_step
    state = replace(_seen(state, trajectory.system, event.uncertainty, rules), checks=state.checks + 1)
    asked_already = event.frame in _under_way(state)  # for analysis: its label is already requested
    spent = state.n_asked >= rules.max_labels and not asked_already

    def checked(decision: Decision) -> UncertaintyCheck:
        return UncertaintyCheck(i, event.step, spread, δ, decision)

    if not spent and _test_due(state, i, rules):
        aside = BackgroundLabel(event.frame, i, event.step)
        state = replace(_asked(state, event.frame), tests=(*state.tests, aside), n_tests=state.n_tests + 1)
        text = f"trajectory {i} · step {event.step} · drawn for testing · labelling {event.frame[:6]}"
        return state, (checked("test"), LogMessage(text))
    if spread <= δ and quiet < rules.quiet_limit:
        return state, (checked("certain"),)
    if spent:
        ended = replace(trajectory, status="done", reason="max_labels: the budget is spent")
        return _put(state, i, ended), (checked("budget spent"),)
    digits = 3 if f"{spread:.3f}" != f"{δ:.3f}" else 5
    why = f"spread {spread:.{digits}f} > {δ:.{digits}f} eV/Å" if spread > δ else f"no label for {quiet} steps"
    waiting = replace(trajectory, status="waiting", frame=event.frame, last_label_step=event.step)
    state = _put(_asked(state, event.frame), i, waiting)
    text = f"trajectory {i} · step {event.step} · {why} · labelling {event.frame[:6]}"
    return state, (checked("uncertain" if spread > δ else "quiet"), LogMessage(text))


def _seen(state: State, system: str, uncertainty: tuple[float, ...], rules: ExploreRules) -> State:
    key = _key(system, rules)
    freeze = state.n_train >= rules.freeze_at

    def after(threshold: Threshold) -> Threshold:
        return threshold.seen(uncertainty).freeze(rules.c_x) if freeze else threshold.seen(uncertainty)

    return replace(state, thresholds=tuple((k, after(t) if k == key else t) for k, t in state.thresholds))


def _test_due(state: State, i: int, rules: ExploreRules) -> bool:
    """Whether a test frame is due: at random values of the run's progress, each on a trajectory drawn beforehand."""
    k = state.n_tests
    if k >= rules.n_test or fraction_done(state, rules) < rules.test_due[k]:
        return False
    j = rules.test_trajectory[k]
    return i == j or state.trajectories[j].status == "done"


def fraction_done(state: State, rules: ExploreRules) -> float:
    """Progress of the run, 0 … 1, relative to the nearest limit; without limits from the number of checks.

    Points of the initial dataset do not count as progress: all test frames would be due at once.
    """
    added = state.n_added - state.n_valid_added
    wanted = rules.max_train - (state.n_train - added)
    shares = [
        sum(t.step for t in state.trajectories) / (rules.max_steps * len(state.trajectories)),
        state.n_asked / rules.max_labels,
        added / wanted if wanted > 0 else 1.0,
    ]
    if rules.max_steps == rules.max_labels == rules.max_train == math.inf:
        shares.append(1 - math.exp(-state.checks / (40 * len(state.trajectories))))
    return max(shares)


# ---------------------------------------------------------------- after an answer of the reference


def _labelled(state: State, event: Labelled, rules: ExploreRules) -> tuple[State, tuple[Effect, ...]]:
    frame, present = event.work.frame, event.present
    effects: list[Effect] = [
        RecordError(a.frame, a.trajectory, a.step, a.threshold, a.n_train)
        for a in state.analyses
        if a.frame == frame
    ]
    effects += [AddToDataset(frame, "test") for a in state.tests if a.frame == frame and present is None]
    state = _without_asides(state, frame)
    waiting = [i for i, t in enumerate(state.trajectories) if t.status == "waiting" and t.frame == frame]
    if not waiting:
        return state, tuple(effects)
    split = "valid" if state.n_valid_added < rules.valid_ratio * state.n_added else "train"
    if present is None:
        effects.append(AddToDataset(frame, split))
        state = _counted(state, state.trajectories[waiting[0]].system, split)
    for i in waiting:
        t = replace(state.trajectories[i], frame=None, restart_frame=frame, failures=0)
        if state.stopped:
            t = replace(t, status="done", reason="stopped")
        elif present is None and split == "train":
            t = replace(t, status="training", n_train=state.n_train, epochs=0)
        else:
            t = replace(t, status="running").run_on(rules)
        state = _put(state, i, t)
    where = split if present is None else f"in the {present} set already"
    effects.append(LogMessage(f"{frame[:6]} → {where} · {state.n_train} training points"))
    if state.stopped is None and state.n_train >= rules.max_train:
        state = replace(state, stopped=f"max_train_set_size: {state.n_train} training points")
        effects.append(LogMessage(f"stop: {state.stopped}"))
    return state, tuple(effects)


def _label_failed(state: State, event: LabelFailed, rules: ExploreRules) -> tuple[State, tuple[Effect, ...]]:
    frame = event.work.frame
    effects: list[Effect] = []
    for i, t in enumerate(state.trajectories):
        if t.status == "waiting" and t.frame == frame:
            t = replace(t, failures=t.failures + 1)
            if state.stopped:
                t = replace(t, status="done", frame=None, reason="stopped")
            else:
                t, more = t.rewound(i, f"{event.kind}: {event.reason}", MAX_FAILURES, t.failures)
                t = t.run_on(rules)
                effects += more
            state = _put(state, i, t)
    return _without_asides(state, frame), tuple(effects)


def _dropped(state: State, frame: str) -> State:
    """A label that was dropped before its calculation began: it does not count, and its trajectory ends."""
    asked = frame in _under_way(state)
    for i, t in enumerate(state.trajectories):
        if t.status == "waiting" and t.frame == frame:
            state = _put(state, i, replace(t, status="done", frame=None, reason="stopped"))
    return replace(_without_asides(state, frame), n_asked=state.n_asked - asked)


def _asked(state: State, frame: str) -> State:
    """The state with one more requested label; a calculation for several purposes counts once."""
    return state if frame in _under_way(state) else replace(state, n_asked=state.n_asked + 1)


def _under_way(state: State) -> set[str]:
    """Frames with a requested label that is not finished."""
    waiting = {t.frame for t in state.trajectories if t.status == "waiting" and t.frame is not None}
    return waiting | {a.frame for a in (*state.tests, *state.analyses)}


def _without_asides(state: State, frame: str) -> State:
    return replace(
        state,
        tests=tuple(a for a in state.tests if a.frame != frame),
        analyses=tuple(a for a in state.analyses if a.frame != frame),
    )


def _counted(state: State, system: str, split: str) -> State:
    valid = split == "valid"
    return replace(
        state,
        n_added=state.n_added + 1,
        n_valid_added=state.n_valid_added + valid,
        n_train=state.n_train + (not valid),
        valid=tuple((s, n + (valid and s == system)) for s, n in state.valid),
    )


# ---------------------------------------------------------------- after training


def _trained(state: State, event: Trained, rules: ExploreRules) -> tuple[State, tuple[Effect, ...]]:
    for i, t in enumerate(state.trajectories):
        # a point that was added during the visit was not in it: its trajectory waits for the next visit
        if t.status == "training" and t.n_train <= event.n_train:
            t = replace(t, epochs=t.epochs + event.work.epochs)
            if t.epochs >= rules.epochs_per_worker:
                t = replace(t, status="running", epochs=0).run_on(rules)
            state = _put(state, i, t)
    state = replace(state, visit=state.visit + 1, force_mae=event.force_mae, moved_last=False)
    mae = _mae(state)
    if not mae <= rules.desired_acc or rules.desired_acc <= 0:
        return state, ()
    if sum(n for _, n in state.valid) < BELIEVED or any(n < BELIEVED_PER_SYSTEM for _, n in state.valid):
        return state, (
            LogMessage(f"force MAE {1000 * mae:.1f} meV/Å reached on too few validation frames: continuing"),
        )
    state = replace(state, stopped=f"desired_acc: force MAE {1000 * mae:.1f} meV/Å on the validation set")
    return state, (LogMessage(f"stop: {state.stopped}"),)


# ---------------------------------------------------------------- helpers


def _next_stop(step: int, rules: ExploreRules) -> int:
    """The next MD step at which the frame is examined: uncertainty check, analysis, or the end."""
    intervals = [rules.skip_step] + ([rules.analysis_skip] if rules.analysis_skip else [])
    return int(min(*((step // n + 1) * n for n in intervals), rules.max_steps))


def _mae(state: State) -> float:
    """Force MAE in eV/Å, mean over the members; NaN before the first visit."""
    return sum(state.force_mae) / len(state.force_mae) if state.force_mae else math.nan


def _key(system: str, rules: ExploreRules) -> str:
    return system if rules.per_system else ""


def _put(state: State, i: int, trajectory: Trajectory) -> State:
    trajectories = (*state.trajectories[:i], trajectory, *state.trajectories[i + 1 :])
    return replace(state, trajectories=trajectories)


def _why_over(state: State, rules: ExploreRules) -> str | None:
    """A stop reason that no single event causes: the budget is spent and all answered, or all trajectories ended."""
    waiting = any(t.status == "waiting" for t in state.trajectories) or state.tests or state.analyses
    if state.n_asked >= rules.max_labels and not waiting:
        return f"max_labels: {state.n_asked} reference calculations"
    if any(t.status != "done" for t in state.trajectories):
        return None
    reasons = {t.reason for t in state.trajectories}
    if all(reason and reason.startswith("max_MD_steps") for reason in reasons):
        return f"max_MD_steps: every trajectory took {max(t.step for t in state.trajectories)} steps"
    return "every trajectory has ended: " + "; ".join(sorted(r for r in reasons if r))
