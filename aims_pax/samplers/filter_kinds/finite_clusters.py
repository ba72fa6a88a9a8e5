"""finite_clusters: cuts molecules and clusters of molecules out of periodic structures (`samplers.clusters`)."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from aims_pax.frames import Frame
from aims_pax.sampler import Filter, Sample, SamplingError, under
from aims_pax.samplers.clusters import Cluster, Rule, choose_clusters
from aims_pax.settings.fields import key
from aims_pax.settings.samplers import FilterContext, FilterKeys, register_filter
from aims_pax.settings.training_set import FiniteSubsystemFilter, Wholes

log = logging.getLogger(__name__)


@register_filter("finite_clusters")
class ClustersSettings(FilterKeys, FiniteSubsystemFilter):
    """finite_clusters: cuts molecules and clusters of molecules out of periodic structures."""

    prose: ClassVar[str] = "everything but molecules and clusters of them, cut out of a periodic structure"

    n_molecules: Wholes = key(
        (1, 2, 3, 4), "Molecules in each cluster, for the `closest_to_…` rules.", possible="[1, 1000000]"
    )

    def make(self, context: FilterContext) -> Filter:
        """A filter that chooses the molecules at the first structure."""
        return FiniteClusters(**dict(self))

    @model_validator(mode="after")
    def _has_distances(self) -> ClustersSettings:
        if self.selection_rule.startswith("max_") and not self.distances:
            raise ValueError(f"{self.selection_rule} needs distances (Å)")
        return self


class FiniteClusters:
    """A filter that turns periodic samples into their finite clusters; the first sample of a kind is its reference.

    rule: the fields of `Rule`. Samples whose molecules reacted are left out. Labels are removed.
    Raises SamplingError like `choose_clusters`, and for structures without a cluster of any requested size.
    """

    def __init__(self, **rule: object) -> None:
        self.rule = Rule(**rule)  # type: ignore[arg-type]
        self._references: dict[Hashable, Frame] = {}
        self._chosen: dict[Hashable, list[Cluster]] = {}

    def __call__(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        for sample in samples:
            chosen = self._clusters(sample)
            frame = sample.frame
            try:
                whole = chosen[0].system.whole(frame)
            except SamplingError as error:
                log.warning("%s", error)
                continue
            for cluster in chosen:
                yield Sample(cluster.cut(frame, whole), None, {**sample.origin, "cluster": cluster.key})

    def _clusters(self, sample: Sample) -> list[Cluster]:
        kind = (str(sample.origin.get("system")), sample.frame.numbers.tobytes())
        if kind not in self._chosen:
            reference = self._references.setdefault(kind, sample.frame)
            self._chosen[kind] = choose_clusters(reference, self.rule)
            if not self._chosen[kind]:
                raise SamplingError(
                    f"{reference.formula}: too few molecules for clusters of {self.rule.n_molecules}; lower "
                    "n_molecules, or give a larger cell"
                )
        return self._chosen[kind]

    def state_arrays(self) -> dict[str, NDArray[Any]]:
        """The reference frames."""
        found: dict[str, NDArray[Any]] = {}
        for k, (kind, frame) in enumerate(self._references.items()):
            found |= {f"{k}/{name}": a for name, a in frame.arrays().items()}
            found[f"{k}/system"] = np.array(kind[0])  # type: ignore[index]
        return found

    def load_state_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Restore the state from `state_arrays`."""
        self._references, self._chosen = {}, {}
        for k in dict.fromkeys(name.partition("/")[0] for name in arrays):
            mine = under(k, arrays)
            system = str(mine.pop("system"))
            frame = Frame.from_arrays(mine)
            self._references[system, frame.numbers.tobytes()] = frame


def finite_clusters(**rule: object) -> FiniteClusters:
    """`FiniteClusters` with the fields of `Rule`."""
    return FiniteClusters(**rule)
