"""Convergence: train each chosen member on the full set until it stops improving, then restore its best weights.

TRAIN  -- improved by more than the margin ------------>  TRAIN   (these weights are the best so far)
TRAIN  -- patience used up, but errors still fall ----->  TRAIN
TRAIN  -- patience or epochs used up ------------------>  done    (the best weights are restored)
TRAIN  -- the same, but worse than before convergence ->  TRAIN   (once: continues from the weights of before)

Better is judged by the force MAE on the validation set: of its few frames one far from equilibrium can make up most
of the loss, a mean of squares, and would hide what the others gain (`convergence_criterion`).

The first epochs may have a small error by luck: a member whose present weights predict the few validation frames well
learns from all the others, becomes worse there, and then better again for hundreds of epochs. So patience does not end
training while errors fall fast enough to reach the best before as many epochs again.

With `final_training` fresh or shrink_perturb the weights that a member had before are set aside, with their validation
errors. A new training that ends worse, because its epochs were too few, must not replace them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import median

from aims_pax.core.rules import CONTINUED, FORCE_MAE, ConvergenceRules
from aims_pax.core.work import (
    ContinueEarlier,
    Effect,
    Event,
    IllegalEvent,
    KeepBest,
    LogMessage,
    RestoreBest,
    RunTraining,
    Trained,
    Work,
)

NAME = "converge"
LEAST = 1e-3  # relative decrease of the force MAE that counts as an improvement
TREND = 6  # validations: fewer do not show whether errors fall


@dataclass(frozen=True)
class MemberProgress:
    """The progress of one member.

    before, before_mae: validation loss and force MAE (eV/Å) of the weights that were set aside; infinite without such
    weights. continued_at: epochs after which training continued from them, 0: it did not. recent: the last validations
    since the best epoch, in the quantity that decides (force MAE, eV/Å, or loss), as many as patience has epochs.
    """

    member: int
    visit: int = 0
    epochs: int = 0
    best: float = math.inf  # validation loss
    best_epoch: int = 0
    best_mae: float = math.nan  # eV/Å
    done: bool = False
    before: float = math.inf
    before_mae: float = math.nan
    continued_at: int = 0
    recent: tuple[float, ...] = ()

    @property
    def epochs_here(self) -> int:
        """Epochs since training began, or continued from the weights of before."""
        return self.epochs - self.continued_at

    def patient(self, rules: ConvergenceRules) -> bool:
        """Whether patience is used up and errors do not fall towards the best."""
        waited = self.epochs - max(self.best_epoch, self.continued_at)
        return waited >= rules.patience and not self.falls(rules)

    def falls(self, rules: ConvergenceRules) -> bool:
        """Whether the line through the medians of both halves of `recent` is below the best after as many more."""
        half = len(self.recent) // 2
        if len(self.recent) < TREND or not all(map(math.isfinite, self.recent)):
            return False
        before, now = median(self.recent[:half]), median(self.recent[-half:])
        # between the middles of the halves lies 1/2 of the validations, from there to the end of as many more 5/4
        ahead = now - 2.5 * (before - now)
        return now < before and ahead < self.decisive_best(rules)

    def decisive_best(self, rules: ConvergenceRules) -> float:
        """The best so far in the quantity that decides."""
        return self.best_mae if _by_force(self.best_mae, rules) else self.best

    def over(self, rules: ConvergenceRules) -> bool:
        """Whether patience or epochs are used up."""
        return self.epochs_here >= rules.max_epochs or self.patient(rules)


@dataclass(frozen=True)
class State:
    """Everything that decides how convergence continues.

    training: the weights with which it began; "": not recorded, or the models are fitted at once. asked: with which it
    should have begun, by the settings; another one only where that was not possible.
    """

    members: tuple[MemberProgress, ...]
    stopped: str | None = None
    training: str = ""
    asked: str = ""


def begin(rules: ConvergenceRules, before: Mapping[int, tuple[float, float]] | None = None) -> State:
    """The state before training.

    before: {member: validation loss and force MAE of the weights that were set aside}; None: none were, and training
    continues from the present weights.
    """
    errors = before or {}
    members = tuple(MemberProgress(m) for m in rules.members)
    members = tuple(
        replace(p, before=errors[p.member][0], before_mae=errors[p.member][1]) if p.member in errors else p
        for p in members
    )
    began = CONTINUED if before is None and rules.training else rules.training
    return State(members, training=began, asked=rules.training)


def reopen(state: State, rules: ConvergenceRules) -> State:
    """The state after a change of settings: members that had used up their epochs continue if the limit was raised."""
    again = tuple(replace(p, done=False) if p.done and not p.over(rules) else p for p in state.members)
    return state if again == state.members else replace(state, members=again, stopped=None)


def outstanding(state: State, rules: ConvergenceRules) -> tuple[Work, ...]:
    """One visit for each member that is not done; of no epoch if the limit was lowered below those it has had."""
    return tuple(
        RunTraining(
            p.visit, max(0, int(min(rules.epochs_per_visit, rules.max_epochs - p.epochs_here))), p.member
        )
        for p in state.members
        if not p.done
    )


def step(state: State, event: Event, rules: ConvergenceRules) -> tuple[State, tuple[Effect, ...]]:
    """The consequences of a visit. Raises IllegalEvent when its work is not outstanding."""
    if not isinstance(event, Trained) or event.work not in outstanding(state, rules):
        raise IllegalEvent(f"{event} while outstanding is {outstanding(state, rules)}")
    i = next(i for i, p in enumerate(state.members) if p.member == event.work.member)
    p = state.members[i]
    p = replace(p, visit=p.visit + 1, epochs=p.epochs + event.work.epochs)
    effects: list[Effect] = []
    (loss,), (mae,) = event.valid_loss, event.force_mae
    if _improves(loss, mae, p, rules):
        p = replace(p, best=loss, best_epoch=p.epochs, best_mae=mae, recent=())
        effects.append(KeepBest(p.member))
    else:
        window = max(TREND, int(rules.patience / rules.epochs_per_visit))
        p = replace(p, recent=(*p.recent, mae if _by_force(p.best_mae, rules) else loss)[-window:])
    if p.over(rules):
        p, more = _ended(p, rules)
        effects += more
    state = replace(state, members=(*state.members[:i], p, *state.members[i + 1 :]))
    if all(q.done for q in state.members):
        patient = all(q.patient(rules) for q in state.members)
        why = "converged" if patient else f"{rules.key}: {max(q.epochs_here for q in state.members)} epochs"
        state = replace(state, stopped=why)
    return state, tuple(effects)


def _ended(p: MemberProgress, rules: ConvergenceRules) -> tuple[MemberProgress, list[Effect]]:
    """The end of a member's training, or its continuation from the weights of before if these are better."""
    cut = "" if p.patient(rules) else f"; not converged yet: raise {rules.key} for more"
    text = (
        f"member {p.member} · {'epochs' if p.epochs_here >= rules.max_epochs else 'patience'} used up after "
        f"{p.epochs_here} epochs · best: epoch {p.best_epoch}, force MAE {1000 * p.best_mae:.1f} meV/Å{cut}"
    )
    if not p.continued_at and _was_better(p, rules):
        why = (
            f"member {p.member} · the new training ended worse (validation loss {p.best:.4g}, force MAE "
            f"{1000 * p.best_mae:.1f} meV/Å) than the weights before it were ({p.before:.4g}, "
            f"{1000 * p.before_mae:.1f} meV/Å): training continues from these, as with final_training: {CONTINUED}"
        )
        # the earlier weights are the best so far
        again = replace(
            p, continued_at=p.epochs, best=p.before, best_epoch=p.epochs, best_mae=p.before_mae, recent=()
        )
        return again, [LogMessage(text), ContinueEarlier(p.member), LogMessage(why, "warning")]
    return replace(p, done=True), [RestoreBest(p.member), LogMessage(text)]


def _improves(loss: float, mae: float, p: MemberProgress, rules: ConvergenceRules) -> bool:
    """Whether a validation is better than the best so far, by the criterion; without force MAE by the loss."""
    if not math.isfinite(loss) or math.isinf(p.best):
        return math.isfinite(loss)
    if _by_force(mae, rules) and math.isfinite(p.best_mae):
        return mae < (1 - LEAST) * p.best_mae
    return p.best - loss > rules.margin


def _by_force(mae: float, rules: ConvergenceRules) -> bool:
    """Whether the force MAE decides: by the criterion, and if there is one."""
    return rules.criterion == FORCE_MAE and math.isfinite(mae)


def _was_better(p: MemberProgress, rules: ConvergenceRules) -> bool:
    """Whether the weights that were set aside are better than the best of the new training."""
    if _by_force(p.before_mae, rules) and math.isfinite(p.best_mae):
        return p.before_mae < p.best_mae
    return p.before < p.best
