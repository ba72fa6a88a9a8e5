"""sanity: removes structures with overlapping atoms, infinite positions or too large forces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar

import numpy as np

from aims_pax.sampler import Filter, Sample
from aims_pax.samplers.filters import those_passing
from aims_pax.samplers.similarity import closer_than
from aims_pax.settings.fields import Real, key
from aims_pax.settings.samplers import FilterContext, FilterKeys, register_filter


@register_filter("sanity")
class SanitySettings(FilterKeys):
    """sanity: removes structures with overlapping atoms, infinite positions or too large forces."""

    prose: ClassVar[str] = (
        "atoms closer than `min_separation`, and, where the sampler is the reference, forces above `max_force`"
    )

    min_separation: Real = key(
        0.5, "Smallest distance of two atoms (Å).", unit="Å", possible="[0, 10]", plausible="[0, 5]"
    )
    max_force: Real = key(
        float("inf"),
        "Largest force on an atom (eV/Å), where the sampler is the reference.",
        possible="(0, inf]",
    )

    def make(self, context: FilterContext) -> Filter:
        """A filter without a state."""
        return sanity(self.min_separation, self.max_force)


def sanity(min_separation: float = 0.5, max_force: float = np.inf) -> Filter:
    """Passes structures with finite positions, no pair of atoms closer than `min_separation` (Å), and no force of the
    sample's own label above `max_force` (eV/Å)."""

    def passes(sample: Sample) -> bool:
        frame, label = sample.frame, sample.label
        if not (np.isfinite(frame.positions).all() and np.isfinite(frame.cell).all()):
            return False
        if label is not None and not np.linalg.norm(label.forces, axis=1).max() <= max_force:
            return False
        return not closer_than(frame, min_separation)

    def run(samples: Iterable[Sample]) -> Iterator[Sample]:
        return those_passing("sanity", passes, samples)

    return run
