"""Convergence: the chosen members learn the full set until they stop improving; their best weights are delivered."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from aims_pax.core import converge as stage
from aims_pax.core.rules import ConvergeRules
from aims_pax.core.work import Effect, Event, KeepBest, RestoreBest, Train, Work
from aims_pax.frames import LabelledFrame
from aims_pax.procedures.world import Run, StageWorld
from aims_pax.record.checkpoint import Snapshot

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
    from aims_pax.force_field import MemberData

    members = range(len(run.ensemble.members))
    data = {m: MemberData(run.dataset.train(m), run.dataset.valid(m)) for m in members}
    losses = [r.valid_loss for r in run.ensemble.validate(data)]
    return int(np.nanargmin(losses)) if np.isfinite(losses).any() else 0


class ConvergeWorld(StageWorld):
    """Trains one member at a time and remembers its best weights."""

    def __init__(self, run: Run, name: str, own_sets: bool) -> None:
        super().__init__(run, stage, name)
        self.own_sets = own_sets
        self.best: dict[int, Mapping[str, NDArray[Any]]] = {}

    def data_of(self, member: int) -> tuple[list[LabelledFrame], list[LabelledFrame]]:
        if self.own_sets:
            return super().data_of(member)
        return self.run.dataset.union("train"), self.run.dataset.union("valid")

    def turn(self, works: Sequence[Work], stop: Callable[[], bool]) -> Iterable[Event]:
        (work,) = works
        assert isinstance(work, Train)
        return [self.train(work, stop)]

    def apply(self, effect: Effect) -> None:
        match effect:
            case KeepBest(member, _):
                self.best[member] = self.run.ensemble.inference_arrays(member)
            case RestoreBest(member):
                if member in self.best:
                    train, _ = self.data_of(member)
                    self.run.ensemble.set_inference_arrays(member, self.best[member])
                    self.run.ensemble.refit_offsets({member: train})
            case _:
                super().apply(effect)

    def weights(self) -> Mapping[str, NDArray[Any]]:
        best = {f"best/{m}/{k}": v for m, arrays in self.best.items() for k, v in arrays.items()}
        return {**self.run.ensemble.arrays(), **best}

    def take_arrays(self, snapshot: Snapshot, grouped: Mapping[str, Any]) -> None:
        for name, values in snapshot.weights.items():
            if name.startswith("best/"):
                _, member, rest = name.split("/", 2)
                self.best.setdefault(int(member), {})[rest] = values  # type: ignore[index]
