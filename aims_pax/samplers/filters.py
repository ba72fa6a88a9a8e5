"""Filters remove structures from those that a sampler makes; several are applied one after the other.

A filter is a function of a stream of samples. Samples that pass stay in order and, except for `farthest_points`, are
passed on at once. A filter with a state works for many streams of one run, also after a restart (`Stateful`). `wants`
returns the number of structures of a system that the filter needs for n to pass. The kinds are in `filter_kinds/`, one
file each; shared code is here.

>>> from aims_pax.sampler import Sample
>>> from aims_pax.samplers import duplicates, farthest_filter, sanity
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
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from aims_pax.errors import SettingsError
from aims_pax.frames import Array, Frame
from aims_pax.sampler import Filter, Sample, under
from aims_pax.samplers.descriptors import Describe, radial
from aims_pax.settings.messages import hint, in_words
from aims_pax.settings.samplers import FILTERS, FilterContext

log = logging.getLogger(__name__)


def filtered(samples: Iterable[Sample], *filters: Filter) -> Iterator[Sample]:
    """The samples that pass every filter; the first filter is applied first."""
    for each in filters:
        samples = each(samples)
    return iter(samples)


def filter_kinds() -> tuple[str, ...]:
    """The known kinds of filters."""
    return tuple(sorted(FILTERS))


def make_filter(kind: str, **keys: Any) -> Filter:
    """The filter of this kind, with the same keys as in the settings and the built-in descriptor.

    Raises SettingsError for an unknown kind or a wrong key.
    """
    model = FILTERS.get(kind)
    if model is None:
        raise SettingsError(f"filter {kind!r} is not known; {hint(kind, filter_kinds())}")

    def no_model() -> Describe:
        raise SettingsError(f"filter {kind}: descriptor: mace needs the model of a sampler; write radial")

    try:
        return model.model_validate(keys).make(FilterContext(f"filter {kind}", no_model, radial))
    except ValidationError as error:
        wrong = [
            f"{'.'.join(map(str, detail['loc']))}: {in_words(detail, model)}" for detail in error.errors()
        ]
        raise SettingsError(f"filter {kind}: {'; '.join(wrong)}") from error


def those_passing(name: str, passes: Callable[[Sample], bool], samples: Iterable[Sample]) -> Iterator[Sample]:
    """The samples that pass, one after the other; logs at the end how many did not."""
    counts: Counter[bool] = Counter()
    for sample in samples:
        passed = passes(sample)
        counts[passed] += 1
        if passed:
            yield sample
    if counts[False]:
        log.debug("filter %s: %d of %d structures removed", name, counts[False], counts.total())


def first_parts(arrays: Mapping[str, Any]) -> list[str]:
    """The first parts (before /) of the names, each once, in order."""
    return list(dict.fromkeys(name.partition("/")[0] for name in arrays))


class Described:
    """Base class of filters by descriptor: stores the descriptors of the structures that passed, for each system."""

    def __init__(self, describe: Describe) -> None:
        self.describe = describe
        self._references: dict[Hashable, Frame] = {}
        self._points: dict[Hashable, list[Array]] = {}

    def _known(self, frame: Frame) -> list[Array]:
        self._references.setdefault(frame.constitution, frame)
        return self._points.setdefault(frame.constitution, [])

    def state_arrays(self) -> dict[str, NDArray[Any]]:
        """The descriptors, and one frame of each system."""
        found: dict[str, NDArray[Any]] = {}
        for k, (kind, frame) in enumerate(self._references.items()):
            found |= {f"{k}/reference/{name}": a for name, a in frame.arrays().items()}
            found[f"{k}/points"] = np.array(self._points[kind])
        return found

    def load_state_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Restore the state from `state_arrays`."""
        self._references, self._points = {}, {}
        for k in first_parts(arrays):
            known = self._known(Frame.from_arrays(under(f"{k}/reference", arrays)))
            known += list(arrays[f"{k}/points"])
