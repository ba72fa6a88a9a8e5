"""Convergence: the chosen members learn the full set until they stop improving; their best weights are delivered."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from aims_pax.core import converge as stage
from aims_pax.core.rules import ConvergeRules
from aims_pax.core.work import Effect, Event, RestoreBest, Train, Work
from aims_pax.procedures.world import Run, StageWorld

if TYPE_CHECKING:
    from aims_pax.force_field import MemberData

log = logging.getLogger(__name__)


class Limits(Protocol):
    """The keys both sections have for convergence."""

    convergence_patience: int
    margin: float
    max_convergence_epochs: int
    valid_skip: int


def run(
    run: Run, settings: Limits, name: str, members: Sequence[int], *, own_sets: bool = False
) -> stage.State:
    """Converge these members; goes on with its own unfinished work.

    own_sets: each member on its own slice (initial dataset) instead of everything there is.
    """
    rules = ConvergeRules(
        tuple(members), settings.convergence_patience, settings.margin, settings.max_convergence_epochs
    )
    world = ConvergeWorld(run, name, own_sets)
    world.rules = rules
    state = world.restore(stage.State)
    if state is None:
        run.ensemble.fresh_phase(members)
        state = stage.begin(rules)
    if state.stopped:
        log.info("convergence is complete")
        return state
    log.info("convergence: %s", ", ".join(run.ensemble.members[m].name for m in rules.members))
    return world.drive(state, rules)  # type: ignore[no-any-return]


def best_member(run: Run) -> int:
    """The member with the lowest validation loss, each on its own validation set as it stands."""
    members = range(len(run.ensemble.members))
    losses = run.ensemble.validation_losses([run.member_data(m) for m in members])
    return int(np.nanargmin(losses)) if np.isfinite(losses).any() else 0


class ConvergeWorld(StageWorld):
    """Trains one member at a time and remembers its best weights."""

    def __init__(self, run: Run, name: str, own_sets: bool) -> None:
        super().__init__(run, stage, name)
        self.own_sets = own_sets

    def data_of(self, member: int) -> MemberData:
        if self.own_sets:
            return super().data_of(member)
        from aims_pax.force_field import MemberData

        return MemberData(self.run.dataset.union("train"), self.run.dataset.union("valid"))

    def turn(self, works: Sequence[Work], stop: Callable[[], bool]) -> Iterable[Event]:
        (work,) = works
        assert isinstance(work, Train)
        return [self.train(work, stop, margin=self.rules.margin, keep_best=True)]

    def apply(self, effect: Effect) -> None:
        match effect:
            case RestoreBest(member):
                data = [self.data_of(member)]
                self.run.ensemble.restore_best(data, [member])
                self.run.ensemble.refit_offsets(data, [member])
            case _:
                super().apply(effect)
