"""Family trees of structures: choose a parent, rattle it, relax the child for a few steps, accept it if it is new.

Each system is the root of a tree. A parent i is chosen with

    P_i = β·exp(−E_i/kT)/Σ_j exp(−E_j/kT) + (1 − β)·G_i/Σ_j G_j,      G_i its generation, the root's is 1,

its atoms are displaced by N(0, σ), σ log-uniform in a range, and step x of the relaxation moves every atom by
(σ/x)·F/|F|. After each step the child is accepted with probability min(¼, exp(−ΔE/kT)), ΔE relative to its parent,
if no force is too large and no pair of atoms too close. (augment-atoms; Gardner et al., arXiv:2506.10956. Its
document and its code differ in places: see `aims_pax.samplers.rattle.Rattling`.)

A child similar to a structure of its tree is rejected before it is evaluated. All trees grow together: one call of the
potential evaluates the candidates of all trees. Random numbers depend on (seed, tree, attempt) only, so trees are
independent of each other, and a restart does not change them.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase.calculators.calculator import CalculatorError
from numpy.typing import NDArray

from aims_pax import seeds
from aims_pax.errors import LabelError
from aims_pax.frames import Frame, Label
from aims_pax.potential import Potential
from aims_pax.sampler import SamplingError
from aims_pax.samplers.rattle import Rattling, rattled, relaxed
from aims_pax.samplers.similarity import StructurePool, closer_than
from aims_pax.systems import System

log = logging.getLogger(__name__)

SIMILAR, CLOSE, FORCE = "similar to a structure of its tree", "atoms too close", "force too large"
FAILED, CELL, SINGLE = "calculation failed", "cell inverted or collapsed", "no atom can move"
HELP = {
    SIMILAR: "raise sigma_range or lower similarity_threshold",
    CLOSE: "lower sigma_range or min_separation",
    FORCE: "raise max_force or max_relax_steps, or lower sigma_range",
    FAILED: "relax the starting structure, lower sigma_range or use another potential",
    CELL: "lower cell_sigma",
    SINGLE: "give a structure with at least two movable atoms",
}


@dataclass(frozen=True)
class Node:
    """A structure of a tree with the potential's label. The root has level 0, no parent and no sigma.

    attempt: the number of the attempt in its tree that made it, −1 for the root.
    """

    id: str
    frame: Frame
    label: Label
    level: int = 0
    parent: str | None = None
    relax_steps: int = 0
    sigma: float | None = None
    attempt: int = -1

    def origin(self) -> dict[str, str | int | float]:
        """The entries for `info` of the structure."""
        own_origin: dict[str, str | int | float] = {
            "id": self.id,
            "level": self.level,
            "parent": "none" if self.parent is None else self.parent,
            "relax_steps": self.relax_steps,
            "attempt": self.attempt,
        }
        return own_origin if self.sigma is None else {**own_origin, "sigma": self.sigma}


# yields frames, receives labels (or the reason for none), returns an outcome
Question = Generator[Frame, "Label | str", str]


@dataclass
class Tree:
    """One family tree. nodes: existing structures, the root first; [] for a new tree."""

    name: str
    start: Frame
    rattling: Rattling
    seed: int
    nodes: list[Node] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    given_up: str = ""

    def __post_init__(self) -> None:
        self._pool = StructurePool(self.start, self.rattling.similarity_threshold)
        self._energies, self._levels = np.empty(0), np.empty(0)
        given, self.nodes = self.nodes, []
        for node in given:
            self._insert(node)

    def grow(self, n: int) -> Generator[Frame, Label | str, None]:
        """Yield candidates and receive their labels until the tree has n nodes or is given up."""
        if not self.nodes:
            label = yield self.start
            if isinstance(label, str):
                self.given_up = f"{self.name}: the starting structure could not be calculated: {label}"
                return
            self._insert(Node(f"{self.name}-0", self.start, label))
        attempt, in_a_row, why = self.nodes[-1].attempt + 1, 0, Counter[str]()
        while len(self.nodes) < n:
            if in_a_row == self.rattling.max_attempts:
                self.given_up = self._epitaph(why, n)
                return
            before = len(self.nodes)
            outcome = yield from self._attempt(attempt)
            attempt += 1
            if len(self.nodes) > before:
                in_a_row, why = 0, Counter()
            else:
                in_a_row += 1
                why[outcome] += 1
                self.rejected[outcome] += 1

    def _attempt(self, attempt: int) -> Question:
        """Try to make one child. Returns "" for a new node, else the reason for the rejection."""
        r = self.rattling
        rng = seeds.rng("rattle tree", self.seed, self.name, attempt)
        parent = self.nodes[self._choose(rng)]
        frame, sigma = rattled(parent.frame, self.start, r, rng)
        if frame is None:
            return CELL
        if (frame.positions == parent.frame.positions).all() and (frame.cell == parent.frame.cell).all():
            return SINGLE
        previous: tuple[Frame, Label, int] | None = None
        for steps in range(r.max_relax_steps + 1):
            if self._pool.holds_like(frame):
                return self._settle(previous, parent, sigma, attempt) if previous else SIMILAR
            last = steps == r.max_relax_steps
            apart = not closer_than(frame, r.min_separation)
            if last and not apart:
                return CLOSE
            label = yield frame
            if isinstance(label, str):
                log.debug("%s · %s", self.name, label)
                return FAILED
            if last:
                return self._settle((frame, label, steps), parent, sigma, attempt)
            calm = _strongest(label) < r.max_force
            if calm and apart and rng.random() < r.stop(label.energy, parent.label.energy, len(frame)):
                return self._settle((frame, label, steps), parent, sigma, attempt)
            previous = frame, label, steps
            frame = relaxed(frame, label.forces, sigma / (steps + 1))
        raise AssertionError("the last step settles")

    def _settle(self, child: tuple[Frame, Label, int], parent: Node, sigma: float, attempt: int) -> str:
        """Insert the child where its relaxation ended, if forces and distances are within the limits."""
        frame, label, steps = child
        if not _strongest(label) < self.rattling.max_force:
            return FORCE
        if closer_than(frame, self.rattling.min_separation):
            return CLOSE
        name = f"{self.name}-{len(self.nodes)}"
        self._insert(Node(name, frame, label, parent.level + 1, parent.id, steps, sigma, attempt))
        return ""

    def _choose(self, rng: np.random.Generator) -> int:
        p = self.rattling.parents(self._energies, self._levels, len(self.start))
        return int(rng.choice(len(p), p=p))

    def _insert(self, node: Node) -> None:
        self.nodes.append(node)
        self._pool.add(node.frame)
        self._energies = np.append(self._energies, node.label.energy)
        self._levels = np.append(self._levels, node.level)

    def _epitaph(self, why: Counter[str], n: int) -> str:
        reasons = ", ".join(f"{count} {reason}" for reason, count in why.most_common())
        main = why.most_common(1)[0][0]
        return (
            f"{self.name}: given up at {len(self.nodes)} of {n} structures after {why.total()} attempts in a row "
            f"({reasons}); {HELP[main]}"
        )


def _strongest(label: Label) -> float:
    return float(np.linalg.norm(label.forces, axis=1).max())


# ---------------------------------------------------------------- all trees together


def grow(
    trees: Sequence[Tree],
    n: int | Sequence[int],
    potential: Potential,
    check: Callable[[], None] = lambda: None,
) -> Iterator[tuple[Tree, Node | None]]:
    """Grow all trees to n nodes (or n[i] each). Yields (tree, new node), or (tree, None) for a tree that is given up.

    Each round labels one candidate of every tree that still grows, in one call. check: called each round.
    Raises SamplingError for fixed atoms in cells that change.
    """
    for tree in trees:
        if tree.rattling.cell_sigma is not None and tree.start.fixed is not None and tree.start.pbc.any():
            raise SamplingError(
                f"{tree.name}: fixed atoms cannot stay in a changing cell; set cell_sigma to null"
            )
    goals = [n] * len(trees) if isinstance(n, int) else n
    growing = [(tree, tree.grow(goal)) for tree, goal in zip(trees, goals, strict=True)]
    answers: list[Label | str | None] = [None] * len(growing)
    while growing:
        check()
        still, asked = [], []
        for (tree, questions), answer in zip(growing, answers, strict=True):
            before = len(tree.nodes)
            try:
                asked.append(questions.send(answer))  # type: ignore[arg-type]  # None starts a generator
                still.append((tree, questions))
            except StopIteration:
                pass
            yield from ((tree, node) for node in tree.nodes[before:])
            if tree.given_up:
                yield tree, None
        growing, answers = still, list(answered(potential, asked))


def answered(potential: Potential, frames: Sequence[Frame]) -> Iterable[Label | str]:
    """The labels of one evaluation; when it fails, frames are evaluated one by one, with the reason for failed ones."""
    try:
        labels = potential.labels(frames) if frames else []
    except (LabelError, CalculatorError) as error:
        if len(frames) == 1:
            return [f"{type(error).__name__}: {error}"]
        return [answer for frame in frames for answer in answered(potential, [frame])]
    return [label if label.finite else "energy or forces are not finite" for label in labels]


def as_arrays(tree: Tree) -> dict[str, NDArray[Any]]:
    """A tree as arrays, to continue it later: n nodes, N atoms."""
    nodes = tree.nodes
    number = {node.id: k for k, node in enumerate(nodes)}
    return {
        "seed": np.array(tree.seed, np.int64),
        "positions": np.array([node.frame.positions for node in nodes]),
        "cells": np.array([node.frame.cell for node in nodes]),
        "energies": np.array([node.label.energy for node in nodes]),
        "forces": np.array([node.label.forces for node in nodes]),
        "parents": np.array([-1 if node.parent is None else number[node.parent] for node in nodes]),
        "integers": np.array([(node.level, node.relax_steps, node.attempt) for node in nodes]),
        "sigmas": np.array([np.nan if node.sigma is None else node.sigma for node in nodes]),
    }


def nodes_of(system: System, arrays: Mapping[str, NDArray[Any]]) -> list[Node]:
    """The nodes in the arrays from `as_arrays`."""
    nodes = []
    for k, (positions, cell) in enumerate(zip(arrays["positions"], arrays["cells"], strict=True)):
        level, steps, attempt = (int(x) for x in arrays["integers"][k])
        parent, sigma = int(arrays["parents"][k]), float(arrays["sigmas"][k])
        label = Label(float(arrays["energies"][k]), arrays["forces"][k])
        own_origin = (
            None if parent < 0 else f"{system.name}-{parent}",
            steps,
            None if np.isnan(sigma) else sigma,
        )
        frame = system.frame.moved(positions, cell)
        nodes.append(Node(f"{system.name}-{k}", frame, label, level, *own_origin, attempt))
    return nodes
