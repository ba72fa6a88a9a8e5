"""When active learning ends: a limit of the settings, the stop rule, or the end of every trajectory.

A limit that is reached while test frames are missing does not stop the stage at once: it is `closing`, and the
trajectories move on until they are drawn.
"""

from __future__ import annotations

from dataclasses import replace

from aims_pax.core.active_learning_state import State, budget_spent
from aims_pax.core.audits import all_done
from aims_pax.core.rules import ActiveLearningRules
from aims_pax.core.work import Effect, LogMessage


def close_or_stop(state: State, why: str, rules: ActiveLearningRules) -> tuple[State, tuple[Effect, ...]]:
    """A limit is reached: stop, or draw the missing test frames first."""
    rested = tuple(
        (replace(t, status="running") if t.status == "training" else t).run_on(rules)
        for t in state.trajectories
    )
    moving = any(t.status != "done" for t in rested)
    if state.closing is None and state.n_tests < rules.n_test and moving:
        state = replace(state, closing=why, trajectories=rested, window=replace(state.window, candidates=()))
        missing = rules.n_test - state.n_tests
        text = f"{why}; the trajectories continue until all test frames are drawn ({missing} missing)"
        return state, (LogMessage(text),)
    return replace(state, stopped=why), (LogMessage(f"stop: {why}"),)


def full_training_set(state: State) -> str:
    """The reason when the training set has reached its largest size."""
    return f"max_train_set_size: {state.n_train} training points"


def limit_reached(state: State, rules: ActiveLearningRules) -> str | None:
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
        return full_training_set(state)
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
