"""The reference as a potential: ab initio MD asks the labeller for every force."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from aims_pax.frames import Frame, Label
from aims_pax.labelling.foreign_results import wait_for_results
from aims_pax.potential import Bound

if TYPE_CHECKING:
    from aims_pax.labelling.labeller import Labeller


@dataclass(frozen=True)
class ReferencePotential:
    """The reference as a `Potential`. All frames of a step are requested at once.

    system_of: the geometry a frame was made from; it may have its own control.in.
    """

    labeller: Labeller
    system_of: Callable[[Frame], str | None] = lambda frame: None

    def of(self, system_of: Callable[[Frame], str | None]) -> ReferencePotential:
        """The same potential with another `system_of`."""
        return replace(self, system_of=system_of)

    def method_of(self, system: str) -> str:
        """The name (hash) of the method that labels frames of this geometry."""
        return self.labeller.method_of(system)

    def labels(self, frames: Sequence[Frame]) -> list[Label]:
        """Raises the LabelError of the first frame that has none, and RunInterrupted when the run should stop."""
        asked = [self.labeller.submit(f, self.system_of(f)) for f in frames]
        return wait_for_results(asked, self.labeller.check)

    def bind(self, frames: Sequence[Frame]) -> Bound:
        """Fix the atoms of the structures; only positions and cells change afterwards."""
        from aims_pax.potential import LabelsBound

        return LabelsBound(self.labels, frames)
