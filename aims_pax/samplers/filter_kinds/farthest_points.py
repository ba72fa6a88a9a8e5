"""farthest_points: selects the structures that differ most from one another and from earlier ones."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterable, Iterator
from math import ceil
from typing import ClassVar

import numpy as np

from aims_pax.sampler import Filter, Sample
from aims_pax.samplers.descriptors import Describe, farthest_points, radial
from aims_pax.samplers.filters import Described
from aims_pax.settings.fields import Whole, key
from aims_pax.settings.samplers import Descriptor, FilterContext, FilterKeys, register_filter

log = logging.getLogger(__name__)


@register_filter("farthest_points")
class FarthestSettings(FilterKeys):
    """farthest_points: selects the structures that differ most from one another and from those that passed before."""

    prose: ClassVar[str] = (
        "of every `of` structures all but one: those that are farthest from one another in descriptor space remain"
    )

    of: Whole = key(
        5,
        "Number of structures made for each one that passes.",
        possible="[1, 100000]",
        plausible="[2, 1000]",
    )
    descriptor: Descriptor = key("radial", "As for `duplicates`.")

    def make(self, context: FilterContext) -> Filter:
        """A filter that stores the descriptors of the structures that passed."""
        return Farthest(self.of, context.describe(self.descriptor))

    def needed(self, n: float) -> float:
        """`of` times as many."""
        return n * self.of


class Farthest(Described):
    """Passes one of every `of` structures of a system: those farthest from one another and from all that passed before,
    in descriptor space (`farthest_points`). It reads the whole stream before it passes any."""

    def __init__(self, of: int = 5, describe: Describe = radial) -> None:
        if of < 1:
            raise ValueError(f"of {of}: expected at least 1")
        super().__init__(describe)
        self.of = of

    def __call__(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        given = list(samples)
        groups: dict[Hashable, list[int]] = {}
        for k, sample in enumerate(given):
            groups.setdefault(sample.frame.constitution, []).append(k)
        selected: set[int] = set()
        for group in groups.values():
            frames = [given[k].frame for k in group]
            known, points = self._known(frames[0]), self.describe(frames)
            chosen = farthest_points(points, ceil(len(group) / self.of), np.array(known) if known else None)
            known += [points[c] for c in chosen]
            selected |= {group[c] for c in chosen}
        if given:
            log.debug(
                "filter farthest_points: %d of %d structures removed", len(given) - len(selected), len(given)
            )
        yield from (sample for k, sample in enumerate(given) if k in selected)

    def wants(self, n: int, system: str) -> int:
        """`of` times as many."""
        return n * self.of


farthest_filter = Farthest
