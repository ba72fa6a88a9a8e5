"""What a training visit sees of a growing dataset: the new structures and a fresh random part of the old ones.

With everything in every visit the cost of a label grows with the number of labels before it; with a part of
fixed size it stays the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aims_pax import seeds


@dataclass(frozen=True)
class Replay:
    """Sizes of a visit. `fresh`: the newest structures, which are always in it.

    Trajectories wait for training in the order of their points, so as many as there are trajectories hold
    every point that a trajectory waits for.
    """

    train: int
    valid: int
    fresh: int

    def training(self, ids: Sequence[str], words: tuple[str | int, ...]) -> list[str]:
        """The newest `fresh` of `ids` and others drawn at random, `train` together (at least the fresh ones).

        In the order of `ids`; equal words, equal draw.
        """
        n, new = len(ids), min(self.fresh, len(ids))
        old = min(n - new, max(self.train - new, 0))
        drawn = seeds.rng("replay", *words).permutation(n - new)[:old].tolist()
        return [ids[k] for k in sorted(drawn)] + list(ids[n - new :])

    def validation(self, ids: Sequence[str]) -> list[str]:
        """`valid` of `ids` that change little as the set grows: those whose ids, which are hashes, come first."""
        if len(ids) <= self.valid:
            return list(ids)
        chosen = set(sorted(ids)[: self.valid])
        return [i for i in ids if i in chosen]
