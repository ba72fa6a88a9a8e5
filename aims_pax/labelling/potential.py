"""The reference as a potential: ab initio MD asks the labeller for every force."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aims_pax.frames import Frame, Label
from aims_pax.potential import Bound

if TYPE_CHECKING:
    from aims_pax.labelling.labeller import Labeller


@dataclass(frozen=True)
class ReferencePotential:
    """The reference as a `Potential`. All frames of a step are asked for at once."""

    labeller: Labeller

    def labels(self, frames: Sequence[Frame]) -> list[Label]:
        """Raises the LabelError of the first frame that has none."""
        return [future.result() for future in [self.labeller.submit(f) for f in frames]]

    def bind(self, frames: Sequence[Frame]) -> Bound:
        """Fix the structures; only positions and cells move."""
        from aims_pax.potential import LabelsBound

        return LabelsBound(self.labels, frames)
