"""Structures from several samplers in given shares, each with its own filters.

The shares alone determine which sampler makes the i-th structure of a system: the one that is furthest behind,

    k_i = argmax_k (w_k·i − c_k),      c_k the number made by k so far,      Σ w_k = 1,

the first of equals. So after any number of structures every sampler has made its share, rounded. Within a call they
come in random order, so that each part of the stream has structures of all samplers. The mixture stores the state of
its samplers and filters (`Stateful`), so that the next call, or another process, continues.

>>> from aims_pax.frames import Frame
>>> from aims_pax.samplers import sanity
>>> class Shifted:
...     def __init__(self, name):
...         self.name = name
...     def sample(self, systems, n, rng):
...         for k in range(n):
...             for s in systems:
...                 moved = s.frame.moved(s.frame.positions + rng.random())
...                 yield Sample(moved, None, {"sampler": self.name, "system": s.name})
>>> mixture = Mixture([Part("a", Shifted("a"), 0.7), Part("b", Shifted("b"), 0.3, (sanity(),))])
>>> pair = System("pair", Frame([18, 18], [[0, 0, 0], [3.8, 0, 0]]))
>>> [s.origin["sampler"] for s in mixture.sample([pair], 10, np.random.default_rng(0))]
['a', 'a', 'a', 'a', 'a', 'b', 'a', 'a', 'b', 'b']
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aims_pax import seeds
from aims_pax.frames import Frame, LabelledFrame
from aims_pax.sampler import (
    Filter,
    LearnsFromLabels,
    Sample,
    Sampler,
    SamplingError,
    Stateful,
    incomplete_state,
    under,
)
from aims_pax.systems import System

log = logging.getLogger(__name__)

PATIENCE = 200  # structures of a system and sampler removed in a row, after which SamplingError is raised
OF_ATOMS = {  # fields of a frame that a sampler must not lose → in words
    "moments": "initial moments",
    "charges": "initial charges",
    "fixed": "fixed atoms",
    "masses": "masses of isotopes",
}


@dataclass(frozen=True)
class Part:
    """A sampler with its share (of 1) and filters. key: its name in state arrays. called: names of the filters."""

    key: str
    sampler: Sampler
    share: float
    filters: tuple[Filter, ...] = ()
    called: tuple[str, ...] = ()

    def filtered(self, samples: Iterable[Sample], removed: Counter[str]) -> list[Sample]:
        """The samples that pass its filters; the numbers that each filter removes are added to `removed`."""
        passed = list(samples)
        for k, each in enumerate(self.filters):
            before, passed = len(passed), list(each(passed))
            removed[self.called[k] if self.called else f"filter {k + 1}"] += max(0, before - len(passed))
        return passed


class Mixture:
    """Samplers in given shares, as one sampler."""

    def __init__(self, parts: Sequence[Part], name: str = "mixture") -> None:
        total = sum(part.share for part in parts)
        if not parts or abs(total - 1) > 1e-6 or len({part.key for part in parts}) < len(parts):
            raise ValueError(
                f"expected parts with different keys whose shares sum to 1; the sum is {total:g}"
            )
        for thing in (thing for part in parts for thing in (part.sampler, *part.filters)):
            if text := incomplete_state(thing):
                raise ValueError(text)
        self.parts = tuple(parts)
        self.name = name
        self._made = np.zeros(len(parts), np.int64)  # structures of each system

    def sample(self, systems: Sequence[System], n: int, rng: np.random.Generator) -> Iterator[Sample]:
        """n structures of each system, one of each in turn.

        Raises SamplingError when a sampler makes no structures, or its filters remove all.
        """
        seed = int(rng.integers(2**63))
        due = self._turns(n)
        turns = [due[k] for k in rng.permutation(n)]
        made = [
            self._drawn(part, systems, turns.count(k), seed) if k in turns else {}
            for k, part in enumerate(self.parts)
        ]
        for k in turns:
            for system in systems:
                yield made[k][system.name].pop(0)
        for k in turns:
            self._made[k] += 1

    def new_labels(self, labelled: Sequence[LabelledFrame]) -> None:
        """For all samplers that learn from labels."""
        for part in self.parts:
            if isinstance(part.sampler, LearnsFromLabels):
                part.sampler.new_labels(labelled)

    def state_arrays(self) -> dict[str, NDArray[Any]]:
        """The numbers of structures and the states of all parts."""
        found: dict[str, NDArray[Any]] = {}
        for part, n in zip(self.parts, self._made, strict=True):
            found[f"{part.key}/made"] = np.array(n)
            for name, thing in _remembering(part):
                found |= {f"{part.key}/{name}/{k}": a for k, a in thing.state_arrays().items()}
        return found

    def load_state_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Restore the state from `state_arrays`; with a new part, the counts of all parts start again at 0."""
        known = [f"{part.key}/made" in arrays for part in self.parts]
        for k, part in enumerate(self.parts):
            self._made[k] = int(arrays[f"{part.key}/made"]) if all(known) else 0
            for name, thing in _remembering(part):
                thing.load_state_arrays(under(f"{part.key}/{name}", arrays))

    def _turns(self, n: int) -> list[int]:
        """The part that makes each of the next n structures of a system."""
        made = self._made.astype(float)
        shares = np.array([part.share for part in self.parts])
        turns = []
        for i in range(int(made.sum()) + 1, int(made.sum()) + n + 1):
            k = int(np.argmax(np.round(shares * i - made, 9)))
            made[k] += 1
            turns.append(k)
        return turns

    def _drawn(self, part: Part, systems: Sequence[System], n: int, seed: int) -> dict[str, list[Sample]]:
        """n samples of each system that pass the filters, in rounds: each replaces what the filters removed before."""
        made: dict[str, list[Sample]] = {s.name: [] for s in systems}
        barren, removed = dict.fromkeys(made, 0), Counter[str]()
        for turn in range(10**9):
            short = [s for s in systems if len(made[s.name]) < n]
            if not short:
                break
            missing = min(n - len(made[s.name]) for s in short)
            wanted = min(_wanted(part, missing, s.name) for s in short)
            rng = seeds.rng("mixture", seed, part.key, turn)
            before, given = {s.name: _wanted(part, 1, s.name) for s in short}, Counter[str]()
            fresh = _named(part.sampler.sample(short, wanted, rng), part.sampler.name, short, given)
            passed = part.filtered(fresh, removed)
            for system in short:
                mine = [s for s in passed if s.origin["system"] == system.name]
                if len(mine) > missing:  # a filter made several of one: a random choice, not the first ones
                    mine = [mine[k] for k in np.sort(rng.choice(len(mine), missing, replace=False))]
                made[system.name] += mine
                if not given[system.name]:
                    raise SamplingError(
                        f"{system.name}: sampler {part.sampler.name} was asked for {wanted} structures and made none"
                    )
                waited = _wanted(part, 1, system.name) < before[system.name]  # equilibration progresses
                barren[system.name] = 0 if mine or waited else barren[system.name] + given[system.name]
                if barren[system.name] >= PATIENCE:
                    raise SamplingError(
                        f"{system.name}: the filters of sampler {part.sampler.name} removed {barren[system.name]} "
                        f"structures in a row ({_counts(removed)}); loosen them, or make the sampler's steps larger"
                    )
        if +removed:
            log.info("filters of %s removed: %s", part.sampler.name, _counts(removed))
        return made


def _named(
    samples: Iterable[Sample], name: str, systems: Sequence[System], given: Counter[str]
) -> Iterator[Sample]:
    """The samples, counted by system in `given`.

    Raises SamplingError when one does not name its system, or has lost what its reference calculation depends on.
    """
    by_name = {s.name: s for s in systems}
    for sample in samples:
        system = sample.origin.get("system")
        if system not in by_name:
            raise SamplingError(
                f"sampler {name}: a structure has the origin {dict(sample.origin)}; its key system must be one of "
                f"{', '.join(sorted(by_name))}"
            )
        if (text := _differs(sample.frame, by_name[str(system)].frame)) is not None:
            raise SamplingError(
                f"sampler {name}: a structure of {system} has {text}; make it with system.frame.moved(positions), "
                "which keeps everything but the positions"
            )
        given[str(system)] += 1
        yield replace(sample, origin={"sampler": name, **sample.origin})


def _differs(frame: Frame, start: Frame) -> str | None:
    """How a structure differs from the starting structure in what does not change in sampling, or None.

    Structures of another composition are not compared.
    """
    if sorted(frame.numbers) != sorted(start.numbers):
        return None
    if (frame.charge or 0.0) != (start.charge or 0.0):
        return f"charge {frame.charge} instead of {start.charge}"
    if (frame.spin or 1) != (start.spin or 1):
        return f"spin {frame.spin} instead of {start.spin}"
    if (frame.pbc != start.pbc).any():
        return f"pbc {frame.pbc.tolist()} instead of {start.pbc.tolist()}"
    for name, words in OF_ATOMS.items():
        if getattr(frame, name) is None and getattr(start, name) is not None:
            return f"no {words}"
    if frame.statements != start.statements:
        return f"the statements {list(frame.statements)} instead of {list(start.statements)}"
    return None


def _wanted(part: Part, n: int, system: str) -> int:
    """The number of structures the sampler must make for n to pass, as far as the filters can predict."""
    for each in reversed(part.filters):
        wants = getattr(each, "wants", None)
        n = n if wants is None else wants(n, system)
    return n


def _counts(removed: Counter[str]) -> str:
    return ", ".join(f"{name} {n}" for name, n in removed.items() if n)


def _remembering(part: Part) -> Iterator[tuple[str, Stateful]]:
    things = [("sampler", part.sampler), *((f"filter {k}", f) for k, f in enumerate(part.filters))]
    for name, thing in things:
        if isinstance(thing, Stateful):
            yield name, thing
