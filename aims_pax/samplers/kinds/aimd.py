"""aimd: structures from ab initio molecular dynamics with the reference; all structures have labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from aims_pax.frames import Frame, Label
from aims_pax.potential import Potential
from aims_pax.sampler import Sample, Sampler
from aims_pax.samplers.kinds.md import MDSampler, MDSamplerSettings
from aims_pax.settings.samplers import SamplerContext, SamplingCost, SamplingDemand, register_sampler
from aims_pax.systems import System

if TYPE_CHECKING:  # imports torch; settings are read without it
    from aims_pax.md import MDOutcome, MDState


@register_sampler("aimd")
class AbInitioSettings(MDSamplerSettings):
    """aimd: as md, but with the reference; its forces are labels."""

    prose: ClassVar[str] = "the same with the reference itself: every step is a reference calculation"
    needs_reference: ClassVar[str] = "write kind: md, and the calculator as its potential"

    def make(self, context: SamplerContext) -> Sampler:
        """Trajectories with the forces of the reference."""
        assert context.reference is not None  # checked by `without_reference`
        return AbInitioMDSampler(context.reference, **self.arguments(context))

    def cost(self, demand: SamplingDemand) -> SamplingCost:
        """Each step is a reference calculation; those of the structures that pass are their labels."""
        steps = super().cost(demand).md_steps
        return SamplingCost(
            md_steps=steps, reference_calls=round(steps) - round(demand.passed), reference_starts=True
        )


@runtime_checkable
class BySystem(Potential, Protocol):
    """A potential with a method per system: FHI-aims with one control.in for each geometry."""

    def method_of(self, system: str) -> str: ...
    def of(self, system_of: Callable[[Frame], str | None]) -> Potential: ...


class AbInitioMDSampler(MDSampler):
    """`MDSampler` whose potential is the reference itself (`labelling.reference_potential.ReferencePotential`).

    The labels of the sampled frames are requested again: the labeller has them in its store, with stress, for the
    rounded positions. A `BySystem` potential also gets the system of each frame.
    """

    _systems: Sequence[System] = ()

    def sample(self, systems: Sequence[System], n: int, rng: np.random.Generator) -> Iterator[Sample]:
        self._systems = systems
        # random stream of a trajectory → system
        self._name_of: dict[int, str] = {state.stream: name for (name, _), state in self._states.items()}
        return super().sample(systems, n, rng)

    def _begin(self, system: System, md: Any, rng: np.random.Generator) -> MDState:
        state = super()._begin(system, md, rng)
        self._name_of[state.stream] = system.name
        return state

    def _advance(self, states: list[MDState], md: list[Any]) -> list[MDOutcome]:
        """Advance all in one batch; one after the other where frames do not determine their method."""
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
