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

This is `acquisition: crossing`. With `acquisition: window` no trajectory waits: uncertain frames are collected as
candidates, and the best of each window are labelled (`core.window`).

Frames for testing and analysis are labelled while their trajectory continues. `core.acquisition` decides about frames
that MD reaches, `core.limits` when the stage ends.
"""

from __future__ import annotations

import math
from dataclasses import replace

from aims_pax.core.acquisition import after_md, is_fair
from aims_pax.core.active_learning_state import State as State
from aims_pax.core.active_learning_state import (
    labels_left,
    mean_force_mae,
    under_way,
    with_point,
    with_request,
    with_trajectory,
    without_background,
)
from aims_pax.core.active_learning_state import threshold_of as threshold_of
from aims_pax.core.audits import all_done, with_error, with_systems, with_validation
from aims_pax.core.limits import close_or_stop, full_training_set, limit_reached
from aims_pax.core.rules import BELIEVED, BELIEVED_PER_SYSTEM, MAX_FAILURES, ActiveLearningRules
from aims_pax.core.threshold import Threshold
from aims_pax.core.trajectory import Trajectory
from aims_pax.core.warm_up import WarmUp
from aims_pax.core.window import SMALL_SET, STRETCHED
from aims_pax.core.work import (
    AddToDataset,
    Advanced,
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
    Selected,
    SelectFrames,
    Trained,
    Work,
)

NAME = "explore"  # in files of runs
NO_LABELS = "max_labels: 0, the models learn the structures that they have"


def begin(systems: tuple[str, ...], rules: ActiveLearningRules, n_train: int, valid: dict[str, int]) -> State:
    """The state before the first step, one trajectory for each of `systems`. Stopped if nothing may be labelled."""
    keys = dict.fromkeys(systems) if rules.per_system else {"": None}
    state = State(
        trajectories=tuple(Trajectory(system) for system in systems),
        thresholds=tuple((key, Threshold()) for key in keys),
        n_train=n_train,
        valid=tuple((system, valid.get(system, 0)) for system in dict.fromkeys(systems)),
        warm_up=WarmUp(epochs_before_exploration(rules, n_train)),
        stopped=NO_LABELS if rules.max_labels < 1 else None,
    )
    if state.stopped is None and n_train >= rules.max_train:
        state, _ = close_or_stop(state, full_training_set(state), rules)
    return with_systems(state, rules)


def epochs_before_exploration(rules: ActiveLearningRules, n_train: int) -> int:
    """At most so many epochs on a training set of this size: fewer for one of more than SMALL_SET structures."""
    return math.ceil(rules.warm_up_epochs * min(1.0, SMALL_SET / n_train)) if n_train else 0


def reopen(state: State, systems: tuple[str, ...], rules: ActiveLearningRules) -> State:
    """The state after a change of settings: new trajectories begin, those whose limit was raised continue.

    A stop whose reason no longer holds is cancelled; one that still holds waits for test frames that n_test asks for
    now. Raises ValueError when a trajectory would have to be removed.
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
    state = with_systems(state, rules)
    if not rules.by_windows:
        state = replace(state, window=replace(state.window, candidates=()))
    learning = replace(state, closing=None)
    why = limit_reached(learning, rules)
    over = state.n_train >= rules.max_train or why is not None
    accurate = rules.desired_acc > 0 and mean_force_mae(state) <= rules.desired_acc and not added
    if not over and not accurate and all_done(state, rules) is None:
        return _next_window(replace(learning, stopped=None), rules)
    if state.stopped is None and state.closing is None and why is not None:
        return close_or_stop(state, why, rules)[0]
    if state.stopped and over and labels_left(state, rules) >= 0:
        tested = close_or_stop(replace(state, stopped=None), why or full_training_set(state), rules)[0]
        if tested.closing:  # n_test was raised, and the budget has room for the missing test frames
            return tested
    if state.stopped:
        return before
    ended = limit_reached(state, rules)  # while closing: no trajectory is left that could give test frames
    return state if ended is None else replace(state, stopped=ended)


def outstanding(state: State, rules: ActiveLearningRules) -> tuple[Work, ...]:
    """The work that should be running now: labels first (they take longest), then MD and training by turns."""
    frames = [t.frame for t in state.trajectories if t.status == "waiting" and t.frame is not None]
    frames += [frame for frame, _ in state.window.pending]
    frames += [background.frame for background in (*state.tests, *state.audits, *state.analyses)]
    labels = tuple(RequestLabel(frame) for frame in dict.fromkeys(frames))
    if state.stopped:
        return labels
    if not state.warm_up.done:
        return (*labels, RunTraining(state.visit, rules.epochs_per_visit))
    training = state.window.epochs_left or any(t.status == "training" for t in state.trajectories)
    visit = (RunTraining(state.visit, rules.epochs_per_visit),) if training and not state.closing else ()
    moving = tuple(
        RunMD(i, t.step, _next_stop(t.step, rules), t.n_rewinds)
        for i, t in enumerate(state.trajectories)
        if t.status == "running" and (state.closing or not (rules.by_windows and _rests(state, t, rules)))
    )
    if rules.by_windows and not state.closing:
        # one after the other: candidates of models that know all labels
        return labels + (visit or moving or _selection(state, rules))
    return labels + (visit + moving if state.moved_last else moving + visit)


def _rests(state: State, t: Trajectory, rules: ActiveLearningRules) -> bool:
    """Whether a trajectory has moved as far as its window reaches: farther while labels are computed, MD is cheap."""
    return t.window_over(rules, STRETCHED if state.window.pending else 1)


def _selection(state: State, rules: ActiveLearningRules) -> tuple[Work, ...]:
    """The selection at the end of a window, unless labels of the one before are missing."""
    candidates, n = state.window.candidates, _labels_of_window(state, rules)
    if not candidates or state.window.pending or n < 1:
        return ()
    frames, spreads = tuple(c.frame for c in candidates), tuple(c.uncertainty for c in candidates)
    return (SelectFrames(state.window.n_selections, frames, spreads, n),)


def step(state: State, event: Event, rules: ActiveLearningRules) -> tuple[State, tuple[Effect, ...]]:
    """The consequences of an event. Raises IllegalEvent when its work is not outstanding."""
    if event.work not in outstanding(state, rules):
        raise IllegalEvent(f"{event} while outstanding is {outstanding(state, rules)}")
    match event:
        case Advanced():
            state, effects = after_md(state, event, rules)
        case Labelled():
            state, effects = _labelled(state, event, rules)
        case LabelFailed():
            state, effects = _label_failed(state, event, rules)
        case LabelDropped():
            state, effects = _dropped(state, event.work.frame), ()
        case Trained():
            state, effects = _trained(state, event, rules)
        case Selected():
            state, effects = _selected(state, event)
        case _:
            raise IllegalEvent(f"{type(event).__name__} has no meaning in active learning")
    state = _next_window(state, rules)
    why = limit_reached(state, rules)
    if state.stopped is None and why is not None:
        state, ending = close_or_stop(state, why, rules)
        return state, (*effects, *ending)
    return state, effects


# ---------------------------------------------------------------- after an answer of the reference


def _labelled(state: State, event: Labelled, rules: ActiveLearningRules) -> tuple[State, tuple[Effect, ...]]:
    frame, present = event.work.frame, event.present
    effects: list[Effect] = [
        RecordError(a.frame, a.trajectory, a.step, a.threshold, a.n_train)
        for a in state.analyses
        if a.frame == frame
    ]
    effects += [AddToDataset(frame, "test") for a in state.tests if a.frame == frame and present is None]
    analysed = [a for a in state.analyses if is_fair(a.trajectory, rules)]
    random = [a.trajectory for a in (*state.tests, *state.audits, *analysed) if a.frame == frame]
    learnt_too = [a.trajectory for a in state.audits if a.frame == frame]
    state = without_background(state, frame)
    waiting = [i for i, t in enumerate(state.trajectories) if t.status == "waiting" and t.frame == frame]
    chosen = [i for f, i in state.window.pending if f == frame]
    if event.error is not None and (owners := random + waiting + chosen):
        system = state.trajectories[owners[0]].system
        state, judged = with_error(state, system, event.error, not random, rules)
        effects += judged
    if not waiting and not chosen and not learnt_too:
        return state, tuple(effects)
    split = "valid" if state.n_valid_added < rules.valid_ratio * state.n_added else "train"
    if present is None:
        effects.append(AddToDataset(frame, split))
        state = with_point(state, state.trajectories[(waiting + chosen + learnt_too)[0]].system, split)
    for i in chosen:
        learnt = present is None and split == "train"
        window = state.window.answered(frame, learnt, rules.epochs_per_worker, state.n_train)
        t = replace(state.trajectories[i], restart_frame=frame, failures=0)
        state = replace(with_trajectory(state, i, t), window=window)
    for i in waiting:
        t = replace(state.trajectories[i], frame=None, restart_frame=frame, failures=0)
        if state.stopped:
            t = replace(t, status="done", reason="stopped")
        elif present is None and split == "train" and not state.closing:
            t = replace(t, status="training", n_train=state.n_train, epochs=0)
        else:
            t = replace(t, status="running").run_on(rules)
        state = with_trajectory(state, i, t)
    where = split if present is None else f"in the {present} set already"
    effects.append(LogMessage(f"{frame[:6]} → {where} · {state.n_train} training points"))
    if state.stopped is None and state.closing is None and state.n_train >= rules.max_train:
        state, ending = close_or_stop(state, full_training_set(state), rules)
        effects += ending
    return state, tuple(effects)


def _label_failed(
    state: State, event: LabelFailed, rules: ActiveLearningRules
) -> tuple[State, tuple[Effect, ...]]:
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
            state = with_trajectory(state, i, t)
    for i in [i for f, i in state.window.pending if f == frame]:
        state = replace(
            state, window=state.window.answered(frame, False, rules.epochs_per_worker, state.n_train)
        )
        t = replace(state.trajectories[i], failures=state.trajectories[i].failures + 1)
        if t.status == "running" and not state.stopped:
            t, more = t.rewound(i, f"{event.kind}: {event.reason}", MAX_FAILURES, t.failures)
            t = t.run_on(rules)
            effects += more
        state = with_trajectory(state, i, t)
    return without_background(state, frame), tuple(effects)


def _selected(state: State, event: Selected) -> tuple[State, tuple[Effect, ...]]:
    """Request the labels of the chosen frames."""
    frames = event.frames
    origin = {c.frame: c for c in state.window.candidates}
    total = len(event.work.frames)
    for frame in frames:
        i = origin[frame].trajectory
        asked = replace(state.trajectories[i], last_label_step=origin[frame].step)
        state = with_trajectory(with_request(state, frame), i, asked)
    state = _windows_begin(replace(state, window=state.window.selected(frames)))
    names = ", ".join(frame[:6] for frame in frames)
    return state, (LogMessage(f"{len(frames)} of {total} uncertain frames chosen · labelling {names}"),)


def _next_window(state: State, rules: ActiveLearningRules) -> State:
    """A window ended without anything to select: the trajectories begin the next one."""
    running = [t for t in state.trajectories if t.status == "running"]
    idle = not state.window.candidates and not state.window.pending
    idle = idle and rules.by_windows and not state.closing
    if not idle or not running or not all(t.window_over(rules) for t in running):
        return state
    return _windows_begin(state)


def _windows_begin(state: State) -> State:
    return replace(state, trajectories=tuple(replace(t, window_start=t.step) for t in state.trajectories))


def _labels_of_window(state: State, rules: ActiveLearningRules) -> int:
    """The number of labels for this window: `per_window`, no more than the limits leave."""
    room = (rules.max_train - state.n_train) / (1 - rules.valid_ratio)
    return int(
        max(0, min(rules.per_window, labels_left(state, rules), math.ceil(room) if room < math.inf else room))
    )


def _dropped(state: State, frame: str) -> State:
    """A label that was dropped before its calculation began: it does not count, and its trajectory ends."""
    asked = frame in under_way(state)
    for i, t in enumerate(state.trajectories):
        if t.status == "waiting" and t.frame == frame:
            state = with_trajectory(state, i, replace(t, status="done", frame=None, reason="stopped"))
    pending = tuple(p for p in state.window.pending if p[0] != frame)
    state = replace(state, window=replace(state.window, pending=pending))
    return replace(without_background(state, frame), n_asked=state.n_asked - asked)


# ---------------------------------------------------------------- after training


def _trained(state: State, event: Trained, rules: ActiveLearningRules) -> tuple[State, tuple[Effect, ...]]:
    for i, t in enumerate(state.trajectories):
        # a point that was added during the visit was not in it: its trajectory waits for the next visit
        if t.status == "training" and t.n_train <= event.n_train:
            t = replace(t, epochs=t.epochs + event.work.epochs)
            if t.epochs >= rules.epochs_per_worker:
                t = replace(t, status="running", epochs=0).run_on(rules)
            state = with_trajectory(state, i, t)
    window = state.window.trained(event.work.epochs)
    state = replace(state, visit=state.visit + 1, force_mae=event.force_mae, moved_last=False, window=window)
    mae = mean_force_mae(state)
    state, effects = with_validation(state, event.measured, rules)
    if not state.warm_up.done:
        state = replace(state, warm_up=state.warm_up.trained(event.work.epochs, mae))
        if state.warm_up.done:
            epochs, best = state.warm_up.epochs, 1000 * state.warm_up.best
            effects = (
                *effects,
                LogMessage(f"exploration begins after {epochs} epochs · force MAE {best:.1f} meV/Å"),
            )
    if not mae <= rules.desired_acc or rules.desired_acc <= 0:
        return state, effects
    if sum(n for _, n in state.valid) < BELIEVED or any(n < BELIEVED_PER_SYSTEM for _, n in state.valid):
        return state, (
            LogMessage(f"force MAE {1000 * mae:.1f} meV/Å reached on too few validation frames: continuing"),
        )
    return close_or_stop(state, f"desired_acc: force MAE {1000 * mae:.1f} meV/Å on the validation set", rules)


# ---------------------------------------------------------------- helpers


def _next_stop(step: int, rules: ActiveLearningRules) -> int:
    """The next MD step at which the frame is examined: uncertainty check, analysis, or the end."""
    intervals = [rules.skip_step] + ([rules.analysis_skip] if rules.analysis_skip else [])
    return int(min(*((step // n + 1) * n for n in intervals), rules.max_steps))
