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

Frames for testing and analysis are labelled while their trajectory continues. When a limit is reached before all test
frames were drawn, the state is `closing`: the trajectories move on until they are, and nothing else is labelled.
"""

from __future__ import annotations

import math
from dataclasses import replace

from aims_pax.core.active_learning_state import (
    BackgroundLabel,
    budget_spent,
    fraction_done,
    labels_left,
    mean_force_mae,
    spread_threshold,
    threshold_key,
    under_way,
    with_point,
    with_request,
    with_trajectory,
    without_background,
)
from aims_pax.core.active_learning_state import (
    State as State,
)
from aims_pax.core.active_learning_state import (
    threshold_of as threshold_of,
)
from aims_pax.core.audits import (
    all_done,
    audit_due,
    with_audit,
    with_check,
    with_error,
    with_systems,
    with_validation,
)
from aims_pax.core.rules import BELIEVED, BELIEVED_PER_SYSTEM, MAX_FAILURES, MAX_FAULTS, ExploreRules
from aims_pax.core.threshold import Threshold
from aims_pax.core.trajectory import Trajectory
from aims_pax.core.warm_up import WarmUp
from aims_pax.core.window import SMALL_SET, STRETCHED, UncertainFrame
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
    Selected,
    SelectFrames,
    Trained,
    UncertaintyCheck,
    Work,
)

NAME = "explore"


NO_LABELS = "max_labels: 0, the models learn the structures that they have"


def begin(systems: tuple[str, ...], rules: ExploreRules, n_train: int, valid: dict[str, int]) -> State:
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
        state, _ = _end(state, _full(state), rules)
    return with_systems(state, rules)


def epochs_before_exploration(rules: ExploreRules, n_train: int) -> int:
    """At most so many epochs on a training set of this size: fewer for one of more than SMALL_SET structures."""
    return math.ceil(rules.warm_up_epochs * min(1.0, SMALL_SET / n_train)) if n_train else 0


def reopen(state: State, systems: tuple[str, ...], rules: ExploreRules) -> State:
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
    why = _why_over(learning, rules)
    over = state.n_train >= rules.max_train or why is not None
    accurate = rules.desired_acc > 0 and mean_force_mae(state) <= rules.desired_acc and not added
    if not over and not accurate and all_done(state, rules) is None:
        return _next_window(replace(learning, stopped=None), rules)
    if state.stopped is None and state.closing is None and why is not None:
        return _end(state, why, rules)[0]
    if state.stopped and over and labels_left(state, rules) >= 0:
        tested = _end(replace(state, stopped=None), why or _full(state), rules)[0]
        if tested.closing:  # n_test was raised, and the budget has room for the missing test frames
            return tested
    if state.stopped:
        return before
    ended = _why_over(state, rules)  # while closing: no trajectory is left that could give test frames
    return state if ended is None else replace(state, stopped=ended)


def outstanding(state: State, rules: ExploreRules) -> tuple[Work, ...]:
    """The work that should be running now: labels first (they take longest), then MD and training by turns."""
    frames = [t.frame for t in state.trajectories if t.status == "waiting" and t.frame is not None]
    frames += [frame for frame, _ in state.window.pending]
    frames += [aside.frame for aside in (*state.tests, *state.audits, *state.analyses)]
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
    if (
        rules.by_windows and not state.closing
    ):  # one after the other: candidates of models that know all labels
        return labels + (visit or moving or _selection(state, rules))
    return labels + (visit + moving if state.moved_last else moving + visit)


def _rests(state: State, t: Trajectory, rules: ExploreRules) -> bool:
    """Whether a trajectory has moved as far as its window reaches: farther while labels are computed, MD is cheap."""
    return t.window_over(rules, STRETCHED if state.window.pending else 1)


def _selection(state: State, rules: ExploreRules) -> tuple[Work, ...]:
    """The selection at the end of a window, unless labels of the one before are missing."""
    candidates, n = state.window.candidates, _labels_of_window(state, rules)
    if not candidates or state.window.pending or n < 1:
        return ()
    frames, spreads = tuple(c.frame for c in candidates), tuple(c.uncertainty for c in candidates)
    return (SelectFrames(state.window.n_selections, frames, spreads, n),)


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
        case Selected():
            state, effects = _selected(state, event)
        case _:
            raise IllegalEvent(f"{type(event).__name__} has no meaning in active learning")
    state = _next_window(state, rules)
    why = _why_over(state, rules)
    if state.stopped is None and why is not None:
        state, said = _end(state, why, rules)
        return state, (*effects, *said)
    return state, effects


def _end(state: State, why: str, rules: ExploreRules) -> tuple[State, tuple[Effect, ...]]:
    """A limit is reached: stop, or draw the missing test frames first."""
    rested = tuple(
        (replace(t, status="running") if t.status == "training" else t).run_on(rules)
        for t in state.trajectories
    )
    moving = any(t.status != "done" for t in rested)
    if state.closing is None and state.n_tests < rules.n_test and moving:
        state = replace(state, closing=why, trajectories=rested, window=replace(state.window, candidates=()))
        missing = rules.n_test - state.n_tests
        return state, (
            LogMessage(
                f"{why}; the trajectories continue until all test frames are drawn ({missing} missing)"
            ),
        )
    return replace(state, stopped=why), (LogMessage(f"stop: {why}"),)


# ---------------------------------------------------------------- after MD steps


def _advanced(state: State, event: Advanced, rules: ExploreRules) -> tuple[State, tuple[Effect, ...]]:
    i = event.work.trajectory
    fault = event.fault
    state = replace(state, moved_last=True)
    if fault is None and not all(map(math.isfinite, event.uncertainty)):
        fault = "the uncertainty is not finite"
    if fault is not None:
        return _exploded(state, event, fault, rules)

    trajectory = replace(state.trajectories[i], step=event.step)
    state = with_trajectory(state, i, trajectory.run_on(rules))
    said: tuple[Effect, ...] = ()
    analysed = bool(rules.analysis_skip) and event.step % rules.analysis_skip == 0
    if analysed and not budget_spent(state, rules) and not state.closing:
        δ = threshold_of(state, trajectory.system, rules)
        aside = BackgroundLabel(event.frame, i, event.step, δ, state.n_train)
        state = replace(with_request(state, event.frame), analyses=(*state.analyses, aside))
    if event.step % rules.skip_step == 0 or event.step >= rules.max_steps:
        state, said = _checked(state, i, trajectory, event, rules)
    return state, said


def _exploded(
    state: State, event: Advanced, why: str, rules: ExploreRules
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
    state: State, i: int, trajectory: Trajectory, event: Advanced, rules: ExploreRules
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
    state = with_check(state, trajectory.system, spread, _is_fair(i, rules), rules)
    asked_already = event.frame in under_way(state)  # for analysis: its label is already requested
    spent = budget_spent(state, rules) and not asked_already
    if _test_due(state, i, event, rules):
        return _drawn_for_testing(state, i, event, checked("test"))
    if not spent and _is_fair(i, rules) and audit_due(state, rules):
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


def _implausible(event: Advanced, spread: float, δ: float, usual: float, rules: ExploreRules) -> str | None:
    """Why an uncertain frame is no structure of this MD: its energy, or the models agree on nothing there.

    usual: eV/Å, a spread of usual structures; δ may be far below it while errors are above the target of a calibration.
    """
    if usual > 0 and spread > rules.exploded * usual:
        return f"spread {spread:.3f} eV/Å, {spread / usual:.1f} times the threshold"
    return event.implausible if spread > δ or math.isinf(δ) else None


def _is_fair(trajectory: int, rules: ExploreRules) -> bool:
    return not rules.fair_trajectories or trajectory in rules.fair_trajectories


def _seen(state: State, system: str, uncertainty: tuple[float, ...], rules: ExploreRules) -> State:
    key = threshold_key(system, rules)
    freeze = state.n_train >= rules.freeze_at

    def after(threshold: Threshold) -> Threshold:
        return threshold.seen(uncertainty).freeze(rules.c_x) if freeze else threshold.seen(uncertainty)

    return replace(state, thresholds=tuple((k, after(t) if k == key else t) for k, t in state.thresholds))


def _drawn_for_testing(
    state: State, i: int, event: Advanced, check: UncertaintyCheck
) -> tuple[State, tuple[Effect, ...]]:
    state = with_trajectory(state, i, replace(state.trajectories[i], last_test_step=event.step))
    aside = BackgroundLabel(event.frame, i, event.step)
    state = replace(with_request(state, event.frame), tests=(*state.tests, aside), n_tests=state.n_tests + 1)
    text = f"trajectory {i} · step {event.step} · drawn for testing · labelling {event.frame[:6]}"
    return state, (check, LogMessage(text))


def _test_due(state: State, i: int, event: Advanced, rules: ExploreRules) -> bool:
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


# ---------------------------------------------------------------- after an answer of the reference


def _labelled(state: State, event: Labelled, rules: ExploreRules) -> tuple[State, tuple[Effect, ...]]:
    frame, present = event.work.frame, event.present
    effects: list[Effect] = [
        RecordError(a.frame, a.trajectory, a.step, a.threshold, a.n_train)
        for a in state.analyses
        if a.frame == frame
    ]
    effects += [AddToDataset(frame, "test") for a in state.tests if a.frame == frame and present is None]
    analysed = [a for a in state.analyses if _is_fair(a.trajectory, rules)]
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
        state, said = _end(state, _full(state), rules)
        effects += said
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


def _next_window(state: State, rules: ExploreRules) -> State:
    """A window ended without anything to select: the trajectories begin the next one."""
    running = [t for t in state.trajectories if t.status == "running"]
    idle = not state.window.candidates and not state.window.pending
    idle = idle and rules.by_windows and not state.closing
    if not idle or not running or not all(t.window_over(rules) for t in running):
        return state
    return _windows_begin(state)


def _windows_begin(state: State) -> State:
    return replace(state, trajectories=tuple(replace(t, window_start=t.step) for t in state.trajectories))


def _labels_of_window(state: State, rules: ExploreRules) -> int:
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


def _trained(state: State, event: Trained, rules: ExploreRules) -> tuple[State, tuple[Effect, ...]]:
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
    state, said = with_validation(state, event.measured, rules)
    if not state.warm_up.done:
        state = replace(state, warm_up=state.warm_up.trained(event.work.epochs, mae))
        if state.warm_up.done:
            epochs, best = state.warm_up.epochs, 1000 * state.warm_up.best
            said = (
                *said,
                LogMessage(f"exploration begins after {epochs} epochs · force MAE {best:.1f} meV/Å"),
            )
    if not mae <= rules.desired_acc or rules.desired_acc <= 0:
        return state, said
    if sum(n for _, n in state.valid) < BELIEVED or any(n < BELIEVED_PER_SYSTEM for _, n in state.valid):
        return state, (
            LogMessage(f"force MAE {1000 * mae:.1f} meV/Å reached on too few validation frames: continuing"),
        )
    return _end(state, f"desired_acc: force MAE {1000 * mae:.1f} meV/Å on the validation set", rules)


# ---------------------------------------------------------------- helpers


def _next_stop(step: int, rules: ExploreRules) -> int:
    """The next MD step at which the frame is examined: uncertainty check, analysis, or the end."""
    intervals = [rules.skip_step] + ([rules.analysis_skip] if rules.analysis_skip else [])
    return int(min(*((step // n + 1) * n for n in intervals), rules.max_steps))


def _full(state: State) -> str:
    return f"max_train_set_size: {state.n_train} training points"


def _why_over(state: State, rules: ExploreRules) -> str | None:
    """A stop reason that no single event causes: the set is full or the budget spent and all answered, or all
    trajectories ended.
    """
    waiting = bool(
        any(t.status == "waiting" for t in state.trajectories)
        or state.tests
        or state.audits
        or state.analyses
        or state.window.pending
    )
    if state.closing:
        return None if waiting else state.closing if state.n_tests >= rules.n_test else _all_ended(state)
    done = all_done(state, rules)
    if done is not None and not waiting:
        return done
    if state.n_train >= rules.max_train and not waiting:  # the limit was lowered
        return _full(state)
    unlearnt = rules.by_windows and state.window.epochs_left
    if budget_spent(state, rules) and not waiting and not unlearnt:
        return f"max_labels: {state.n_asked + max(0, rules.n_test - state.n_tests)} reference calculations"
    if state.window.candidates or waiting or unlearnt:  # frames of a last step are labelled too
        return None
    return _all_ended(state)


def _all_ended(state: State) -> str | None:
    """The reason when every trajectory has ended."""
    if any(t.status != "done" for t in state.trajectories):
        return None
    if state.closing:
        return state.closing
    reasons = {t.reason for t in state.trajectories}
    if all(reason and reason.startswith("max_MD_steps") for reason in reasons):
        return f"max_MD_steps: every trajectory took {max(t.step for t in state.trajectories)} steps"
    return "every trajectory has ended: " + "; ".join(sorted(r for r in reasons if r))
