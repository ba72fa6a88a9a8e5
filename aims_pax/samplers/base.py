"""Where structures come from: one shape for all ways to make them.

    for sample in sampler.sample(systems, 10, rng):      # 10 of each system, in turn
        sample.frame, sample.origin                      # and sample.label where the sampler knows it

A new sampler is a class with `name` and `sample`, a line in `_KINDS`, and the contract test in
`tests/samplers/test_base.py`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from aims_pax.errors import AimsPaxError, SettingsError
from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.systems import System


class SamplingError(AimsPaxError):
    """A sampler cannot make structures of a system: names the system and what to do."""


@dataclass(frozen=True)
class Sample:
    """A structure a sampler made, and where it came from.

    label: when the sampler's own forces are the reference's, else None.
    origin: sampler, system, and what the sampler adds (step, temperature, …), as `LabelledFrame` stores it.
    """

    frame: Frame
    label: Label | None = None
    origin: Mapping[str, str | int | float] = field(default_factory=dict)

    def labelled(self, label: Label | None = None) -> LabelledFrame:
        """With its own label, or with the one given."""
        known = label or self.label
        if known is None:
            raise ValueError(f"frame {self.frame.id} has no label")
        return LabelledFrame(self.frame, known, dict(self.origin))


@runtime_checkable
class Sampler(Protocol):
    """Makes new structures of systems."""

    @property
    def name(self) -> str:
        """As it appears in logs and in the frames' origin."""
        ...

    def sample(self, systems: Sequence[System], n: int, rng: np.random.Generator) -> Iterator[Sample]:
        """n structures of each system, interleaved: one of each, again one of each, …

        Composition, charge, spin and fixed atoms stay as the system's; equal `rng`, equal structures.
        """
        ...


@runtime_checkable
class Stateful(Protocol):
    """A sampler or filter that goes on where it was, also in another process: what it remembers, as arrays."""

    def state_arrays(self) -> dict[str, NDArray[Any]]:
        """Everything the next call depends on."""
        ...

    def load_state_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take up what `state_arrays` gave."""
        ...


_KINDS: dict[str, str | Callable[..., Sampler]] = {  # named, not imported: each brings its own libraries
    "md": "aims_pax.samplers.foundation_md:MDSampler",
    "aimd": "aims_pax.samplers.ab_initio_md:AbInitioMDSampler",
    "rattle_tree": "aims_pax.samplers.rattle_tree:RattleTreeSampler",
    "phonons": "aims_pax.samplers.phonons:PhononSampler",
}


def sampler_kinds() -> tuple[str, ...]:
    """The names samplers can be asked for by."""
    return tuple(sorted(_KINDS))


def register(kind: str, make: Callable[..., Sampler]) -> None:
    """Let `make(**settings)` be found under `kind`. Raises ValueError when the name is taken."""
    if kind in _KINDS:
        raise ValueError(f"a sampler called {kind!r} exists already")
    _KINDS[kind] = make


def under(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The arrays whose names begin with `prefix/`, without it."""
    return {k.removeprefix(f"{prefix}/"): a for k, a in arrays.items() if k.startswith(f"{prefix}/")}


def sampler(kind: str, **settings: Any) -> Sampler:
    """The sampler called `kind` with these settings. Raises SettingsError naming the nearest known kind."""
    found = _KINDS.get(kind)
    if found is None:
        near = get_close_matches(kind, _KINDS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sampler_kinds())}"
        raise SettingsError(f"sampler {kind!r} is not known; {hint}")
    if isinstance(found, str):
        module, _, name = found.partition(":")
        found = getattr(importlib.import_module(module), name)
    made: Sampler = found(**settings)
    return made
