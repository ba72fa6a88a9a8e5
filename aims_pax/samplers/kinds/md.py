"""md: structures from molecular dynamics with any potential (foundation model, ASE calculator, committee)."""

from __future__ import annotations

import logging
import math
from collections import Counter
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
from aims_pax.settings.fields import Kind, OptionalWhole, Real, Whole, key, one_of, optional
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
    temperature_factor: Real = key(
        1.0,
        "Multiplies the temperature, also that of the section MD: 1.5 makes structures that are hotter than the run.",
        possible="(0, 10]",
        plausible="[0.3, 3]",
    )
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
    num_trajectories: Whole = key(
        1,
        "Independent trajectories of each geometry, which give its structures in turn. They move in one batch: a "
        "foundation model evaluates several in little more time than one.",
        possible="[1, inf)",
        plausible="[1, 1000]",
    )

    def dynamics(self) -> dict[str, Any]:
        """The keys that override the section MD."""
        names = ("temperature", "timestep", "friction", "stat_ensemble", "thermostat")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def make(self, context: SamplerContext) -> Sampler:
        """A trajectory of each system with the cheap potential."""
        return MDSampler(context.potential(), **self.arguments(context), advance=context.advance)

    def arguments(self, context: SamplerContext) -> dict[str, Any]:
        """Arguments of `MDSampler` except the potential."""

        def md_of(system: System) -> MDSettings:
            md = context.md_of(system).model_copy(update=self.dynamics())
            if self.temperature_factor == 1:
                return md
            hotter = np.multiply(md.temperature, self.temperature_factor).tolist()
            return md.model_copy(
                update={"temperature": tuple(hotter) if isinstance(hotter, list) else hotter}
            )

        skip_steps = self.skip_step or context.skip_step
        return {
            "md_of": md_of, "skip_steps": skip_steps, "name": self.label, "stop": context.stop, "continues": True,
            "num_trajectories": self.num_trajectories,
        }  # fmt: skip

    def cost(self, demand: SamplingDemand) -> SamplingCost:
        """`skip_step` steps for each structure, also for those that filters remove."""
        return SamplingCost(md_steps=demand.made * (self.skip_step or demand.skip_step))


class MDSampler:
    """MD of all systems in one batch; a structure of each trajectory every `skip_steps` steps.

    md_of: the MD settings of a system. stop: checked before every evaluation; when True, Abandoned is raised.
    num_trajectories: of each system; those that have made the fewest steps give the next structures, so that they do
    not depend on the sizes of the batches. A trajectory begins at its system's frame with random momenta. With
    `continues` the next call of `sample` continues all of them; without it, a caller can pass systems at the last
    frames. A trajectory that fails begins at the system's frame again, with other momenta. A temperature ramp extends
    over the steps that a trajectory makes in one call of `sample`. advance: `md.advance`, or what moves trajectories in
    several processes and is called as it is.
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
        num_trajectories: int = 1,
        advance: Callable[..., list[MDOutcome]] | None = None,
    ) -> None:
        for what, count in (("skip_steps", skip_steps), ("num_trajectories", num_trajectories)):
            if count < 1:
                raise ValueError(f"{what} is {count}, expected at least 1")
        self.potential = potential
        self.md_of = md_of
        self.skip_steps = skip_steps
        self.name = name
        self.stop = stop
        self.continues = continues
        self.num_trajectories = num_trajectories
        self.advance = advance
        self._states: dict[tuple[str, int], MDState] = {}  # of the trajectories to be continued

    def sample(self, systems: Sequence[System], n: int, rng: np.random.Generator) -> Iterator[Sample]:
        """n structures of each system, one of each in turn.

        Raises SamplingError when a trajectory fails five times in a row.
        """
        md = {s.name: self.md_of(s) for s in systems}
        self._length = math.ceil(n / self.num_trajectories) * self.skip_steps
        states: dict[tuple[str, int], MDState] = dict(self._states)
        failures: Counter[tuple[str, int]] = Counter()
        made = 0
        while made < n:
            turns = min(self.num_trajectories, n - made)
            behind = {s.name: self._furthest_behind(s.name, states)[:turns] for s in systems}
            moving = {(s.name, behind[s.name][k]): s for k in range(turns) for s in systems}
            for each, system in moving.items():
                if each not in states:
                    states[each] = self._begin(system, md[system.name], rng)
            self._move(moving, states, md, failures, rng)
            if self.continues:
                self._states |= {each: states[each] for each in moving}
            for k in range(turns):
                yield from self._structures([(s, behind[s.name][k]) for s in systems], states, md)
            made += turns

    def _furthest_behind(self, name: str, states: Mapping[tuple[str, int], MDState]) -> list[int]:
        """The trajectories of a system, the one with the fewest steps first."""

        def steps(trajectory: int) -> int:
            state = states.get((name, trajectory))
            return 0 if state is None else state.step

        return sorted(range(self.num_trajectories), key=steps)

    def _move(
        self,
        moving: Mapping[tuple[str, int], System],
        states: dict[tuple[str, int], MDState],
        md: Mapping[str, Any],
        failures: Counter[tuple[str, int]],
        rng: np.random.Generator,
    ) -> None:
        """Advance these trajectories by `skip_steps`; those that fail begin again until they succeed."""
        left = list(moving)
        while left:
            outcomes = self._advance([states[each] for each in left], [md[name] for name, _ in left])
            exploded = []
            for each, outcome in zip(left, outcomes, strict=True):
                if outcome.fault is None:
                    states[each], failures[each] = outcome.state, 0
                    continue
                failures[each] += 1
                self._report(moving[each], md[each[0]], outcome.fault, failures[each])
                states[each] = self._begin(moving[each], md[each[0]], rng)
                exploded.append(each)
            left = exploded

    def _structures(
        self,
        of: Sequence[tuple[System, int]],
        states: Mapping[tuple[str, int], MDState],
        md: Mapping[str, Any],
    ) -> Iterator[Sample]:
        """The present structure of one trajectory of each system."""
        from aims_pax.md import temperature_at

        now = [states[system.name, trajectory] for system, trajectory in of]
        frames = [state.frame() for state in now]
        for (system, trajectory), state, frame, label in zip(
            of, now, frames, self._labels(frames), strict=True
        ):
            origin: dict[str, str | int | float] = {
                "sampler": self.name,
                "system": system.name,
                "step": state.step,
                "temperature": temperature_at(md[system.name], state.step, self._length),
            }
            if self.num_trajectories > 1:
                origin["trajectory"] = trajectory
            yield Sample(frame, label, origin)

    def state_arrays(self) -> dict[str, NDArray[Any]]:
        """The trajectories to be continued: `SYSTEM/…`, of further trajectories `SYSTEM/+1/…`."""
        return {
            f"{name}/{f'+{trajectory}/' if trajectory else ''}{k}": a
            for (name, trajectory), state in self._states.items()
            for k, a in state.arrays().items()
        }

    def load_state_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Restore the state from `state_arrays`, but not trajectories beyond `num_trajectories`."""
        from aims_pax.md import MDState

        self._states = {}
        for name in dict.fromkeys(each.partition("/")[0] for each in arrays):
            own = under(name, arrays)
            for trajectory in range(self.num_trajectories):
                mine = under(f"+{trajectory}", own) if trajectory else own
                if "step" in mine:
                    self._states[name, trajectory] = MDState.from_arrays(mine)

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

        move = self.advance or advance
        try:
            return move(states, self.potential, self.skip_steps, md, stop=self.stop, length=self._length)
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
                f"({md.timestep} fs) or the temperature ({md.temperature} K; MD.temperature, or that of the sampler or "
                "of PRETRAINING, half of whose structures are hotter than the run), or sample with another potential"
            )
        log.warning("%s · %s · starting again with other momenta (%d)", system.name, fault, failures)
