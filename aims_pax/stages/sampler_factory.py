"""Builds the samplers of the list SAMPLERS, with their filters and potentials, as one `Mixture`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from aims_pax.errors import SettingsError
from aims_pax.potential import Potential
from aims_pax.potentials.named import Potentials, UserPotential, canonical_spec, naming_errors
from aims_pax.sampler import Filter, Sampler, incomplete_state
from aims_pax.samplers.descriptors import Describe, radial
from aims_pax.samplers.mixture import Mixture, Part
from aims_pax.settings.sampler_list import potential_place, sampler_shares, samplers_as_written, spelling_of
from aims_pax.settings.samplers import (
    FilterContext,
    FilterSettings,
    SamplerContext,
    SamplerSettings,
)

if TYPE_CHECKING:
    from aims_pax.settings.project import MDSettings
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
) -> Mixture:
    """The samplers with their shares. Samplers that name the same potential use one instance of it.

    md_of: the section MD of a system. temperature (K) and skip_step (MD steps between two structures): defaults for
    samplers that do not set them.
    dtype: of foundation models; double precision where a sampler needs it.
    reference: the reference of the run, or None. place: of the list in the settings, for errors. Raises SettingsError,
    SetupError.
    """
    exact = {repr(spelling_of(samplers, s)) for s in samplers if s.double_precision}

    def load(double: bool, spelling: Any, place: str) -> Potential:
        precision = "float64" if double or repr(spelling) in exact else dtype
        found = potentials.of(spelling, place, precision)
        return found if isinstance(canonical_spec(spelling), str) else UserPotential(found, place)

    parts = []
    for k, (asked, share, written) in enumerate(
        zip(samplers, sampler_shares(samplers), samplers_as_written(samplers), strict=True)
    ):
        where, spelling = f"{place}.{k}", spelling_of(samplers, asked)
        context = SamplerContext(
            place=where,
            potential=partial(load, asked.double_precision, spelling, potential_place(samplers, k, place)),
            load_potential=partial(load, asked.double_precision),
            md_of=md_of,
            temperature=temperature,
            skip_step=skip_step,
            reference=reference,
            stop=stop,
            folder=potentials.folder,
        )
        made = _sampler(asked, context)
        behind = tuple(
            _filter(f, f"{where}.filters.{i}", partial(potentials.describe, spelling))
            for i, f in enumerate(asked.filters)
        )
        called = tuple(f.kind for f in asked.filters)
        parts.append(Part(f"{k}-{_digest(written, spelling)}", made, share, behind, called))
    return Mixture(parts)


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
