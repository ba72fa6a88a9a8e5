"""The samplers a list SAMPLERS asks for, with their filters and potentials, as one `Mixture`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aims_pax.errors import SettingsError
from aims_pax.potential import Potential, load_factory
from aims_pax.potentials.named import Potentials, UserPotential, canonical_spec, naming_errors
from aims_pax.samplers import filters
from aims_pax.samplers.base import Sampler, sampler
from aims_pax.samplers.filters import Filter
from aims_pax.samplers.mixture import Mixture, Part
from aims_pax.settings.sampler_list import potential_place, sampler_shares, samplers_as_written, spelling_of
from aims_pax.settings.samplers import (
    DuplicatesSettings,
    FarthestSettings,
    MDSamplerSettings,
    OwnSamplerSettings,
    PhononSettings,
    RattleTreeSettings,
    SamplerSettings,
    SanitySettings,
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
) -> Mixture:
    """The samplers in their shares. All that name the same potential share one.

    md_of: the section MD of a system. temperature: K, and skip_step: MD steps between two structures, where a sampler
    says none.
    dtype: of foundation models; in double precision where phonons need second derivatives.
    reference: what moves the atoms of `aimd`. Raises SettingsError, SetupError.
    """
    exact = {repr(spelling_of(samplers, s)) for s in samplers if isinstance(s, PhononSettings)}
    parts = []
    for k, (asked, share, written) in enumerate(
        zip(samplers, sampler_shares(samplers), samplers_as_written(samplers), strict=True)
    ):
        where, spelling = f"SAMPLERS.{k}", spelling_of(samplers, asked)

        def potential(place: str = potential_place(samplers, k), spelling: Any = spelling) -> Potential:
            precision = "float64" if repr(spelling) in exact else dtype
            found = potentials.of(spelling, place, precision)
            return found if isinstance(canonical_spec(spelling), str) else UserPotential(found, place)

        made = _sampler(
            asked, where, md_of, temperature, skip_step, potential, potentials.folder, stop, reference
        )
        behind = tuple(
            _filter(f.kind, f.settings, f"{where}.filters.{i}", potentials, spelling)
            for i, f in enumerate(asked.filters)
        )
        called = tuple(f.kind for f in asked.filters)
        parts.append(Part(f"{k}-{_digest(written, spelling)}", made, share, behind, called))
    return Mixture(parts)


def _sampler(
    asked: SamplerSettings,
    where: str,
    md_of: Callable[[System], MDSettings],
    temperature: float,
    skip_step: int,
    potential: Callable[[], Potential],
    folder: Path,
    stop: Callable[[], bool],
    reference: Potential | None,
) -> Sampler:
    def md(system: System) -> MDSettings:
        assert isinstance(asked, MDSamplerSettings)
        return md_of(system).model_copy(update=asked.dynamics())

    if isinstance(asked, MDSamplerSettings):
        if asked.kind == "aimd" and reference is None:
            raise SettingsError(
                f"{where}.kind: aimd needs the reference of a run; write kind: md, and the calculator as its potential"
            )
        return sampler(
            asked.kind, potential=reference if asked.kind == "aimd" else potential(), md_of=md,
            skip_steps=asked.skip_step or skip_step, name=asked.label, stop=stop, continues=True,
        )  # fmt: skip
    if isinstance(asked, RattleTreeSettings):
        return sampler(
            "rattle_tree", potential=potential(), name=asked.label, stop=stop, continues=True,
            temperature=asked.temperature or temperature, **asked.rattling(),
        )  # fmt: skip
    if isinstance(asked, PhononSettings):
        names = (
            "freq_min_THz",
            "freq_max_THz",
            "selected_modes",
            "amplitudes",
            "relaxed",
            "fmax",
            "distance",
        )
        return sampler(
            "phonons", potential=potential(), name=asked.label, stop=stop,
            temperature=asked.temperature or temperature, **{n: getattr(asked, n) for n in names},
        )  # fmt: skip
    assert isinstance(asked, OwnSamplerSettings)
    arguments = dict(asked.kwargs) | ({} if asked.potential is None else {"potential": potential()})
    try:
        with naming_errors(f"{where}.kind", (TypeError,)):
            own = load_factory(asked.kind, folder)(**arguments)
    except SettingsError as error:
        raise SettingsError(f"{where}.kind: {error}") from error
    except TypeError as error:
        raise SettingsError(f"{where}.kwargs: {asked.kind}: {error}") from error
    if not isinstance(own, Sampler):
        raise SettingsError(f"{where}.kind: {asked.kind} gave a {type(own).__name__}, which is no sampler")
    return own


def _filter(kind: str, settings: Any, where: str, potentials: Potentials, spelling: Any) -> Filter:
    if isinstance(settings, SanitySettings):
        return filters.sanity(settings.min_separation, settings.max_force)
    keys = {name: value for name, value in settings if name != "descriptor"}
    if isinstance(settings, DuplicatesSettings | FarthestSettings):
        by_geometry = isinstance(settings, DuplicatesSettings) and settings.by == "geometry"
        if settings.descriptor == "mace" and not by_geometry:
            keys["describe"] = potentials.describe(spelling, where)
    try:
        return filters.make_filter(kind, **keys)
    except SettingsError as error:
        raise SettingsError(f"{where}: {error}") from error


def _digest(written: dict[str, Any], spelling: Any) -> str:
    """What a sampler's memory belongs to: everything but its share."""
    said = json.dumps(
        [{k: v for k, v in written.items() if k != "share"}, spelling], sort_keys=True, default=repr
    )
    return hashlib.sha256(said.encode()).hexdigest()[:8]
