"""phonons: structures displaced along the vibrations of each geometry (`samplers.normal_modes`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from ase.calculators.calculator import CalculatorError
from numpy.typing import NDArray

from aims_pax.errors import Abandoned, LabelError
from aims_pax.frames import Frame
from aims_pax.potential import Potential
from aims_pax.sampler import Sample, Sampler, SamplingError
from aims_pax.samplers.force_constants import force_constants
from aims_pax.samplers.normal_modes import (
    AMPLITUDES,
    IN_SEQUENCE,
    Modes,
    Window,
    displacements,
    modes,
    small_vibrations,
)
from aims_pax.samplers.relax import relax
from aims_pax.settings.augment import OptionalReal
from aims_pax.settings.fields import Flag, Real, key
from aims_pax.settings.samplers import (
    TEMPERATURE,
    SamplerContext,
    SamplerSettings,
    SamplingCost,
    SamplingDemand,
    register_sampler,
)
from aims_pax.settings.training_set import Amplitudes, ModeSelection, OptionalWholes
from aims_pax.systems import System


@register_sampler("phonons")
class PhononSettings(SamplerSettings, ModeSelection):
    """phonons: displacements along the vibrations of each geometry, after a relaxation."""

    prose: ClassVar[str] = (
        "after a relaxation, displacements along all vibrations with thermal amplitudes (extra `crystals`)"
    )
    cost_words: ClassVar[Mapping[str, str]] = {
        "phonon_displacements_at_most": "of phonons at most {} displacements, and a relaxation"
    }
    packages: ClassVar[Mapping[str, str]] = {
        "phonopy": "phonons need phonopy: pip install 'aims-pax[crystals]'"
    }
    double_precision: ClassVar[bool] = True

    temperature: OptionalReal = key(None, "Temperature (K); `None`: that of MD.", **TEMPERATURE)
    freq_min_THz: Real = key(
        0.1,
        "Modes must be faster than this (THz). One that moves an atom by more than 0.5 Å is not harmonic and left out.",
        possible="[0, 1000]",
    )
    freq_max_THz: OptionalReal = key(
        None, "Modes must be slower than this (THz); `None`: all.", possible="(0, 1e4]"
    )
    selected_modes: OptionalWholes = key(
        None, "1-based modes, slowest first; the frequency window is then ignored.", possible="[1, 1000000]"
    )
    amplitudes: Amplitudes = key(
        "gaussian", "`gaussian`: canonical; `uniform`, `time` and `scan` give smaller displacements."
    )
    relaxed: Flag = key(True, "Begin at the nearest minimum of the potential; the cell does not change.")
    fmax: Real = key(1e-3, "Largest force after the relaxation (eV/Å).", possible="(0, 1]")
    distance: Real = key(0.01, "Displacements of the force constants (Å).", possible="(0, 0.5]")

    def oddities(self) -> Iterator[tuple[str, str]]:
        """Also the end of a relaxation that is not made."""
        yield from super().oddities()
        if not self.relaxed:
            yield from self.unused("fmax", "relaxed is False")

    def make(self, context: SamplerContext) -> Sampler:
        """A sampler with the potential of these settings."""
        own = ("freq_min_THz", "freq_max_THz", "selected_modes", "amplitudes", "relaxed", "fmax", "distance")
        keys: dict[str, Any] = {name: getattr(self, name) for name in own}
        return PhononSampler(
            context.potential(), self.temperature or context.temperature,
            name=self.label, stop=context.stop, **keys,
        )  # fmt: skip

    def cost(self, demand: SamplingDemand) -> SamplingCost:
        """Two displacements of each coordinate, fewer with symmetry; the relaxation before them is not counted."""
        atoms = sum(len(system.frame) for system in demand.systems)
        return SamplingCost(once={"phonon_displacements_at_most": 6 * atoms})


class PhononSampler:
    """Structures displaced along the normal modes of each system, at its own Γ point.

    Amplitudes of `time` and `scan` continue where the call before ended.
    A larger cell as the system gives more phonons. temperature: K. window in THz. relaxed: begin at the nearest
    minimum of the potential, cell unchanged, forces below `fmax` (eV/Å). distance: of the finite displacements, Å.
    """

    def __init__(
        self,
        potential: Potential,
        temperature: float = 300.0,
        freq_min_THz: float = 0.1,
        freq_max_THz: float | None = None,
        selected_modes: Sequence[int] | None = None,
        amplitudes: str = "gaussian",
        time_step_fs: float = 100.0,
        relaxed: bool = True,
        fmax: float = 1e-4,
        distance: float = 0.01,
        name: str = "phonons",
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        if amplitudes not in AMPLITUDES:
            raise ValueError(f"amplitudes {amplitudes!r}: expected one of {', '.join(AMPLITUDES)}")
        self.potential, self.temperature, self.name = potential, temperature, name
        self.window = Window(
            freq_min_THz, freq_max_THz, None if selected_modes is None else tuple(selected_modes)
        )
        self.amplitudes, self.time_step = amplitudes, time_step_fs
        self.relaxed, self.fmax, self.distance = relaxed, fmax, distance
        self.stop = stop
        self._found: dict[str, Modes] = {}  # frame id → its modes, computed once
        self._made: Counter[str] = Counter()  # structures of each system, which `time` and `scan` continue

    def sample(self, systems: Sequence[System], n: int, rng: np.random.Generator) -> Iterator[Sample]:
        """n structures of each system, one of each in turn. Raises SamplingError, SetupError without phonopy."""
        found = [self._modes(s) for s in systems] if n else []
        streams = rng.spawn(len(found))
        moving = [
            displacements(
                m, self.temperature, n, r, self.amplitudes, self.time_step, made_before=self._made[s.name]
            )
            for s, m, r in zip(systems if n else (), found, streams, strict=True)
        ]
        for _ in range(n):
            for system, m, u in zip(systems, found, moving, strict=True):
                origin: dict[str, str | int | float] = {
                    "sampler": self.name,
                    "system": system.name,
                    "temperature": float(self.temperature),
                }
                if self.amplitudes in IN_SEQUENCE:
                    self._made[system.name] += 1
                yield Sample(m.frame.moved(m.frame.positions + next(u)), None, origin)

    def state_arrays(self) -> dict[str, NDArray[Any]]:
        """The number of structures of each system; nothing where amplitudes are drawn at random."""
        return {system: np.array(n) for system, n in self._made.items()}

    def load_state_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Restore the state from `state_arrays`."""
        self._made = Counter({system: int(n) for system, n in arrays.items()})

    def _modes(self, system: System) -> Modes:
        if system.frame.id not in self._found:
            try:
                self._found[system.frame.id] = self._worked_out(system.frame)
            except (LabelError, CalculatorError) as error:
                raise SamplingError(
                    f"{system.name}: its vibrations cannot be calculated: {type(error).__name__}: {error}; relax the "
                    "starting structure, or sample with another potential"
                ) from error
        return self._found[system.frame.id]

    def _worked_out(self, frame: Frame) -> Modes:
        if self.relaxed:
            frame = relax(frame, self.potential, fmax=self.fmax, check=self._check)
        constants = force_constants(frame, self.potential, distance=self.distance, check=self._check)
        return small_vibrations(modes(constants, window=self.window), self.temperature)

    def _check(self) -> None:
        if self.stop():
            raise Abandoned
