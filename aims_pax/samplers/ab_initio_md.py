"""Structures from ab initio molecular dynamics: every force is the reference's, all come with labels."""

from __future__ import annotations

from collections.abc import Sequence

from aims_pax.frames import Frame, Label
from aims_pax.samplers.foundation_md import MDSampler


class AbInitioMDSampler(MDSampler):
    """`MDSampler` whose potential is the reference itself (`labeller.potential()`).

    The labels are asked for by frame once more: the labeller has them in its store, with stress, and of
    exactly the rounded structure.
    """

    def _labels(self, frames: Sequence[Frame]) -> list[Label | None]:
        return [*self.potential.labels(frames)]
