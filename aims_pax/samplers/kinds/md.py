"""md: structures from molecular dynamics with any potential (foundation model, ASE calculator, committee)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from ase.calculators.calculator import CalculationFailed
from numpy.typing import NDArray

from aims_pax.errors import LabelError
from aims_pax.frames import Frame, Label
from aims_pax.potential import Potential
from aims_pax.sampler import Sample, Sampler, SamplingError, under
from aims_pax.settings.augment import OptionalReal
from aims_pax.settings.fields import Kind, OptionalWhole, key, one_of, optional
from aims_pax.settings.md import MDSettings
from aims_pax.settings.samplers import (
    TEMPERATURE,
    SamplerContext,
    SamplerSettings,
    SamplingCost,
    SamplingDemand,
    register_sampler,
)
from aims_pax.systems import System

if TYPE_CHECKING:  # imports torch; settings are read without it
    from aims_pax.md import MDOutcome, MDState

log = logging.getLogger(__name__)

TRIES = 5  # failures in a row after which a system is given up

OptionalEnsemble = Annotated[str | None, optional(one_of("NVT", "NPT").func), Kind("`str` or `None`")]
OptionalThermostat = Annotated[
    str | None, optional(one_of("Langevin", "SVR", csvr="SVR", bussi="SVR").func), Kind("`str` or `None`")
]


@register_sampler("md")
class MDSamplerSettings(SamplerSettings):
    """md: one trajectory of each geometry with a cheap potential. Missing keys are taken from the section MD."""

    prose: ClassVar[str] = (
        "one trajectory of each geometry with a cheap potential, a structure every `skip_step` steps; it continues "
        "from batch to batch"
    )
    temperature_by_system: ClassVar[bool] = True

    temperature: OptionalReal = key(None, "Temperature (K).", **TEMPERATURE)
    timestep: OptionalReal = key(
        None,
        "Time step (fs).",
        unit="fs",
        possible="(0, 100]",
        plausible="[0.05, 10]",
        unit_confusions={"ps": 1000.0},
    )
    friction: OptionalReal = key(
        None,
        "Friction of Langevin dynamics (fs⁻¹).",
        unit="fs⁻¹",
        possible="(0, 10]",
        plausible="[1e-5, 0.1]",
    )
    stat_ensemble: OptionalEnsemble = key(None, "`NVT` or `NPT`.")
    thermostat: OptionalThermostat = key(None, "`Langevin` or `SVR`.")
    skip_step: OptionalWhole = key(
        None,
        "MD steps between two structures; `None`: `skip_step_initial`, or 25.",
        possible="[1, inf)",
        plausible="[5, 10000]",
    )

    def dynamics(self) -> dict[str, Any]:
        """The keys that override the section MD."""
        names = ("temperature", "timestep", "friction", "stat_ensemble", "thermostat")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def make(self, context: SamplerContext) -> Sampler:
        """A trajectory of each system with the cheap potential."""
        return MDSampler(context.potential(), **self.arguments(context))

    def arguments(self, context: SamplerContext) -> dict[str, Any]:
        """Arguments of `MDSampler` except the potential."""

        def md_of(system: System) -> MDSettings:
            return context.md_of(system).model_copy(update=self.dynamics())

        skip_steps = self.skip_step or context.skip_step
        return {
            "md_of": md_of, "skip_steps": skip_steps, "name": self.label, "stop": context.stop, "continues": True
        }  # fmt: skip

    def cost(self, demand: SamplingDemand) -> SamplingCost:
        """`skip_step` steps for each structure, also for those that filters remove."""
        return SamplingCost(md_steps=demand.made * (self.skip_step or demand.skip_step))


class MDSampler:
    """MD of all systems in one batch; a structure of each every `skip_steps` steps.

    md_of: the MD settings of a system. stop: checked before every evaluation; when True, Abandoned is raised.
    A trajectory begins at its system's frame with random momenta. With `continues` every system has one trajectory,
    which the next call of `sample` continues; without it, a caller can pass systems at the last frames. A trajectory
    that fails begins at the system's frame again, with other momenta. A temperature ramp extends over the
    n · skip_steps steps of one call of `sample`.
    """

    _length = 0  # MD steps of a trajectory

    def __init__(
        self,
        potential: Potential,
        md_of: Callable[[System], Any],
        skip_steps: int,
        name: str = "md",
        stop: Callable[[], bool] = lambda: False,
        continues: bool = False,
    ) -> None:
        if skip_steps < 1:
            raise ValueError(f"skip_steps is {skip_steps}, expected at least 1")
        self.potential = potential
        self.md_of = md_of
        self.skip_steps = skip_steps
        self.name = name
        self.stop = stop
        self.continues = continues
        self._states: dict[str, MDState] = {}  # of the trajectories to be continued

    def sample(self, systems: Sequence[System], n: int, rng: np.random.Generator) -> Iterator[Sample]:
        """n structures of each system, one of each in turn.

        Raises SamplingError when a system fails five times in a row.
        """
        from aims_pax.md import temperature_at

        md = [self.md_of(s) for s in systems]
        self._length = n * self.skip_steps
        states = [
            self._states.get(s.name) or self._begin(s, m, rng) for s, m in zip(systems, md, strict=True)
        ]
        failures = [0] * len(systems)
        for _ in range(n):
            wanted = list(range(len(systems)))
            while wanted:
                moved = self._advance([states[k] for k in wanted], [md[k] for k in wanted])
                exploded = []
                for k, became in zip(wanted, moved, strict=True):
                    if became.fault is None:
                        states[k], failures[k] = became.state, 0
                        continue
                    failures[k] += 1
                    self._report(systems[k], md[k], became.fault, failures[k])
                    states[k] = self._begin(systems[k], md[k], rng)
                    exploded.append(k)
                wanted = exploded
            if self.continues:
                self._states |= {system.name: state for system, state in zip(systems, states, strict=True)}
            frames = [s.frame() for s in states]
            for k, (frame, label) in enumerate(zip(frames, self._labels(frames), strict=True)):
                origin: dict[str, str | int | float] = {
                    "sampler": self.name,
                    "system": systems[k].name,
                    "step": states[k].step,
                    "temperature": temperature_at(md[k], states[k].step, self._length),
                }
                yield Sample(frame, label, origin)

    def state_arrays(self) -> dict[str, NDArray[Any]]:
        """The trajectories to be continued."""
        return {f"{n}/{k}": a for n, state in self._states.items() for k, a in state.arrays().items()}

    def load_state_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Restore the state from `state_arrays`."""
        from aims_pax.md import MDState

        names = dict.fromkeys(name.partition("/")[0] for name in arrays)
        self._states = {name: MDState.from_arrays(under(name, arrays)) for name in names}

    def _begin(self, system: System, md: Any, rng: np.random.Generator) -> MDState:
        from aims_pax.md import MDState, temperature_at

        at_pressure = str(md.stat_ensemble).upper() == "NPT"
        reason = system.refuses_dynamics() or (system.refuses_constant_pressure() if at_pressure else None)
        if reason is not None:
            raise SamplingError(reason)
        temperature = temperature_at(md, 0, self._length)
        return MDState.start(system.frame, temperature, int(rng.integers(2**63)))

    def _advance(self, states: list[MDState], md: list[Any]) -> list[MDOutcome]:
        """Advance all in one batch; when the potential fails, one by one, to find the failing one."""
        from aims_pax.md import MDOutcome, advance

        try:
            return advance(states, self.potential, self.skip_steps, md, stop=self.stop, length=self._length)
        except (LabelError, CalculationFailed) as error:
            if len(states) == 1:
                return [MDOutcome.failed(states[0], f"{type(error).__name__}: {error}")]
        return [self._advance([s], [m])[0] for s, m in zip(states, md, strict=True)]

    def _labels(self, frames: Sequence[Frame]) -> list[Label | None]:
        """No labels: this potential is not the reference."""
        return [None] * len(frames)

    def _report(self, system: System, md: Any, fault: str, failures: int) -> None:
        if failures >= TRIES:
            raise SamplingError(
                f"{system.name}: molecular dynamics with {self.name} failed {failures} times in a row, "
                f"the last time: {fault}. Relax the starting geometry, or lower MD.timestep "
                f"({md.timestep} fs) or MD.temperature ({md.temperature} K), or sample with another potential"
            )
        log.warning("%s · %s · starting again with other momenta (%d)", system.name, fault, failures)
