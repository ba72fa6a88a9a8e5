"""Training before exploration: models that have just begun to learn would explore structures that no MD visits.

TRAIN  -- the force error fell by more than MARGIN -->  TRAIN
TRAIN  -- not so for PATIENCE epochs, or limit ------>  exploration begins
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

PATIENCE = 10  # epochs without improvement
MARGIN = 0.02  # relative decrease of the force error that counts as an improvement


@dataclass(frozen=True)
class WarmUp:
    """Epochs before exploration. limit: at most so many; best: lowest mean force MAE so far, eV/Å, at best_epoch."""

    limit: int = 0
    epochs: int = 0
    best: float = math.inf
    best_epoch: int = 0

    def trained(self, epochs: int, force_mae: float) -> WarmUp:
        """After so many more epochs, with this force MAE (eV/Å) on the validation set."""
        after = replace(self, epochs=self.epochs + epochs)
        if force_mae < self.best * (1 - MARGIN):
            return replace(after, best=force_mae, best_epoch=after.epochs)
        return after

    @property
    def done(self) -> bool:
        """Whether exploration may begin."""
        return self.epochs >= self.limit or self.epochs - self.best_epoch >= PATIENCE
