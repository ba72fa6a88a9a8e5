"""A sampler whose state is stored in snapshots, so that a restart makes no structure again and skips none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from aims_pax import seeds
from aims_pax.errors import Abandoned
from aims_pax.sampler import LearnsFromLabels, Sample, Stateful
from aims_pax.systems import System

if TYPE_CHECKING:
    from aims_pax.frames import LabelledFrame
    from aims_pax.sampler import Sampler


class ResumableSampler:
    """Makes batches of structures, numbered by visit.

    make: makes the sampler when it is first used. words: seed all randomness, together with the visit.
    """

    def __init__(self, make: Callable[[], Sampler], *words: str | int) -> None:
        self.make, self.words = make, words
        self._sampler: Sampler | None = None
        self._given = 0  # labels that the sampler has been given
        self._states: dict[int, dict[str, NDArray[Any]]] = {}  # visit → state of the sampler after it

    def sample(
        self, systems: Sequence[System], n: int, visit: int, labelled: Sequence[LabelledFrame] = ()
    ) -> list[Sample]:
        """n structures of each system. Raises Abandoned; the sampler then continues from its stored state.

        labelled: all labels so far, for samplers that learn from them.
        """
        if self._sampler is None:
            self._sampler, self._given = self.make(), 0
            if isinstance(self._sampler, Stateful) and self._states:
                self._sampler.load_state_arrays(self._states[max(self._states)])
        if isinstance(self._sampler, LearnsFromLabels):
            self._sampler.new_labels(labelled[self._given :])
            self._given = len(labelled)
        try:
            samples = list(self._sampler.sample(systems, n, seeds.rng(*self.words, visit)))
        except Abandoned:
            self._sampler = None  # discard an incomplete batch
            raise
        if isinstance(self._sampler, Stateful):
            before = {v: state for v, state in self._states.items() if v < visit}
            last = {max(before): before[max(before)]} if before else {}
            self._states = {**last, visit: self._sampler.state_arrays()}
        return samples

    def arrays(self, visits: int) -> dict[str, NDArray[Any]]:
        """The state after the first `visits` batches, without later ones, for a snapshot."""
        known = [visit for visit in self._states if visit < visits]
        state = self._states[max(known)] if known else {}
        return {f"sampler/{max(known)}/{name}": a for name, a in state.items()}

    def take_arrays(self, grouped: Mapping[str, Any]) -> None:
        """Restore from the arrays of a snapshot, grouped by `stage_environment.group_arrays`."""
        self._states = {int(visit): dict(state) for visit, state in grouped.get("sampler", {}).items()}
