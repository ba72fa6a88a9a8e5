"""What is taken away from the structures a sampler makes: filters, one behind the other.

A filter is a function of a stream of samples; what it lets pass keeps its order and, but for `farthest`, comes as it
is made. One that remembers what it saw serves many streams of one run, also after a restart (`Stateful`). `wants`
says how many structures of a system it has to be given for n to pass.

>>> from aims_pax.sampler import Sample
>>> from aims_pax.frames import Frame
>>> far, near = Frame([1, 1], [[0, 0, 0], [0.8, 0, 0]]), Frame([1, 1], [[0, 0, 0], [0.2, 0, 0]])
>>> again = Frame([1, 1], [[0, 0, 0], [0.81, 0, 0]])
>>> passed = filtered([Sample(far), Sample(near), Sample(again)], sanity(), duplicates(threshold=0.1))
>>> [sample.frame == far for sample in passed]
[True]
>>> stretched = [Sample(Frame([1, 1], [[0, 0, 0], [d, 0, 0]])) for d in (0.7, 0.71, 0.72, 0.9, 0.91, 1.3)]
>>> [float(s.frame.positions[1, 0]) for s in filtered(stretched, farthest_filter(of=3))]
[0.7, 1.3]
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aims_pax.errors import SettingsError
from aims_pax.frames import Array, Frame
from aims_pax.sampler import Sample, under
from aims_pax.samplers.clusters import finite_clusters
from aims_pax.samplers.descriptors import Describe, distances, farthest_points, radial
from aims_pax.samplers.similarity import StructurePool, closer_than
from aims_pax.suggestions import nearest

log = logging.getLogger(__name__)

Filter = Callable[[Iterable[Sample]], Iterator[Sample]]


def filtered(samples: Iterable[Sample], *filters: Filter) -> Iterator[Sample]:
    """The samples that every filter lets pass; the first filter sees them first."""
    for each in filters:
        samples = each(samples)
    return iter(samples)


def sanity(min_separation: float = 0.5, max_force: float = np.inf) -> Filter:
    """Finite positions, no pair of atoms closer than `min_separation` (Å), no force of a sample's own label above
    `max_force` (eV/Å)."""

    def passes(sample: Sample) -> bool:
        frame, label = sample.frame, sample.label
        if not (np.isfinite(frame.positions).all() and np.isfinite(frame.cell).all()):
            return False
        if label is not None and not np.linalg.norm(label.forces, axis=1).max() <= max_force:
            return False
        return not closer_than(frame, min_separation)

    def run(samples: Iterable[Sample]) -> Iterator[Sample]:
        return _each("sanity", passes, samples)

    return run


class Equilibrated:
    """Throws away the first `skip` structures of each system, once: the beginning of its trajectory."""

    def __init__(self, skip: int) -> None:
        if skip < 0:
            raise ValueError(f"skip {skip}: expected at least 0")
        self.skip = skip
        self._seen: Counter[str] = Counter()

    def __call__(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        return _each("equilibration", self._passes, samples)

    def _passes(self, sample: Sample) -> bool:
        system = str(sample.origin.get("system", ""))
        self._seen[system] += 1
        return self._seen[system] > self.skip

    def wants(self, n: int, system: str) -> int:
        """n, and what is still to be thrown away."""
        return n + max(0, self.skip - self._seen[system])

    def state_arrays(self) -> dict[str, NDArray[Any]]:
        """How many of each system came by."""
        return {system: np.array(n) for system, n in self._seen.items()}

    def load_state_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take up what `state_arrays` gave."""
        self._seen = Counter({system: int(n) for system, n in arrays.items()})


class DuplicateFilter:
    """Lets the first of several like structures of one system pass: those whose atoms are on average displaced by
    less than `threshold` (Å, minimum image) from an earlier one.

    Systems are told apart by what they consist of; cells need not be equal.
    """

    def __init__(self, threshold: float = 0.1) -> None:
        self.threshold = threshold
        self._pools: dict[Hashable, StructurePool] = {}

    def __call__(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        return _each("duplicates", self._passes, samples)

    def _passes(self, sample: Sample) -> bool:
        frame = sample.frame
        pool = self._pools.setdefault(frame.constitution, StructurePool(frame, self.threshold))
        if pool.holds_like(frame):
            return False
        pool.add(frame)
        return True

    def state_arrays(self) -> dict[str, NDArray[Any]]:
        """All pools."""
        found: dict[str, NDArray[Any]] = {}
        for k, pool in enumerate(self._pools.values()):
            found |= {f"{k}/reference/{name}": a for name, a in pool.reference.arrays().items()}
            found |= {f"{k}/pool/{name}": a for name, a in pool.state_arrays().items()}
        return found

    def load_state_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take up what `state_arrays` gave."""
        self._pools = {}
        for k in _numbers(arrays):
            reference = Frame.from_arrays(under(f"{k}/reference", arrays))
            pool = self._pools[reference.constitution] = StructurePool(reference, self.threshold)
            pool.load_state_arrays(under(f"{k}/pool", arrays))


class _Described:
    """What filters by descriptor share: the points that passed, system by system."""

    def __init__(self, describe: Describe) -> None:
        self.describe = describe
        self._references: dict[Hashable, Frame] = {}
        self._points: dict[Hashable, list[Array]] = {}

    def _known(self, frame: Frame) -> list[Array]:
        self._references.setdefault(frame.constitution, frame)
        return self._points.setdefault(frame.constitution, [])

    def state_arrays(self) -> dict[str, NDArray[Any]]:
        """The points, and a frame of each kind."""
        found: dict[str, NDArray[Any]] = {}
        for k, (kind, frame) in enumerate(self._references.items()):
            found |= {f"{k}/reference/{name}": a for name, a in frame.arrays().items()}
            found[f"{k}/points"] = np.array(self._points[kind])
        return found

    def load_state_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take up what `state_arrays` gave."""
        self._references, self._points = {}, {}
        for k in _numbers(arrays):
            known = self._known(Frame.from_arrays(under(f"{k}/reference", arrays)))
            known += list(arrays[f"{k}/points"])


class NewByDescriptor(_Described):
    """Lets the first of several structures with like descriptors pass: no earlier one of the system within
    `threshold`, in the descriptor's unit; rotations and permutations make no difference."""

    def __init__(self, threshold: float = 0.05, describe: Describe = radial) -> None:
        super().__init__(describe)
        self.threshold = threshold

    def __call__(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        return _each("duplicates", self._passes, samples)

    def _passes(self, sample: Sample) -> bool:
        known = self._known(sample.frame)
        point = self.describe([sample.frame])[0]
        if known and distances(np.array(known), point).min() < self.threshold:
            return False
        known.append(point)
        return True


class Farthest(_Described):
    """Keeps one of every `of` structures of a system: those farthest from one another and from all kept before,
    in descriptor space (`farthest_points`). It waits for the end of a stream."""

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


equilibration, farthest_filter = Equilibrated, Farthest

_KINDS: dict[str, Callable[..., Filter]] = {
    "equilibration": equilibration,
    "sanity": sanity,
    "duplicates": duplicates,
    "finite_clusters": finite_clusters,
    "farthest_points": farthest_filter,
}


def filter_kinds() -> tuple[str, ...]:
    """The names filters can be asked for by."""
    return tuple(sorted(_KINDS))


def make_filter(kind: str, **settings: Any) -> Filter:
    """The filter of this kind. Raises SettingsError for an unknown one or a wrong setting."""
    if kind not in _KINDS:
        near = nearest(kind, _KINDS)
        raise SettingsError(
            f"filter {kind!r} is not known; "
            + (f"nearest: {near}" if near else f"known: {', '.join(filter_kinds())}")
        )
    try:
        return _KINDS[kind](**settings)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"filter {kind}: {error}") from error


def _each(name: str, passes: Callable[[Sample], bool], samples: Iterable[Sample]) -> Iterator[Sample]:
    """What passes, one sample after the other; says at the end how many did not."""
    counts: Counter[bool] = Counter()
    for sample in samples:
        passed = passes(sample)
        counts[passed] += 1
        if passed:
            yield sample
    if counts[False]:
        log.debug("filter %s: %d of %d structures removed", name, counts[False], counts.total())


def _numbers(arrays: Mapping[str, Any]) -> list[str]:
    """The first parts of the names, each once, in order."""
    return list(dict.fromkeys(name.partition("/")[0] for name in arrays))
