"""equilibration: discards the beginning of each trajectory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from aims_pax.sampler import Filter, Sample
from aims_pax.samplers.filters import those_passing
from aims_pax.settings.fields import Whole, key
from aims_pax.settings.samplers import FilterContext, FilterKeys, register_filter


@register_filter("equilibration")
class EquilibrationSettings(FilterKeys):
    """equilibration: discards the beginning of each trajectory."""

    prose: ClassVar[str] = "the first `skip` structures of each trajectory, once"

    skip: Whole = key(
        10,
        "Number of structures of each geometry that are discarded, once, at the beginning.",
        possible="[0, 1000000]",
    )

    def make(self, context: FilterContext) -> Filter:
        """A filter that counts the structures of each system."""
        return Equilibrated(self.skip)

    def needed(self, n: float) -> float:
        """n, plus the discarded ones."""
        return n + self.skip


class Equilibrated:
    """Discards the first `skip` structures of each system, once: the beginning of its trajectory."""

    def __init__(self, skip: int) -> None:
        if skip < 0:
            raise ValueError(f"skip {skip}: expected at least 0")
        self.skip = skip
        self._seen: Counter[str] = Counter()

    def __call__(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        return those_passing("equilibration", self._passes, samples)

    def _passes(self, sample: Sample) -> bool:
        system = str(sample.origin.get("system", ""))
        self._seen[system] += 1
        return self._seen[system] > self.skip

    def wants(self, n: int, system: str) -> int:
        """n, plus the structures that are still to be discarded."""
        return n + max(0, self.skip - self._seen[system])

    def state_arrays(self) -> dict[str, NDArray[Any]]:
        """The number of structures seen of each system."""
        return {system: np.array(n) for system, n in self._seen.items()}

    def load_state_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Restore the state from `state_arrays`."""
        self._seen = Counter({system: int(n) for system, n in arrays.items()})


equilibration = Equilibrated
