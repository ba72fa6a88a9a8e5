"""The threshold of the uncertainty (Eq. 2 of arXiv:2508.12888):

δ = (1 + c_x) · mean(last ≤ 400 uncertainties),    δ = ∞ during the first 10 evaluations
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

MEMORY = 400  # evaluations in the mean
WARM_UP = 10  # evaluations before there is a threshold


@dataclass(frozen=True)
class Threshold:
    """The recent uncertainties and, once frozen, the constant value (eV/Å).

    history: (mean, number of values) of each evaluation; one value, or one per atom for ensemble_sd, so that
    systems of different size are averaged over all their atoms.
    """

    history: tuple[tuple[float, int], ...] = ()
    frozen: float | None = None

    def value(self, c_x: float) -> float:
        """The current δ in eV/Å."""
        if self.frozen is not None:
            return self.frozen
        if len(self.history) < WARM_UP:
            return math.inf
        total = math.fsum(mean * n for mean, n in self.history)
        return (1 + c_x) * total / sum(n for _, n in self.history)

    def seen(self, uncertainty: tuple[float, ...]) -> Threshold:
        """The threshold after one more evaluation. Raises ValueError for a value that is not finite."""
        if not all(map(math.isfinite, uncertainty)):
            raise ValueError("an uncertainty that is not finite must not enter the threshold")
        if self.frozen is not None:
            return self
        entry = (math.fsum(uncertainty) / len(uncertainty), len(uncertainty))
        return replace(self, history=(*self.history, entry)[-MEMORY:])

    def freeze(self, c_x: float) -> Threshold:
        """The threshold frozen at its current value; unchanged while δ is infinite."""
        value = self.value(c_x)
        return self if self.frozen is not None or math.isinf(value) else replace(self, frozen=value)
