"""Acquisition by windows: the trajectories move on, and the best of the uncertain frames they pass are labelled.

    collect  -- every trajectory moved `window` steps -->  select
    select   -- frames chosen -------------------------->  label     (collect again when there is none)
    label    -- every chosen frame answered ------------>  train
    train    -- epochs used up ------------------------->  collect

While labels are computed the trajectories continue with the next window, which is up to STRETCHED times as long if the
labels take that long: candidates are collected, but nothing is selected before the models have learnt the labels of
the window before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

STRETCHED = 4  # times the window: the farthest that trajectories move while labels are computed
SMALL_SET = 100  # training points up to which every new one is given `epochs_per_worker` epochs of its own


@dataclass(frozen=True)
class UncertainFrame:
    """A frame above the threshold: a candidate of the window. uncertainty: eV/Å, the largest of the frame."""

    frame: str
    trajectory: int
    step: int
    uncertainty: float


@dataclass(frozen=True)
class AcquisitionWindow:
    """The candidates collected so far, the frames being labelled, and the training that is due."""

    candidates: tuple[UncertainFrame, ...] = ()
    pending: tuple[tuple[str, int], ...] = ()  # (frame, trajectory) of requested labels
    n_selections: int = 0
    n_new: int = 0  # training points since the last training
    epochs_left: int = 0

    def collected(self, candidate: UncertainFrame) -> AcquisitionWindow:
        """The window with one more candidate."""
        return replace(self, candidates=(*self.candidates, candidate))

    def without_exploded(self, trajectory: int) -> AcquisitionWindow:
        """Of a trajectory that exploded, only the frame where its uncertainty began to rise remains a candidate."""
        own = [c for c in self.candidates if c.trajectory == trajectory]
        gone = set(own[1:])
        return replace(self, candidates=tuple(c for c in self.candidates if c not in gone))

    def selected(self, frames: tuple[str, ...]) -> AcquisitionWindow:
        """The window after the selection: these frames are labelled, the other candidates are forgotten."""
        trajectory = {c.frame: c.trajectory for c in self.candidates}
        pending = (*self.pending, *((frame, trajectory[frame]) for frame in frames))
        return replace(self, candidates=(), pending=pending, n_selections=self.n_selections + 1)

    def answered(self, frame: str, learnt: bool, epochs_per_point: int, n_train: int) -> AcquisitionWindow:
        """The window after the answer for one of its frames. learnt: whether it became a training point.

        When no answer is missing, training is due: `epochs_per_point` for each new point, fewer for a set of more than
        SMALL_SET points, so that a window costs the same number of gradient steps.
        """
        pending = tuple(p for p in self.pending if p[0] != frame)
        n_new = self.n_new + learnt
        if pending or not n_new:
            return replace(self, pending=pending, n_new=n_new)
        each = min(1.0, SMALL_SET / max(n_train, 1))
        epochs = epochs_per_point * max(1, math.ceil(n_new * each))
        return replace(self, pending=(), n_new=0, epochs_left=self.epochs_left + epochs)

    def trained(self, epochs: int) -> AcquisitionWindow:
        """The window after a visit of so many epochs."""
        return replace(self, epochs_left=max(0, self.epochs_left - epochs))
