"""duplicates: removes structures similar to an earlier one of the same geometry and sampler."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from aims_pax.frames import Frame
from aims_pax.sampler import Filter, Sample, under
from aims_pax.samplers.descriptors import Describe, distances, radial
from aims_pax.samplers.filters import Described, first_parts, those_passing
from aims_pax.samplers.similarity import StructurePool
from aims_pax.settings.augment import OptionalReal
from aims_pax.settings.fields import Kind, key, one_of
from aims_pax.settings.samplers import Descriptor, FilterContext, FilterKeys, register_filter

By = Annotated[str, one_of("geometry", "descriptor"), Kind("`str`")]


@register_filter("duplicates")
class DuplicatesSettings(FilterKeys):
    """duplicates: removes structures similar to an earlier one of the same geometry and sampler."""

    prose: ClassVar[str] = (
        "structures similar to an earlier one: by `geometry` (mean displacement, minimum image) or by `descriptor` "
        "(also when rotated or renumbered)"
    )

    by: By = key(
        "geometry",
        "`geometry`: mean displacement of the atoms, minimum image; `descriptor`: distance of descriptors, for which "
        "rotated or renumbered structures are the same.",
    )
    threshold: OptionalReal = key(
        None, "Å, default 0.1, or the descriptor's unit, default 0.05.", possible="(0, 1000]"
    )
    descriptor: Descriptor = key(
        "radial",
        "`radial`: built in, sorted radial histograms of the elements; `mace`: features of the MACE model that is this "
        "sampler's potential.",
    )

    def oddities(self) -> Iterator[tuple[str, str]]:
        """Also reports a descriptor that has no effect."""
        yield from super().oddities()
        if self.by == "geometry" and self.descriptor != "radial":
            yield "descriptor", "has no effect: by is geometry; write by: descriptor, or leave it out"

    def make(self, context: FilterContext) -> Filter:
        """A filter that stores the structures that passed."""
        if self.by == "geometry":
            return duplicates(self.threshold)
        return duplicates(self.threshold, self.by, context.describe(self.descriptor))


class DuplicateFilter:
    """Passes only the first of several similar structures of one system: it removes those whose atoms are on average
    displaced by less than `threshold` (Å, minimum image) from an earlier one.

    Systems are distinguished by their composition; cells need not be equal.
    """

    def __init__(self, threshold: float = 0.1) -> None:
        self.threshold = threshold
        self._pools: dict[Hashable, StructurePool] = {}

    def __call__(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        return those_passing("duplicates", self._passes, samples)

    def _passes(self, sample: Sample) -> bool:
        frame = sample.frame
        pool = self._pools.setdefault(frame.constitution, StructurePool(frame, self.threshold))
        if pool.holds_like(frame):
            return False
        pool.add(frame)
        return True

    def state_arrays(self) -> dict[str, NDArray[Any]]:
        """The structures that passed."""
        found: dict[str, NDArray[Any]] = {}
        for k, pool in enumerate(self._pools.values()):
            found |= {f"{k}/reference/{name}": a for name, a in pool.reference.arrays().items()}
            found |= {f"{k}/pool/{name}": a for name, a in pool.state_arrays().items()}
        return found

    def load_state_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Restore the state from `state_arrays`."""
        self._pools = {}
        for k in first_parts(arrays):
            reference = Frame.from_arrays(under(f"{k}/reference", arrays))
            pool = self._pools[reference.constitution] = StructurePool(reference, self.threshold)
            pool.load_state_arrays(under(f"{k}/pool", arrays))


class NewByDescriptor(Described):
    """Passes structures whose descriptor is at least `threshold` (in the descriptor's unit) away from those of all
    earlier ones of the system; rotations and permutations make no difference."""

    def __init__(self, threshold: float = 0.05, describe: Describe = radial) -> None:
        super().__init__(describe)
        self.threshold = threshold

    def __call__(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        return those_passing("duplicates", self._passes, samples)

    def _passes(self, sample: Sample) -> bool:
        known = self._known(sample.frame)
        point = self.describe([sample.frame])[0]
        if known and distances(np.array(known), point).min() < self.threshold:
            return False
        known.append(point)
        return True


def duplicates(threshold: float | None = None, by: str = "geometry", describe: Describe = radial) -> Filter:
    """`DuplicateFilter` (by `geometry`, 0.1 Å) or `NewByDescriptor` (by `descriptor`, 0.05).

    Raises ValueError for another `by`.
    """
    if by == "geometry":
        return DuplicateFilter() if threshold is None else DuplicateFilter(threshold)
    if by == "descriptor":
        return (
            NewByDescriptor(describe=describe) if threshold is None else NewByDescriptor(threshold, describe)
        )
    raise ValueError(f"by {by!r}: expected geometry or descriptor")
