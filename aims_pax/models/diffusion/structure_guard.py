"""Which generated structures are refused, and why: nothing that is not finite, too close, detached or spread out
leaves.

| reason      | a structure is refused when                                                                         |
|-------------|-----------------------------------------------------------------------------------------------------|
| not finite  | a coordinate is not a number, or further than 10⁴ Å away                                            |
| too close   | a pair is nearer than 0.7 of the sum of the covalent radii, or 0.85 of the shortest in the data     |
| detached    | an atom's nearest neighbour is further away than 1.5 times the largest such distance in the data   |
| spread out  | without a cell, an atom is further from the centre than 1.3 times the largest distance in the data  |
| outside     | a generated atom is not between the walls                                                           |
| forces      | after a relaxation, a force is larger than the limit                                                |
| not calculated | the potential of the relaxation, or of the limit of forces, fails on it                          |
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.data import atomic_numbers, covalent_radii

from aims_pax.models.diffusion.atoms_graph import AtomsGraph
from aims_pax.models.diffusion.training_data import DataSummary, closest_pairs, extent, lonely_distances

FARTHEST = 1e4  # Å
COVALENT, SHORTEST, LONELIEST, WIDEST = 0.7, 0.85, 1.5, 1.3


@dataclass(frozen=True)
class StructureGuard:
    """The limits of one model. covalent: smallest distance as a fraction of the sum of the covalent radii."""

    data: DataSummary
    covalent: float = COVALENT

    def refusal(self, graph: AtomsGraph) -> str | None:
        """Why a structure is refused, as `reason: details`; None if it passes."""
        if not np.isfinite(graph.pos).all() or abs(graph.pos).max(initial=0) > FARTHEST:
            return "not finite: a coordinate is not a number, or very large"
        if text := self._outside(graph) or self._too_close(graph):
            return text
        alone = lonely_distances(graph, max(8.0, 1.1 * LONELIEST * self.data.loneliest))[~graph.fixed]
        limit = LONELIEST * self.data.loneliest
        if len(graph) > 1 and alone.max(initial=0.0) > limit:
            return (
                f"detached: an atom is {alone.max():.1f} Å from its nearest neighbour, more than {limit:.1f}"
            )
        reach = extent(graph)
        if self.data.radius and reach > WIDEST * self.data.radius:
            return f"spread out: an atom is {reach:.1f} Å from the centre, more than {WIDEST * self.data.radius:.1f}"
        return None

    def shortest(self, pair: str) -> float:
        """Å: the smallest distance allowed for a pair such as `Cu-Pd`."""
        a, b = (covalent_radii[atomic_numbers[symbol]] for symbol in pair.split("-"))
        return max(self.covalent * float(a + b), SHORTEST * self.data.nearest.get(pair, 0.0))

    def _too_close(self, graph: AtomsGraph) -> str | None:
        for pair, d in closest_pairs(graph).items():
            if d < self.shortest(pair):
                return f"too close: {pair} {d:.2f} Å, less than {self.shortest(pair):.2f}"
        return None

    def _outside(self, graph: AtomsGraph) -> str | None:
        if graph.confinement is None:
            return None
        low, high = graph.confinement
        z = graph.pos[~graph.fixed, 2]
        if len(z) and (z.min() < low or z.max() > high):
            return f"outside: z from {z.min():.2f} to {z.max():.2f} Å, walls at {low:g} and {high:g}"
        return None
