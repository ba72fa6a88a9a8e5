"""Random number streams, identified by words and derived from the seeds in the settings.

A stream depends only on its words, so no generator state has to be saved, and no two streams share a generator.

    >>> seed_number("train", 0, 7) == seed_number("train", 0, 7)
    True
    >>> seed_number("train", 0, 7) == seed_number("train", 1, 7)
    False
"""

from __future__ import annotations

import hashlib

import numpy as np

Word = str | int


def seed_number(*words: Word) -> int:
    """A 63-bit integer that depends only on the words, the same on every machine."""
    text = "\x1f".join(f"{type(w).__name__}:{w}" for w in words)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def rng(*words: Word) -> np.random.Generator:
    """A separate generator for the task named by these words: `rng("train", seed, member, visit)`."""
    return np.random.Generator(np.random.Philox(seed_number(*words)))


def uniform(*words: Word) -> float:
    """One number in [0, 1) for the decision named by these words."""
    return seed_number(*words) / 2**63


def member_seeds(seed: int, n: int) -> tuple[int, ...]:
    """n different seeds below 1000 for the members of an ensemble, drawn from GENERAL.seed."""
    if n > 1000:
        raise ValueError(f"at most 1000 members, got {n}")
    return tuple(int(s) for s in rng("members", seed).choice(1000, size=n, replace=False))
