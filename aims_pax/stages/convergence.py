"""Convergence: the selected members train on the full set until they stop improving; the best weights are used."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from aims_pax.core import convergence as stage
from aims_pax.core.rules import ConvergeRules
from aims_pax.core.work import Effect, Event, KeepBest, RestoreBest, RunTraining, Work
from aims_pax.engine.run_context import RunContext
from aims_pax.engine.stage_environment import StageEnvironment, group_arrays
from aims_pax.models.base import MemberData
from aims_pax.record.checkpoint import Snapshot

log = logging.getLogger(__name__)


class Limits(Protocol):
    """The convergence keys, which both sections have."""

    @property
    def convergence_patience(self) -> int: ...
    @property
    def margin(self) -> float: ...
    @property
    def max_convergence_epochs(self) -> int: ...


def run_convergence(
    run: RunContext,
    settings: Limits,
    name: str,
    members: Sequence[int],
    *,
    own_sets: bool = False,
    title: str = "convergence",
    key: str = "max_convergence_epochs",
) -> stage.State:
    """Converge these members; continues an unfinished convergence from its snapshot.

    own_sets: train each member on its own sets (initial dataset) instead of on all structures. title, key: what it is
    called in the log, and the settings key that limits its epochs.
    """
    patience, epochs = settings.convergence_patience, settings.max_convergence_epochs
    if run.ensemble.fits_at_once:
        patience = epochs = 1
    rules = ConvergeRules(tuple(members), patience, settings.margin, epochs, key=key)
    world = ConvergeWorld(run, name, own_sets)
    world.rules = rules
    state = world.restore(stage.State)
    if state is None:
        run.ensemble.begin_convergence(members)
        state = stage.begin(rules)
    before, state = state, stage.reopen(state, rules)
    if state.stopped:
        log.info("%s is complete (%s)", title, state.stopped)
        return state
    if before.stopped:
        log.info("%s was complete (%s); with the present settings it continues", title, before.stopped)
        run.ensemble.begin_convergence([p.member for p in state.members if not p.done])
    log.info("%s: %s", title, ", ".join(run.ensemble.members[m].name for m in rules.members))
    return world.drive(state, rules)  # type: ignore[no-any-return]


def best_member(run: RunContext) -> int:
    """The member with the lowest validation loss, each on its own present validation set."""
    members = range(len(run.ensemble.members))
    results = run.ensemble.validate({m: run.member_data(m) for m in members})
    losses = [r.valid_loss for r in results]
    return int(np.nanargmin(losses)) if np.isfinite(losses).any() else 0


class ConvergeWorld(StageEnvironment):
    """Trains one member at a time and stores its best weights."""

    def __init__(self, run: RunContext, name: str, own_sets: bool) -> None:
        super().__init__(run, stage, name)
        self.own_sets = own_sets
        self.best: dict[int, dict[str, NDArray[Any]]] = {}  # member → weights of its best validation

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
            case _:
                super().apply(effect)

    def weights(self) -> Mapping[str, NDArray[Any]]:
        best = {f"best/{m}/{k}": v for m, arrays in self.best.items() for k, v in arrays.items()}
        return {**super().weights(), **best}

    def take_arrays(self, snapshot: Snapshot, grouped: Mapping[str, Any]) -> None:
        self.best = {int(m): arrays for m, arrays in group_arrays(snapshot.weights).get("best", {}).items()}
