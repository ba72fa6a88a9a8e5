"""Chooses which of a window's uncertain frames are labelled: uncertain, and different from those already labelled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from aims_pax.core.selection import element_moments, farthest_first, largest_first
from aims_pax.frames import Array, Frame
from aims_pax.samplers.descriptors import histograms

REMEMBERED = 20_000  # frames whose features are held in memory


class FrameSelection:
    """Selects by the uncertainty times the distance to the nearest labelled or chosen frame, or by the uncertainty
    alone. The distance is that of the radial descriptor, mean and standard deviation over the atoms of each element."""

    def __init__(self, elements: Sequence[int], diverse: bool = True) -> None:
        self.elements, self.diverse = tuple(sorted(elements)), diverse
        self._features: dict[str, Array] = {}

    def choose(
        self,
        frames: Sequence[str],
        uncertainty: Sequence[float],
        n: int,
        known: Iterable[str],
        frame: Callable[[str], Frame],
    ) -> tuple[str, ...]:
        """At most n of these frames (by id), best first; at least one.

        uncertainty: eV/Å of each. known: ids of the frames that are labelled or being labelled. frame: the frame of an
        id.
        """
        weights = np.asarray(uncertainty, float)
        points = self._points(frames, frame)
        if not self.diverse:
            return tuple(frames[k] for k in largest_first(points, n, weights))
        others = self._points([i for i in known if i not in set(frames)], frame)
        chosen = farthest_first(points, n, others if len(others) else None, weights)
        return tuple(frames[k] for k in chosen)

    def _points(self, ids: Sequence[str], frame: Callable[[str], Frame]) -> Array:
        """(F, D) features; new ones are computed, those of earlier selections are remembered."""
        if len(self._features) > REMEMBERED:
            self._features.clear()
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
