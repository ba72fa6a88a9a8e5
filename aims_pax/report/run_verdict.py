"""The verdict: whether a run reached its goal and, if not, what to do next."""

from __future__ import annotations

import math
from dataclasses import dataclass

from aims_pax.core.rules import BELIEVED
from aims_pax.report.accuracy import by_system, energy_mae_with_error, force_mae_with_error, held_out
from aims_pax.report.formatting import STAGES, STATES, milli, milli_with_error, plural
from aims_pax.report.run_record import RunRecord, current_stage
from aims_pax.report.target_error import (
    LARGER,
    TargetVerdict,
    target_verdict,
    training_cut_off,
    what_labels_bring,
)
from aims_pax.report.temperatures import drawn_at_other_temperatures

NEXT = {  # beginning of the reason that ended active learning → what to change to continue
    "max_labels": "raise ACTIVE_LEARNING.max_labels",
    "max_MD_steps": "raise ACTIVE_LEARNING.max_MD_steps",
    "max_train_set_size": "raise ACTIVE_LEARNING.max_train_set_size",
    "desired_acc": "lower ACTIVE_LEARNING.desired_acc a little: the mean of the members was below it",
    "when_done": "lower ACTIVE_LEARNING.target_error a little: the error in active learning was below it",
    "every trajectory": (
        "correct what ended them and raise ACTIVE_LEARNING.num_trajectories (ended ones are not continued)"
    ),
}

BEGINNINGS = {  # final_training, in words
    "fresh": "the weights that the member began the run with, before its first training",
    "continued": "the weights at the end of active learning",
    "shrink_perturb": "weights halfway between those at the end of active learning and those of the beginning",
}


@dataclass(frozen=True)
class RunVerdict:
    """kind: reached | missed | no goal | unfinished."""

    kind: str
    text: str


def run_verdict(run: RunRecord) -> RunVerdict:
    """The verdict on a run: one text, and its kind."""
    if run.state != "finished":
        return RunVerdict("unfinished", _unfinished(run))
    goal = desired(run)
    mae, n = validation_error(run)
    on = f"force MAE {milli(mae)} meV/Å on {plural(n, 'validation frame')}" if math.isfinite(mae) else ""
    tested = test_error(run)
    more = [*cut_off(run), *drawn_at_other_temperatures(run)]
    aimed = target_verdict(run)
    if aimed is not None and not goal:
        return _aimed(run, aimed, more)
    more = [
        *more,
        *([aimed.text] if aimed else [f"Expected: {'; '.join(b)}." for b in [what_labels_bring(run)] if b]),
    ]
    if not goal:
        found = f"{tested}; {on}, which chose the best epoch" if tested and on else tested or on
        first = [f"{found[0].upper()}{found[1:]}."] if found else []
        text = "No accuracy was required (ACTIVE_LEARNING.desired_acc is 0)."
        return RunVerdict("no goal", " ".join([*first, text, *more]))
    more = [f"Independent of that: {tested}.", *more] if tested else more
    asked = f"desired_acc is {milli(goal)} meV/Å"
    if not math.isfinite(mae):
        return RunVerdict(
            "missed", f"Unknown whether the goal was reached: {asked}, but there is no validation error."
        )
    if mae <= goal and n >= BELIEVED:
        kind = "reached" if aimed is None or aimed.kind == "reached" else "missed"
        return RunVerdict(
            kind, " ".join([f"Goal reached: {on}; {asked}.", *more, *_towards_target(run, aimed)])
        )
    if mae <= goal:
        text = f"Goal reached, but on too few frames to be reliable: {on}; {asked}. {_next(run)}"
        return RunVerdict("missed", " ".join([text, *more]))
    return RunVerdict("missed", " ".join([f"Goal not reached: {on}; {asked}. {_next(run)}", *more]))


def _aimed(run: RunRecord, aimed: TargetVerdict, more: list[str]) -> RunVerdict:
    """The verdict of a run whose only goal is target_error."""
    tested = test_error(run)
    besides = [f"Besides: {tested}."] if tested else []
    kind = "reached" if aimed.kind == "reached" else "missed"
    # a longer training costs no labels: it is named before more of them
    return RunVerdict(kind, " ".join([aimed.text, *more, *_towards_target(run, aimed), *besides]))


def _towards_target(run: RunRecord, aimed: TargetVerdict | None) -> list[str]:
    """The next step where more labels may reach the target; else []: its verdict has named it."""
    return [_next(run)] if aimed is not None and aimed.kind in ("missed", "unknown") else []


def desired(run: RunRecord) -> float:
    """ACTIVE_LEARNING.desired_acc in eV/Å; 0 if not set."""
    try:
        return float(run.setting("ACTIVE_LEARNING.desired_acc", "0"))
    except ValueError:
        return 0.0


def validation_error(run: RunRecord) -> tuple[float, int]:
    """(force MAE eV/Å of the delivered model on all validation frames, their number); (NaN, 0) if there are none."""
    rows = [r for r in by_system(run.predictions) if r.split == "valid"] if run.predictions else []
    return (rows[-1].force_mae, rows[-1].frames) if rows else (math.nan, 0)


def test_error(run: RunRecord) -> str:
    """Force and energy MAE on frames that influenced no decision, with standard errors over frames; "" if none."""
    if not run.predictions:
        return ""
    name, part = held_out(run.predictions)
    if name != "test frames":
        return ""
    force, force_error, n = force_mae_with_error(part)
    energy, energy_error, _ = energy_mae_with_error(part)
    return (
        f"force MAE {milli_with_error(force, force_error)} meV/Å and energy MAE "
        f"{milli_with_error(energy, energy_error)} meV/atom on {plural(n, 'test frame')}"
    )


def last_training(run: RunRecord) -> str:
    """A sentence on the weights with which the last training began; "" if it is not recorded."""
    if run.final_training not in BEGINNINGS:
        return ""
    said = f"The last training, on all data, began with {BEGINNINGS[run.final_training]}"
    if any(c.continued_at for c in run.convergence):
        said += (
            "; this ended worse on the validation frames than the weights of active learning were, so these were "
            "trained on instead"
        )
    return f"{said} (ACTIVE_LEARNING.final_training: {run.final_training})."


def cut_off(run: RunRecord) -> list[str]:
    """A sentence if convergence was ended by its number of epochs and not by patience; else []."""
    if not training_cut_off(run):
        return []
    best = ", ".join(f"{c.best_epoch} of {c.epochs}" for c in run.convergence)
    return [
        f"Convergence was ended by max_convergence_epochs (best epoch: {best}) before patience ran out; the model may "
        "still have been improving: raise ACTIVE_LEARNING.max_convergence_epochs and run the same command."
    ]


def _next(run: RunRecord) -> str:
    explored = [s.stopped or "" for s in run.stages if s.name == "explore"]
    reason = explored[0] if explored else ""
    step = next((words for start, words in NEXT.items() if reason.startswith(start)), "raise its limits")
    ended = f"Active learning ended by {reason}. " if reason else ""
    if reason.startswith("when_done") and ": no gain, " in reason:
        return f"{ended}Next: {LARGER}."
    return f"{ended}Next: {step}, then run the same command."


def _unfinished(run: RunRecord) -> str:
    last = current_stage(run.stages)
    name = "" if last is None else STAGES.get(last.name, last.name)
    if run.state in ("running", "starting"):
        return f"Not finished yet: {name or STATES[run.state]}."
    if last is not None and last.stopped and last.name in ("initial", "converge-initial"):
        return (
            f"The initial dataset is complete ({last.stopped}); aims-PAX (or aims-PAX-al) continues with active "
            "learning."
        )
    how = STATES[run.state].partition(",")[0] + (f" during {name}" if name else "")
    return f"Not finished: {how}; run the same command to continue."
