"""The interface of samplers, which make structures.

    for sample in sampler.sample(systems, 10, rng):      # 10 of each system, in turn
        sample.frame, sample.origin                      # and sample.label if the sampler knows it

How a sampler becomes a `kind` of the settings is explained in `aims_pax.settings.samplers` and docs/extending.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from aims_pax.errors import AimsPaxError
from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.systems import System


class SamplingError(AimsPaxError):
    """A sampler cannot make structures of a system: names the system and what to do."""


@dataclass(frozen=True)
class Sample:
    """A structure made by a sampler, and its origin.

    label: the label, if the sampler's forces come from the reference, otherwise None.
    origin: sampler, system, and further entries of the sampler (step, temperature, …), stored in `LabelledFrame`.
    """

    frame: Frame
    label: Label | None = None
    origin: Mapping[str, str | int | float] = field(default_factory=dict)

    def labelled(self, label: Label | None = None) -> LabelledFrame:
        """The sample as a LabelledFrame, with the given label or its own. Raises ValueError without a label."""
        known = label or self.label
        if known is None:
            raise ValueError(f"frame {self.frame.id} has no label")
        return LabelledFrame(self.frame, known, dict(self.origin))


@runtime_checkable
class Sampler(Protocol):
    """Makes new structures of systems."""

    @property
    def name(self) -> str:
        """Its name in logs and in the origin of frames."""
        ...

    def sample(self, systems: Sequence[System], n: int, rng: np.random.Generator) -> Iterator[Sample]:
        """n structures of each system, interleaved: one of each, again one of each, …

        Composition, charge, spin, periodicity, initial moments and fixed atoms are those of the system, as with
        `system.frame.moved(positions)`. The same `rng` gives the same structures.
        """
        ...


@runtime_checkable
class Stateful(Protocol):
    """A sampler or filter that can save its state as arrays, and continue after a restart."""

    def state_arrays(self) -> dict[str, NDArray[Any]]:
        """Everything that the next call depends on."""
        ...

    def load_state_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Restore the state that `state_arrays` returned."""
        ...


@runtime_checkable
class LearnsFromLabels(Protocol):
    """A sampler that uses the labels of the run so far."""

    def new_labels(self, labelled: Sequence[LabelledFrame]) -> None:
        """Called before each batch with the labels that this object has not been given yet.

        They are those of the training and validation sets of all members, in the order in which they were added, never
        those of the test set. A restart makes the sampler anew, so its first call then has all of them: what was learnt
        from labels does not belong into `state_arrays`.
        """
        ...


STATE_METHODS = {"state_arrays": "memory", "load_state_arrays": "remember"}  # name → former name


def incomplete_state(thing: object) -> str | None:
    """Why a sampler or filter with a state would lose it in a restart, or None."""
    missing = [name for name in STATE_METHODS if not callable(getattr(thing, name, None))]
    if not missing:
        return None
    kind = type(thing).__name__
    if len(missing) == 1:
        (there,) = STATE_METHODS.keys() - missing
        return f"{kind} has {there}() but no {missing[0]}(); saving a state needs both"
    if all(callable(getattr(thing, old, None)) for old in STATE_METHODS.values()):
        renamed = ", ".join(f"{old}() to {new}()" for new, old in STATE_METHODS.items())
        former = (
            "has the methods for its state under their former names, and would lose its state in a restart"
        )
        return f"{kind} {former}; rename {renamed}"
    return None


Filter = Callable[[Iterable[Sample]], Iterator[Sample]]  # passes on some samples of a stream


def under(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The arrays whose names begin with `prefix/`, with the prefix removed."""
    return {k.removeprefix(f"{prefix}/"): a for k, a in arrays.items() if k.startswith(f"{prefix}/")}
