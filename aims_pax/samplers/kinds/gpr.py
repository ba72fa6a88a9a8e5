"""gpr: structures about which a Gaussian process of the labels so far is most uncertain (`samplers.surrogate`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from aims_pax.errors import Abandoned
from aims_pax.frames import LabelledFrame
from aims_pax.sampler import Sample, Sampler
from aims_pax.settings.augment import OptionalReal
from aims_pax.settings.fields import Kind, OptionalText, OptionalWhole, Real, Whole, key, one_of
from aims_pax.settings.samplers import (
    NEEDS_FEATOMIC,
    TEMPERATURE,
    OptionalPotential,
    SamplerContext,
    SamplerSettings,
    SamplingCost,
    SamplingDemand,
    register_sampler,
)
from aims_pax.systems import System

if TYPE_CHECKING:
    from aims_pax.samplers.surrogate import SurrogatePotential

Moves = Annotated[str, one_of("rattle", "md"), Kind("`str`")]


@register_sampler("gpr")
class GPRSamplerSettings(SamplerSettings):
    """gpr: of several candidates the one about which a Gaussian process of the labels so far is most uncertain."""

    prose: ClassVar[str] = (
        "of `candidates` (molecular dynamics, or rattled structures) the one about which a [Gaussian "
        "process](gaussian_processes.md#in-the-initial-dataset) of the labels so far is most uncertain"
    )
    packages: ClassVar[Mapping[str, str]] = NEEDS_FEATOMIC
    temperature_by_system: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Any]] = {"candidates": 3}

    moves: Moves = key(
        "md",
        "`md`: candidates are structures of molecular dynamics with `potential`; `rattle`: displaced starting or "
        "labelled structures.",
    )
    candidates: Whole = key(20, "Candidates for each structure.", possible="[1, 10000]", plausible="[5, 200]")
    sigma: Real = key(
        0.1,
        "Of `moves: rattle`: largest standard deviation of the displacements.",
        unit="Å",
        possible="(0, 2]",
        plausible="[0.02, 0.3]",
    )
    max_sd: Real = key(
        1.0, "Candidates with a larger deviation of a force are taken only if there are no others.", unit="eV/Å",
        possible="(0, 1000]",
    )  # fmt: skip
    data: OptionalText = key(None, "File of labelled structures to learn besides the labels of the run.")
    baseline: OptionalPotential = key(
        None,
        "A cheap potential as prior mean of the process, spelled as `potential`; `None`: energies of the atoms.",
    )
    temperature: OptionalReal = key(
        None, "Of `moves: md`: temperature (K); `None`: that of MD.", **TEMPERATURE
    )
    skip_step: OptionalWhole = key(
        None, "Of `moves: md`: MD steps between two candidates; `None`: `skip_step_initial`, or 25.",
        possible="[1, inf)",
    )  # fmt: skip

    def takes_temperature_of_md(self) -> bool:
        """Only where it moves atoms by molecular dynamics."""
        return self.moves == "md" and super().takes_temperature_of_md()

    def problems(self, folder: Path) -> Iterator[tuple[str, str]]:
        """What files and keys together refuse."""
        if self.data is not None and not (folder / Path(self.data).expanduser()).is_file():
            yield "data", f"{self.data}: no such file"
        unused = {"rattle": ("temperature", "skip_step"), "md": ("sigma",)}[self.moves]
        for name in unused:
            if getattr(self, name) != type(self).model_fields[name].default:
                yield name, f"has no effect with moves: {self.moves}"

    def without_reference(self) -> str | None:
        """It needs labels: those of a run, or `data`."""
        if self.data is None:
            return "gpr learns from labels, which only a run has; give data"
        return super().without_reference()

    def dynamics(self) -> dict[str, Any] | None:
        """Its temperature, where it moves atoms by molecular dynamics."""
        if self.moves != "md":
            return None
        return {} if self.temperature is None else {"temperature": self.temperature}

    def make(self, context: SamplerContext) -> Sampler:
        """The sampler with a process of its own. Raises SettingsError for `data` that cannot be read."""
        from aims_pax.models.gp.soap import require_featomic
        from aims_pax.samplers.surrogate import SurrogatePotential, labelled_file

        require_featomic()

        def check() -> None:
            if context.stop():
                raise Abandoned

        place = f"{context.place}.baseline"
        baseline = None if self.baseline is None else context.load_potential(self.baseline, place)
        surrogate = SurrogatePotential(
            baseline, labelled_file(context.folder, self.data, f"{context.place}.data"), check
        )
        inner = None
        if self.moves == "md":
            from aims_pax.samplers.kinds.md import MDSampler

            inner = MDSampler(
                context.potential(), lambda s: context.md_of(s).model_copy(update=self.dynamics()),
                self.skip_step or context.skip_step, self.label, context.stop, continues=True,
            )  # fmt: skip
        return MostUncertainSampler(
            surrogate, self.candidates, self.sigma, self.max_sd, inner, self.label, check
        )

    def cost(self, demand: SamplingDemand) -> SamplingCost:
        """MD steps of all candidates."""
        if self.moves == "rattle":
            return SamplingCost()
        return SamplingCost(md_steps=demand.made * self.candidates * (self.skip_step or demand.skip_step))


class MostUncertainSampler:
    """The most uncertain of several candidates.

    candidates: for each structure. sigma: Å, largest standard deviation of displacements. max_sd: eV/Å, see
    `most_uncertain`. inner: makes the candidates; None: labelled structures are rattled. Before the process has learnt
    labels of a system, the first candidate is taken.
    """

    def __init__(
        self,
        surrogate: SurrogatePotential,
        candidates: int,
        sigma: float,
        max_sd: float,
        inner: Any = None,
        name: str = "gpr",
        check: Callable[[], Any] = lambda: None,
    ) -> None:
        self.surrogate, self.candidates, self.sigma, self.max_sd = surrogate, candidates, sigma, max_sd
        self.inner, self.name, self.check = inner, name, check

    def new_labels(self, labelled: Sequence[LabelledFrame]) -> None:
        """Learn these too."""
        self.surrogate.new_labels(labelled)

    def sample(self, systems: Sequence[System], n: int, rng: np.random.Generator) -> Iterator[Sample]:
        """n structures of each system, one of each in turn."""
        made = self._candidates(systems, n * self.candidates, rng)
        for _ in range(n):
            self.check()
            window: dict[str, list[Sample]] = {s.name: [] for s in systems}
            for _ in range(self.candidates * len(systems)):
                sample = next(made)
                window[str(sample.origin["system"])].append(sample)
            for system in systems:
                yield self._chosen(system, window[system.name])

    def _candidates(self, systems: Sequence[System], n: int, rng: np.random.Generator) -> Iterator[Sample]:
        if self.inner is not None:
            yield from self.inner.sample(systems, n, rng)
            return
        # imports featomic's users; settings are read without
        from aims_pax.samplers.surrogate import (
            rattled_sample,
        )

        for _ in range(n):
            for system in systems:
                sigma = self.sigma * float(rng.uniform(0.2, 1.0))
                yield rattled_sample(system, self.surrogate, sigma, self.name, rng)

    def _chosen(self, system: System, window: Sequence[Sample]) -> Sample:
        if not self.surrogate.ready(system.frame):
            return window[0]
        deviations = self.surrogate.deviations([s.frame for s in window])
        k = most_uncertain(deviations.tolist(), self.max_sd)
        chosen = window[k]
        return replace(chosen, origin={**chosen.origin, "deviation": float(deviations[k])})

    def state_arrays(self) -> dict[str, NDArray[Any]]:
        """Trajectories of `inner`; what the process has learnt follows from the labels."""
        return {} if self.inner is None else dict(self.inner.state_arrays())

    def load_state_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Restore the state from `state_arrays`."""
        if self.inner is not None:
            self.inner.load_state_arrays(arrays)


def most_uncertain(deviations: Sequence[float], limit: float) -> int:
    """Index of the largest deviation that is not above the limit; of the smallest one if all are.

    >>> most_uncertain([0.2, 3.0, 0.9], 1.0), most_uncertain([3.0, 2.0], 1.0)
    (2, 1)
    """
    within = [k for k, sd in enumerate(deviations) if sd <= limit]
    if within:
        return max(within, key=lambda k: deviations[k])
    return min(range(len(deviations)), key=lambda k: deviations[k])
