"""rattle_tree: structures from family trees of rattled, briefly relaxed children (`samplers.family_trees`).

>>> from ase.calculators.emt import EMT
>>> from aims_pax.frames import Frame
>>> from aims_pax.potential import CalculatorPotential
>>> from aims_pax.systems import System
>>> cu4 = Frame([29] * 4, [[0, 0, 0], [2.4, 0, 0], [1.2, 2.1, 0], [1.2, 0.7, 2.0]])
>>> sampler = RattleTreeSampler(CalculatorPotential(EMT), temperature=500, sigma_range=(0.1, 0.2))
>>> samples = list(sampler.sample([System("cu4", cu4)], 3, np.random.default_rng(1)))
>>> [(s.origin["id"], s.origin["parent"]) for s in samples]
[('cu4-1', 'cu4-0'), ('cu4-2', 'cu4-0'), ('cu4-3', 'cu4-1')]
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from aims_pax.errors import Abandoned
from aims_pax.potential import Potential
from aims_pax.sampler import Sample, Sampler, SamplingError, under
from aims_pax.samplers.family_trees import Node, Tree, as_arrays, grow, nodes_of
from aims_pax.samplers.rattle import CELL_CHANGE, Rattling
from aims_pax.settings.augment import OptionalReal, Range, RattleSettings
from aims_pax.settings.fields import Real, key
from aims_pax.settings.samplers import (
    TEMPERATURE,
    SamplerContext,
    SamplerSettings,
    SamplingCost,
    SamplingDemand,
    register_sampler,
)
from aims_pax.systems import System


@register_sampler("rattle_tree")
class RattleTreeSettings(SamplerSettings, RattleSettings):
    """rattle_tree: families of rattled, briefly relaxed structures."""

    prose: ClassVar[str] = (
        "families of structures: a parent is chosen by energy and generation, rattled, relaxed a few steps, and "
        "accepted if it is new ([Gardner et al.](https://arxiv.org/abs/2506.10956))"
    )
    cost_words: ClassVar[Mapping[str, str]] = {"rattle_tree_at_least": "at least {} of rattle_tree"}

    temperature: OptionalReal = key(
        None, "Temperature of the Boltzmann factors (K); `None`: that of MD.", **TEMPERATURE
    )
    beta: Real = key(
        0.5,
        "Weight of low energies (1) against late generations (0) when a parent is chosen.",
        possible="[0, 1]",
    )
    sigma_range: Range = key(
        (0.05, 0.2),
        "Smallest and largest σ of the rattled positions (Å); log-uniform between them.",
        unit="Å",
        possible="(0, 10]",
        plausible="[0.001, 1]",
    )

    def make(self, context: SamplerContext) -> Sampler:
        """Trees that continue from batch to batch."""
        return RattleTreeSampler(
            context.potential(), self.label, context.stop, continues=True,
            temperature=self.temperature or context.temperature, **self.rattling(),
        )  # fmt: skip

    def refuses(self, system: System) -> Iterator[tuple[str, str]]:
        """A cell that must not change."""
        if self.cell_sigma is not None and (reason := system.refuses_cell_change(*CELL_CHANGE)) is not None:
            yield "cell_sigma", reason

    def cost(self, demand: SamplingDemand) -> SamplingCost:
        """At least one evaluation of each child and root; more for relaxation and rejected children."""
        return SamplingCost(evaluations={"rattle_tree_at_least": demand.made + len(demand.systems)})


class RattleTreeSampler:
    """Rattled family trees of all systems, grown together with one potential.

    rattling: the fields of `Rattling`. stop: checked before every evaluation; when True, Abandoned is raised.
    continues: the next call of `sample` continues the same trees instead of starting new ones.
    """

    def __init__(
        self,
        potential: Potential,
        name: str = "rattle_tree",
        stop: Callable[[], bool] = lambda: False,
        continues: bool = False,
        **rattling: float | int | str | tuple[float, float] | None,
    ) -> None:
        self.potential = potential
        self.name = name
        self.stop = stop
        self.continues = continues
        self.rattling = Rattling(**rattling)  # type: ignore[arg-type]
        self._grown: dict[str, dict[str, NDArray[Any]]] = {}  # system → its tree, as arrays

    def sample(self, systems: Sequence[System], n: int, rng: np.random.Generator) -> Iterator[Sample]:
        """n children of each system, one of each in turn; the systems themselves are not among them.

        Raises SamplingError when a tree rejects too many children in a row, and for a fixed cell with `cell_sigma`.
        """
        if self.rattling.cell_sigma is not None:
            for reason in filter(None, (s.refuses_cell_change(*CELL_CHANGE) for s in systems)):
                raise SamplingError(reason)
        seed = int(rng.integers(2**63))
        trees = [self._tree(s, seed) for s in systems] if n else []
        goals = [max(1, len(tree.nodes)) + n for tree in trees]
        ready: dict[str, deque[Node]] = {tree.name: deque() for tree in trees}
        for tree, node in grow(trees, goals, self.potential, self._check):
            if node is None:
                raise SamplingError(tree.given_up)
            if node.level:
                ready[tree.name].append(node)
            while all(ready.values()):
                for name, queue in ready.items():
                    yield self._sample(name, queue.popleft())
        if self.continues:
            self._grown |= {tree.name: as_arrays(tree) for tree in trees}

    def state_arrays(self) -> dict[str, NDArray[Any]]:
        """The trees."""
        return {f"{name}/{k}": a for name, arrays in self._grown.items() for k, a in arrays.items()}

    def load_state_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Restore the state from `state_arrays`."""
        names = dict.fromkeys(name.partition("/")[0] for name in arrays)
        self._grown = {name: under(name, arrays) for name in names}

    def _tree(self, system: System, seed: int) -> Tree:
        known = self._grown.get(system.name)
        if known is None:
            return Tree(system.name, system.frame, self.rattling, seed)
        nodes = nodes_of(system, known)
        return Tree(system.name, system.frame, self.rattling, int(known["seed"]), nodes)

    def _sample(self, system: str, node: Node) -> Sample:
        own_origin: dict[str, str | int | float] = {
            "sampler": self.name,
            "system": system,
            "temperature": float(self.rattling.temperature),
        }
        return Sample(node.frame, None, own_origin | node.origin())

    def _check(self) -> None:
        if self.stop():
            raise Abandoned
