"""Builds the samplers of the list SAMPLERS, with their filters and potentials, as one `Mixture`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from aims_pax.errors import Abandoned, SettingsError
from aims_pax.models.gp.soap import require_featomic
from aims_pax.potential import Potential
from aims_pax.potentials.named import (
    Potentials,
    UserPotential,
    canonical_spec,
    moves_light,
    naming_errors,
    user_calculator,
)
from aims_pax.sampler import Filter, Sampler, incomplete_state
from aims_pax.samplers.descriptors import Describe, radial
from aims_pax.samplers.mixture import Mixture, Part
from aims_pax.samplers.surrogate import SurrogateDriven, SurrogatePotential, labelled_file
from aims_pax.settings.augment import CallSpec, called
from aims_pax.settings.sampler_list import potential_place, sampler_shares, samplers_as_written, spelling_of
from aims_pax.settings.samplers import (
    SURROGATE,
    FilterContext,
    FilterSettings,
    SamplerContext,
    SamplerSettings,
    SurrogateKeys,
    as_surrogate,
)

if TYPE_CHECKING:  # torch is imported late
    from aims_pax.md import MDOutcome, MDState
    from aims_pax.parallel.calculator_dynamics import CalculatorDynamics
    from aims_pax.settings.md import MDSettings
    from aims_pax.systems import System


def mixture(
    samplers: Sequence[SamplerSettings],
    md_of: Callable[[System], MDSettings],
    temperature: float,
    skip_step: int,
    potentials: Potentials,
    stop: Callable[[], bool],
    dtype: str = "float32",
    reference: Potential | None = None,
    place: str = "SAMPLERS",
    dynamics: CalculatorDynamics | None = None,
) -> Mixture:
    """The samplers with their shares. Samplers that name the same potential use one instance of it.

    md_of: the section MD of a system. temperature (K) and skip_step (MD steps between two structures): defaults for
    samplers that do not set them.
    dtype: of foundation models; double precision where a sampler needs it.
    reference: the reference of the run, or None. place: of the list in the settings, for errors. dynamics: processes
    that move trajectories with light calculators; None: this process. Raises SettingsError, SetupError.
    """
    loader = _Loader(samplers, potentials, dtype, stop)
    parts = []
    for k, (asked, share, written) in enumerate(
        zip(samplers, sampler_shares(samplers), samplers_as_written(samplers), strict=True)
    ):
        where, spelling = f"{place}.{k}", spelling_of(samplers, asked)
        own = _OwnPotential(loader, asked, spelling, potential_place(samplers, k, place))
        context = SamplerContext(
            place=where,
            potential=own,
            load_potential=partial(loader.load, asked.double_precision),
            md_of=md_of,
            temperature=temperature,
            skip_step=skip_step,
            reference=reference,
            stop=stop,
            folder=potentials.folder,
            advance=None if dynamics is None else partial(own.advance, dynamics),
        )
        made = _sampler(asked, context)
        if isinstance(own.used, SurrogatePotential):
            made = SurrogateDriven(made, own.used)
        behind = tuple(
            _filter(f, f"{where}.filters.{i}", partial(loader.describe, spelling))
            for i, f in enumerate(asked.filters)
        )
        called = tuple(f.kind for f in asked.filters)
        parts.append(Part(f"{k}-{_digest(written, spelling)}", made, share, behind, called))
    return Mixture(parts)


class _Loader:
    """Loads each potential of a list of samplers once."""

    def __init__(
        self,
        samplers: Sequence[SamplerSettings],
        potentials: Potentials,
        dtype: str,
        stop: Callable[[], bool],
    ) -> None:
        self.potentials, self.dtype, self.stop = potentials, dtype, stop
        self.exact = {repr(spelling_of(samplers, s)) for s in samplers if s.double_precision}
        self.surrogates: dict[str, SurrogatePotential] = {}

    def load(self, double: bool, spelling: Any, place: str) -> Potential:
        """double: in double precision. place: of the key, for errors. Raises SettingsError, SetupError."""
        if (keys := as_surrogate(spelling)) is not None:
            if repr(spelling) not in self.surrogates:
                self.surrogates[repr(spelling)] = self._surrogate(keys, place)
            return self.surrogates[repr(spelling)]
        precision = "float64" if double or repr(spelling) in self.exact else self.dtype
        found = self.potentials.of(spelling, place, precision)
        return found if isinstance(canonical_spec(spelling), str) else UserPotential(found, place)

    def describe(self, spelling: Any, place: str) -> Describe:
        """MACE features for filters. Raises SettingsError for a potential that is not a MACE model."""
        if as_surrogate(spelling) is not None:
            raise SettingsError(
                f"{place}: descriptor: mace needs a MACE model, not {SURROGATE}; set descriptor: radial"
            )
        return self.potentials.describe(spelling, place)

    def _surrogate(self, keys: SurrogateKeys, place: str) -> SurrogatePotential:
        def check() -> None:
            if self.stop():
                raise Abandoned

        require_featomic()
        baseline = (
            None if keys.baseline is None else self.load(False, keys.baseline, f"{place}.kwargs.baseline")
        )
        given = labelled_file(self.potentials.folder, keys.data, f"{place}.kwargs.data")
        return SurrogatePotential(baseline, given, check)


class _OwnPotential:
    """The potential of a sampler, loaded when it is asked for. used: it, or None for a sampler that needs none."""

    def __init__(self, loader: _Loader, asked: SamplerSettings, spelling: Any, place: str) -> None:
        self.loader, self.asked, self.spelling, self.place = loader, asked, spelling, place
        self.used: Potential | None = None
        self._light: bool | None = None

    def __call__(self) -> Potential:
        self.used = self.loader.load(self.asked.double_precision, self.spelling, self.place)
        return self.used

    def advance(
        self,
        dynamics: CalculatorDynamics,
        states: Sequence[MDState],
        potential: Potential,
        *steps: Any,
        **how: Any,
    ) -> list[MDOutcome]:
        """`md.advance`, in several processes if its calculator is light."""
        from aims_pax.md import advance

        if self._light is None:
            self._light = moves_light(potential)
        spec = canonical_spec(self.spelling) if self._light else None
        if not isinstance(spec, CallSpec):
            return advance(states, potential, *steps, **how)
        make = partial(user_calculator, spec, self.loader.potentials.folder, self.place)
        return dynamics.advance(make, called(spec), states, potential, *steps, **how)


def _sampler(asked: SamplerSettings, context: SamplerContext) -> Sampler:
    """The sampler of one entry. Raises SettingsError, SetupError with the key."""
    place = f"{context.place}.kind"
    if context.reference is None and (text := asked.without_reference()):
        raise SettingsError(f"{place}: {text}")
    with naming_errors(place):
        made = asked.make(context)
    if not isinstance(made, Sampler):
        raise SettingsError(f"{place}: {asked.kind} returned a {type(made).__name__}, which is not a sampler")
    if text := incomplete_state(made):
        raise SettingsError(f"{place}: {text}")
    return made


def _filter(asked: FilterSettings, place: str, features: Callable[[str], Describe]) -> Filter:
    """The filter of one entry. features: makes MACE features; its argument is the key for error messages."""
    with naming_errors(place):
        made = asked.settings.make(FilterContext(place, partial(features, place), radial))
    if text := incomplete_state(made):
        raise SettingsError(f"{place}: {text}")
    return made


def _digest(written: dict[str, Any], spelling: Any) -> str:
    """Identifies a sampler's stored state: a hash of all its settings but the share."""
    said = json.dumps(
        [{k: v for k, v in written.items() if k != "share"}, spelling], sort_keys=True, default=repr
    )
    return hashlib.sha256(said.encode()).hexdigest()[:8]
