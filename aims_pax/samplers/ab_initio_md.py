"""Structures from ab initio molecular dynamics: every force is the reference's, all come with labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from aims_pax.frames import Frame, Label
from aims_pax.md import MDOutcome, MDState
from aims_pax.potential import Potential
from aims_pax.samplers.base import Sample
from aims_pax.samplers.foundation_md import MDSampler
from aims_pax.systems import System


@runtime_checkable
class BySystem(Potential, Protocol):
    """A potential that may treat each system by a method of its own: FHI-aims with one control.in a geometry."""

    def method_of(self, system: str) -> str: ...
    def of(self, system_of: Callable[[Frame], str | None]) -> Potential: ...


class AbInitioMDSampler(MDSampler):
    """`MDSampler` whose potential is the reference itself (`labelling.reference_potential.ReferencePotential`).

    The labels are asked for by frame once more: the labeller has them in its store, with stress, and of
    exactly the rounded structure. A potential that is `BySystem` is told which system each frame descends from.
    """

    _systems: Sequence[System] = ()

    def sample(self, systems: Sequence[System], n: int, rng: np.random.Generator) -> Iterator[Sample]:
        self._systems = systems
        # random stream of a trajectory → system
        self._name_of: dict[int, str] = {state.stream: name for name, state in self._states.items()}
        return super().sample(systems, n, rng)

    def _begin(self, system: System, md: Any, rng: np.random.Generator) -> MDState:
        state = super()._begin(system, md, rng)
        self._name_of[state.stream] = system.name
        return state

    def _advance(self, states: list[MDState], md: list[Any]) -> list[MDOutcome]:
        """All in one batch; one after the other where frames do not show which method they need."""
        whole = self.potential
        if not isinstance(whole, BySystem):
            return super()._advance(states, md)
        names, kinds = [self._name_of[s.stream] for s in states], [s.frame().constitution for s in states]
        name_of = dict(zip(kinds, names, strict=True))
        methods = {name: whole.method_of(name) for name in names}
        if any(methods[name_of[k]] != methods[n] for k, n in zip(kinds, names, strict=True)):
            return [self._advance([s], [m])[0] for s, m in zip(states, md, strict=True)]
        self.potential = whole.of(lambda frame: name_of[frame.constitution])
        try:
            return super()._advance(states, md)
        finally:
            self.potential = whole

    def _labels(self, frames: Sequence[Frame]) -> list[Label | None]:
        potential = self.potential
        if not isinstance(potential, BySystem):
            return [*potential.labels(frames)]
        named = zip(frames, self._systems, strict=True)
        return [potential.of(_always(s.name)).labels([f])[0] for f, s in named]


def _always(name: str) -> Callable[[Frame], str]:
    return lambda _: name
