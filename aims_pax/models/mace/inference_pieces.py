"""Splits structures into groups that fit into the memory limit, before the first evaluation.

Trajectories are independent. If they do not fit together, they are propagated one group after another, each with its
neighbour lists. Energies and forces are the same (in float32 except for the last digits, which depend on the batch).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np

from aims_pax.errors import SettingsError
from aims_pax.frames import Frame
from aims_pax.models import memory_budget
from aims_pax.models.batch_splitting import CURE, structures_that_fit
from aims_pax.models.memory_budget import GB, Need
from aims_pax.models.neighbour_list import is_sane_structure, neighbour_list

log = logging.getLogger(__name__)

# upper bounds, numbers × (channels × spherical components): below the limit nothing is measured
EDGE, ATOM, NATIVE = (
    12,
    120,
    4,
)
_said: set[str] = set()  # lines logged by this process; each is logged once, not for each committee


class Pieces:
    """Groups of consecutive structures for one committee.

    size: channels × spherical components. members: of the committee. need: memory of an evaluation for a mean number of
    neighbours. economical: makes the evaluation use less memory; False if it cannot.
    """

    def __init__(
        self,
        size: int,
        members: int,
        r_max: float,
        device: str,
        need: Callable[[float], Need],
        economical: Callable[[], bool],
    ) -> None:
        self.size, self.members, self.r_max, self.device = size, members, r_max, device
        self.need, self.economical = need, economical

    def __call__(self, frames: Sequence[Frame]) -> list[range]:
        """Ranges of frames to evaluate together. Raises SettingsError for a single structure that is too large."""
        limit = memory_budget.limit(self.device)
        if sum(self._at_most(frame) for frame in frames) <= limit:
            return [range(len(frames))]
        edges = [self._edges(frame) for frame in frames]
        sizes = self._sizes(frames, edges)
        if max(sizes) > limit and self.economical():
            sizes = self._sizes(frames, edges)
        if max(sizes) > limit:
            largest = int(np.argmax(sizes))
            self._check(len(frames[largest]), edges[largest], sizes[largest], limit)
        groups, start = [], 0
        while start < len(frames):
            end = structures_that_fit(sizes, start, limit)
            groups.append(range(start, end))
            start = end
        if len(groups) > 1:
            _say(
                f"{len(frames)} structures at once would need {sum(sizes) / GB:.1f} GB of memory; the limit is "
                f"{limit / GB:.3g} GB (MISC.memory_limit in mace.yaml), so at most "
                f"{max(len(g) for g in groups)} are evaluated together, with the same results"
            )
        return groups

    def _at_most(self, frame: Frame) -> float:
        """Upper bound in bytes, without measuring the model or computing neighbours."""
        edges = likely_edges(frame, self.r_max)
        numbers = max(EDGE * edges + ATOM * len(frame), NATIVE * self.members * edges)
        return 8 * self.size * numbers + memory_budget.GRAPH * edges

    def _edges(self, frame: Frame) -> int:
        if not is_sane_structure(frame.positions, frame.cell, frame.pbc, self.r_max):
            return 0  # is not evaluated
        return len(neighbour_list(frame.positions, frame.cell, frame.pbc, self.r_max)[0])

    def _sizes(self, frames: Sequence[Frame], edges: Sequence[int]) -> list[int]:
        need = self.need(sum(edges) / sum(map(len, frames)))
        return [int(need.of(len(f), e)) for f, e in zip(frames, edges, strict=True)]

    def _check(self, atoms: int, edges: int, size: int, limit: float) -> None:
        """Warn about a structure that exceeds the limit but may fit; raise SettingsError if it cannot fit."""
        what = f"one structure of {atoms} atoms ({edges} edges) needs about {size / GB:.3g} GB of memory"
        if memory_budget.is_set_by_user():
            raise SettingsError(
                f"MISC.memory_limit in mace.yaml: {what}, the limit for this process is {limit / GB:.3g} GB; raise it, "
                f"or choose {CURE}"
            )
        left = memory_budget.available_memory(self.device)
        if size / memory_budget.FOUND > left:
            raise SettingsError(f"{what}, {left / GB:.3g} GB are free on {self.device}; in mace.yaml: {CURE}")
        _say(f"{what}, more than the {limit / GB:.3g} GB reserved for evaluations; it is tried anyway")


def likely_edges(frame: Frame, r_max: float) -> float:
    """Upper estimate of the number of edges of a frame: all pairs of a molecule, or from the density of a crystal."""
    n = len(frame)
    volume = abs(float(np.linalg.det(frame.cell))) if frame.periodic else 0.0
    dense = 4.19 * r_max**3 * max(0.15, n / volume if volume else 0.0)  # 0.15 atoms/Å³: denser than steel
    return n * (dense if frame.pbc.any() else min(n - 1, dense))


def _say(line: str) -> None:
    if line not in _said:
        _said.add(line)
        log.warning("%s", line)
