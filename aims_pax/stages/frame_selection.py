"""Chooses which of a window's uncertain frames are labelled: uncertain, and different from those already labelled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from aims_pax import seeds
from aims_pax.core.selection import at_random, element_moments, farthest_first
from aims_pax.core.work import SelectFrames
from aims_pax.frames import Array, Frame
from aims_pax.samplers.descriptors import histograms

KNOWN = (
    5000  # labelled frames, the newest, that candidates are compared with: the cost of a selection is bounded
)


class FrameSelection:
    """Selects by the uncertainty times the distance to the nearest labelled or chosen frame (`diverse`), by the
    uncertainty alone (`spread`), or at random (`random`). The distance is that of the radial descriptor, mean and
    standard deviation over the atoms of each element.
    """

    def __init__(self, elements: Sequence[int], rule: str = "diverse", seed: int = 0) -> None:
        self.elements, self.rule, self.seed = tuple(sorted(elements)), rule, seed
        self._features: dict[str, Array] = {}

    def choose(
        self, work: SelectFrames, known: Iterable[str], frame: Callable[[str], Frame]
    ) -> tuple[str, ...]:
        """The ids of at most `work.n` of its frames, best first; at least one.

        known: ids of the frames that are labelled. frame: the frame of an id.
        """
        weights = np.asarray(work.uncertainty, float)
        if self.rule == "random":
            rng = np.random.default_rng(seeds.seed_number("selection", self.seed, work.visit))
            chosen = at_random(len(weights), work.n, rng)
        elif self.rule == "spread":
            chosen = np.argsort(-weights, kind="stable")[: work.n].tolist()
        else:
            given = set(work.frames)
            others = self._points([i for i in known if i not in given and self._comparable(frame(i))], frame)
            points = self._points(work.frames, frame)
            used = {*known, *given}
            self._features = {i: x for i, x in self._features.items() if i in used}
            chosen = farthest_first(points, work.n, others if len(others) else None, weights)
        return tuple(work.frames[k] for k in chosen)

    def _comparable(self, frame: Frame) -> bool:
        """Whether a labelled frame has only elements of the run's systems; given data may have others."""
        return set(frame.numbers.tolist()) <= set(self.elements)

    def _points(self, ids: Sequence[str], frame: Callable[[str], Frame]) -> Array:
        """(F, D) features; new ones are computed, those of earlier selections are remembered."""
        for i in ids:
            if i not in self._features:
                atoms = frame(i)
                self._features[i] = element_moments(self._histograms(atoms), atoms.numbers, self.elements)
        return np.array([self._features[i] for i in ids]) if ids else np.empty((0, 0))

    def _histograms(self, frame: Frame) -> Array:
        """(N, elements · centres) of every atom, with columns for every element of the run."""
        own = sorted(set(frame.numbers.tolist()))
        g = histograms(frame).reshape(len(frame), len(own), -1)  # (N, own elements, centres)
        whole = np.zeros((len(frame), len(self.elements), g.shape[2]))
        whole[:, [self.elements.index(z) for z in own]] = g
        return whole.reshape(len(frame), -1)
