"""Convergence: the selected members train on the full set until they stop improving; the best weights are used.

With `final_training: fresh` or `shrink_perturb` they begin again from what they began from at the start of the run, or
from halfway to it: weights that have learnt few structures first can stay worse, however long they train on all of them
(Ash and Adams 2020, arXiv:1910.08475; measured in benchmarks/final_training.py).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from aims_pax.core import convergence as stage
from aims_pax.core.rules import CONTINUED, FORCE_MAE, SHRINK_PERTURB, ConvergenceRules
from aims_pax.core.work import ContinueEarlier, Effect, Event, KeepBest, RestoreBest, RunTraining, Work
from aims_pax.engine.run_context import RunContext
from aims_pax.engine.stage_environment import StageEnvironment, group_arrays
from aims_pax.models.base import MemberData
from aims_pax.record.checkpoint import Checkpoint, Snapshot, discard
from aims_pax.stages.beginning import beginning_in_words, untrained_members

log = logging.getLogger(__name__)


SHRINK = 0.5  # share of the present weights that shrink_perturb keeps


class Limits(Protocol):
    """The convergence keys, which both sections have."""

    @property
    def convergence_patience(self) -> int: ...
    @property
    def margin(self) -> float: ...
    @property
    def max_convergence_epochs(self) -> int: ...
    @property
    def convergence_criterion(self) -> str: ...


def run_convergence(
    run: RunContext,
    settings: Limits,
    name: str,
    members: Sequence[int],
    *,
    own_sets: bool = False,
    training: str = CONTINUED,
    title: str = "convergence",
    key: str = "max_convergence_epochs",
) -> stage.State:
    """Converge these members; continues an unfinished convergence from its snapshot.

    own_sets: train each member on its own sets (initial dataset) instead of on all structures. training: what the
    weights are at the beginning, see `final_training`. title, key: what it is called in the log, and the settings key
    that limits its epochs.
    """
    patience, epochs = settings.convergence_patience, settings.max_convergence_epochs
    if run.ensemble.fits_at_once:
        patience, epochs, training = 1, 1, ""
    rules = ConvergenceRules(
        tuple(members), patience, settings.margin, epochs, key=key, training=training,
        criterion=settings.convergence_criterion,
    )  # fmt: skip
    environment = ConvergenceEnvironment(run, name, own_sets)
    environment.rules = rules
    state = environment.restore(stage.State)
    if state is None:
        state = stage.begin(rules, environment.begin_again(members, training))
        run.ensemble.begin_convergence(members)
    before, state = state, stage.reopen(state, rules)
    if state.stopped:
        log.info("%s is complete (%s)", title, state.stopped)
        return state
    if before.stopped:
        log.info("%s was complete (%s); with the present settings it continues", title, before.stopped)
        run.ensemble.begin_convergence([p.member for p in state.members if not p.done])
    log.info("%s: %s", title, ", ".join(run.ensemble.members[m].name for m in rules.members))
    return environment.drive(state, rules)  # type: ignore[no-any-return]


def discard_other_training(run: RunContext, name: str, training: str) -> None:
    """Remove the snapshots of a convergence that began in another way than the settings now say: it begins again."""
    snapshot = Checkpoint(run.folder, name).read()
    began = "" if snapshot is None else snapshot.state.get("asked", "")
    if began and began != training and not run.ensemble.fits_at_once:
        log.info("convergence began with final_training: %s; with %s it begins again", began, training)
        discard(run.folder, name)


def best_member(run: RunContext, criterion: str) -> int:
    """The member that is best on the validation set, each on its own present one. criterion: as in the settings."""
    members = range(len(run.ensemble.members))
    results = run.ensemble.validate({m: run.member_data(m) for m in members})
    errors = np.array([r.force_mae if criterion == FORCE_MAE else r.valid_loss for r in results])
    if not np.isfinite(errors).any():
        errors = np.array([r.valid_loss for r in results])
    return int(np.nanargmin(errors)) if np.isfinite(errors).any() else 0


class ConvergenceEnvironment(StageEnvironment):
    """Trains one member at a time and stores its best weights."""

    grows = False

    def __init__(self, run: RunContext, name: str, own_sets: bool) -> None:
        super().__init__(run, stage, name)
        self.own_sets = own_sets
        self.began = beginning_in_words(run)
        self.best: dict[int, dict[str, NDArray[Any]]] = {}  # member → weights of its best validation
        self.earlier: dict[int, dict[str, NDArray[Any]]] = {}  # member → its state that was set aside

    def begin_again(self, members: Sequence[int], training: str) -> dict[int, tuple[float, float]] | None:
        """Set the present weights aside and take the members back to their beginning.

        Returns {member: validation loss and force MAE of the weights that were set aside}; None if training continues
        from them.
        """
        ensemble, data = self.run.ensemble, {m: self.data_of(m) for m in members}
        if training in ("", CONTINUED) or not ensemble.trained:
            return None
        if not all(own.valid for own in data.values()):
            log.warning(
                "no validation frames, so a new training could not be judged: training continues from the present "
                "weights (final_training: %s)", CONTINUED,
            )  # fmt: skip
            return None
        beginning = untrained_members(self.run)
        if beginning is None:
            return None
        results = zip(data, ensemble.validate(data), strict=True)
        errors = {m: (r.valid_loss, r.force_mae) for m, r in results if math.isfinite(r.valid_loss)}
        self.earlier = {m: ensemble.member_arrays(m) for m in members}
        shrunk = training == SHRINK_PERTURB
        ensemble.begin_again(beginning, members, SHRINK if shrunk else 0.0)
        log.info(
            "the last training begins from %s (final_training: %s)",
            f"halfway between the present weights and {self.began}" if shrunk else self.began, training,
        )  # fmt: skip
        return errors

    def data_of(self, member: int) -> MemberData:
        if self.own_sets:
            return super().data_of(member)
        return MemberData(self.run.dataset.union("train"), self.run.dataset.union("valid"))

    def turn(self, works: Sequence[Work], stop: Callable[[], bool]) -> Iterable[Event]:
        (work,) = works
        assert isinstance(work, RunTraining)
        return [self.train(work, stop)]

    def apply(self, effect: Effect) -> None:
        ensemble = self.run.ensemble
        match effect:
            case KeepBest(member):
                self.best[member] = dict(ensemble.inference_arrays(member))
            case RestoreBest(member):
                if member in self.best:  # if no validation loss was finite, the last weights stay
                    ensemble.set_inference_arrays(member, self.best[member])
                ensemble.finish_convergence({member: self.data_of(member)})
            case ContinueEarlier(member):
                ensemble.load_member(member, self.earlier[member])
                ensemble.begin_convergence([member])
                ensemble.version += 1
                self.best[member] = dict(ensemble.inference_arrays(member))
            case _:
                super().apply(effect)

    def weights(self) -> Mapping[str, NDArray[Any]]:
        aside = {
            f"{word}/{m}/{k}": v
            for word, members in (("best", self.best), ("earlier", self.earlier))
            for m, arrays in members.items()
            for k, v in arrays.items()
        }
        return {**super().weights(), **aside}

    def take_arrays(self, snapshot: Snapshot, grouped: Mapping[str, Any]) -> None:
        aside = group_arrays(snapshot.weights)
        self.best = {int(m): arrays for m, arrays in aside.get("best", {}).items()}
        self.earlier = {int(m): arrays for m, arrays in aside.get("earlier", {}).items()}
