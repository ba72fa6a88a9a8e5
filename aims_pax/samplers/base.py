"""Create samplers in Python by their kind and keys, as in the settings.

>>> from ase.calculators.emt import EMT
>>> from aims_pax.potential import CalculatorPotential
>>> trees = sampler("rattle_tree", CalculatorPotential(EMT), temperature=500, sigma_range=[0.05, 0.2])
>>> trees.name, trees.rattling.sigma_range
('rattle_tree', (0.05, 0.2))
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from aims_pax.errors import SettingsError
from aims_pax.potential import Potential
from aims_pax.sampler import Sample, Sampler, SamplingError, Stateful
from aims_pax.settings.md import MDSettings
from aims_pax.settings.messages import in_words
from aims_pax.settings.samplers import (
    KINDS,
    OwnSamplerSettings,
    SamplerContext,
    SamplerSettings,
    register_sampler,
)
from aims_pax.suggestions import nearest

__all__ = ["Sample", "Sampler", "SamplingError", "Stateful", "register", "sampler", "sampler_kinds"]


def sampler_kinds() -> tuple[str, ...]:
    """The known kinds of samplers."""
    return tuple(sorted(KINDS))


def sampler(
    kind: str,
    potential: Potential | None = None,
    *,
    reference: Potential | None = None,
    md: MDSettings | None = None,
    skip_step: int = 25,
    stop: Callable[[], bool] = lambda: False,
    **keys: Any,
) -> Sampler:
    """The sampler of this kind, with the same keys as in `SAMPLERS`.

    potential: moves or displaces the structures. reference: labels structures, if the kind needs it. md: the section
    MD, NVT at 300 K by default. skip_step: MD steps between two structures, unless the keys set it. stop: when it
    returns True, the sampler raises Abandoned.
    Raises SettingsError for an unknown kind (naming the nearest) or a wrong key.
    """
    section, md = _settings(kind, keys), md or MDSettings(stat_ensemble="NVT")
    if reference is None and (text := section.without_reference()):
        raise SettingsError(text)
    temperature = md.temperature[0] if isinstance(md.temperature, tuple) else md.temperature

    def given(*_: Any) -> Potential:
        if potential is None:
            raise SettingsError(f"sampler {kind!r} needs a potential")
        return potential

    context = SamplerContext(
        kind, given, given, lambda system: md, temperature, skip_step, reference, stop, Path.cwd()
    )
    return section.make(context)


def _settings(kind: str, keys: dict[str, Any]) -> SamplerSettings:
    model = OwnSamplerSettings if ":" in kind else KINDS.get(kind)
    if model is None:
        near = nearest(kind, KINDS)
        hint = f"did you mean {near!r}?" if near else f"known: {', '.join(sampler_kinds())}"
        raise SettingsError(f"sampler {kind!r} is not known; {hint}")
    try:
        return model.model_validate({"kind": kind, **keys})
    except ValidationError as error:
        wrong = [
            f"{'.'.join(map(str, detail['loc']))}: {in_words(detail, model)}" for detail in error.errors()
        ]
        raise SettingsError(f"sampler {kind!r}: {'; '.join(wrong)}") from error


def register(kind: str, make: Callable[..., Sampler]) -> None:
    """Register `make(**kwargs)` as a new kind, like `register_sampler`. Raises ValueError when the kind exists."""
    register_sampler(kind)(make)
