"""When an uncertainty is too large (Eq. 2 of arXiv:2508.12888):

δ = (1 + c_x) · mean(last ≤ 400 uncertainties),    δ = ∞ during the first 10 evaluations
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

MEMORY = 400  # evaluations the mean looks back on
WARM_UP = 10  # evaluations before there is a threshold


@dataclass(frozen=True)
class Threshold:
    """The recent uncertainties and, once frozen, the value that no longer moves (eV/Å).

    history: (mean, number of values) of each evaluation; one value, or one an atom for ensemble_sd, so that
    systems of different size are averaged over all their atoms.
    """

    history: tuple[tuple[float, int], ...] = ()
    frozen: float | None = None

    def value(self, c_x: float) -> float:
        """δ in eV/Å as it stands now."""
        if self.frozen is not None:
            return self.frozen
        if len(self.history) < WARM_UP:
            return math.inf
        total = math.fsum(mean * n for mean, n in self.history)
        return (1 + c_x) * total / sum(n for _, n in self.history)

    def seen(self, uncertainty: tuple[float, ...]) -> Threshold:
        """With one more evaluation. Raises ValueError for a value that is not finite: it would poison δ."""
        if not all(map(math.isfinite, uncertainty)):
            raise ValueError("an uncertainty that is not finite must not enter the threshold")
        if self.frozen is not None:
            return self
        entry = (math.fsum(uncertainty) / len(uncertainty), len(uncertainty))
        return replace(self, history=(*self.history, entry)[-MEMORY:])

    def freeze(self, c_x: float) -> Threshold:
        """Frozen at its present value; while there is none yet, freezing waits."""
        value = self.value(c_x)
        return self if self.frozen is not None or math.isinf(value) else replace(self, frozen=value)
