"""The data of a training visit when the dataset grows: the new structures and a random part of the old ones.

Training on the whole set in every visit makes each label more expensive than the one before; with a part of fixed
size the cost is constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aims_pax import seeds


@dataclass(frozen=True)
class Replay:
    """Numbers of structures in a visit. `fresh`: the newest structures, which are always in it.

    Trajectories wait for training in the order of their points, so with `fresh` = number of trajectories a visit has
    every point that a trajectory waits for; by windows `fresh` is at least the labels of one.
    """

    train: int
    valid: int
    fresh: int

    def training(self, ids: Sequence[str], words: tuple[str | int, ...]) -> list[str]:
        """The newest `fresh` of `ids` and others drawn at random, `train` together (at least the fresh ones).

        In the order of `ids`; the same words give the same draw.
        """
        n, new = len(ids), min(self.fresh, len(ids))
        old = min(n - new, max(self.train - new, 0))
        drawn = seeds.rng("replay", *words).permutation(n - new)[:old].tolist()
        return [ids[k] for k in sorted(drawn)] + list(ids[n - new :])

    def validation(self, ids: Sequence[str]) -> list[str]:
        """`valid` of `ids`, a choice that changes little as the set grows: the first in the order of ids (hashes)."""
        if len(ids) <= self.valid:
            return list(ids)
        chosen = set(sorted(ids)[: self.valid])
        return [i for i in ids if i in chosen]
