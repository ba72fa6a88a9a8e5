"""What is taken away from the structures a sampler makes: filters, one behind the other.

A filter is a function of a stream of samples; what it lets pass keeps its order and comes as it is made.

>>> from aims_pax.samplers.base import Sample
>>> from aims_pax.frames import Frame
>>> far, near = Frame([1, 1], [[0, 0, 0], [0.8, 0, 0]]), Frame([1, 1], [[0, 0, 0], [0.2, 0, 0]])
>>> again = Frame([1, 1], [[0, 0, 0], [0.81, 0, 0]])
>>> passed = filtered([Sample(far), Sample(near), Sample(again)], sane(), new(threshold=0.1))
>>> [sample.frame == far for sample in passed]
[True]
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any

import numpy as np

from aims_pax.errors import SettingsError
from aims_pax.frames import Frame
from aims_pax.samplers.base import Sample
from aims_pax.samplers.clusters import finite_clusters
from aims_pax.samplers.similarity import Pool, closer_than
from aims_pax.settings.base import nearest

log = logging.getLogger(__name__)

Filter = Callable[[Iterable[Sample]], Iterator[Sample]]


def filtered(samples: Iterable[Sample], *filters: Filter) -> Iterator[Sample]:
    """The samples that every filter lets pass; the first filter sees them first."""
    for each in filters:
        samples = each(samples)
    return iter(samples)


def sane(min_separation: float = 0.5, max_force: float = np.inf) -> Filter:
    """Finite positions, no pair of atoms closer than `min_separation` (Å), no force of a sample's own label above
    `max_force` (eV/Å)."""

    def passes(sample: Sample) -> bool:
        frame, label = sample.frame, sample.label
        if not (np.isfinite(frame.positions).all() and np.isfinite(frame.cell).all()):
            return False
        if label is not None and not np.linalg.norm(label.forces, axis=1).max() <= max_force:
            return False
        return not closer_than(frame, min_separation)

    return _each("sanity", passes)


def new(threshold: float = 0.1) -> Filter:
    """Nothing like an earlier structure of the same system: mean displacement below `threshold` (Å), minimum image.

    Systems are told apart by what they consist of; cells need not be equal.
    """
    pools: dict[Hashable, Pool] = {}

    def passes(sample: Sample) -> bool:
        frame = sample.frame
        pool = pools.setdefault(_kind(frame), Pool(frame, threshold))
        if pool.holds_like(frame):
            return False
        pool.add(frame)
        return True

    return _each("duplicates", passes)


_KINDS: dict[str, Callable[..., Filter]] = {
    "sanity": sane,
    "duplicates": new,
    "finite_clusters": finite_clusters,
}


def make(kind: str, **settings: Any) -> Filter:
    """The filter called `kind` (sanity, duplicates, finite_clusters).

    Raises SettingsError for an unknown one or a wrong setting.
    """
    if kind not in _KINDS:
        near = nearest(kind, _KINDS)
        raise SettingsError(
            f"filter {kind!r} is not known; " + (f"nearest: {near}" if near else f"known: {known()}")
        )
    try:
        return _KINDS[kind](**settings)
    except TypeError as error:
        raise SettingsError(f"filter {kind}: {error}") from error


def known() -> str:
    """The kinds of filters, for messages."""
    return ", ".join(sorted(_KINDS))


def _each(name: str, passes: Callable[[Sample], bool]) -> Filter:
    """A filter that looks at one sample after the other and says at the end what it kept."""

    def run(samples: Iterable[Sample]) -> Iterator[Sample]:
        counts: Counter[bool] = Counter()
        for sample in samples:
            passed = passes(sample)
            counts[passed] += 1
            if passed:
                yield sample
        if counts[False]:
            log.info("filter %s: %d of %d structures removed", name, counts[False], counts.total())

    return run


def _kind(frame: Frame) -> Hashable:
    fixed = b"" if frame.fixed is None else frame.fixed.tobytes()
    return frame.numbers.tobytes(), frame.pbc.tobytes(), frame.charge, frame.spin, fixed
