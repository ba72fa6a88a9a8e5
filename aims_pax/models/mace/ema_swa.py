"""Averages of weights: the exponential moving average (EMA) of training, and the equal-weight mean of epochs (SWA)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch


class ExponentialMovingAverage:
    """Exponential moving average of the weights, s ← d·s + (1 − d)·w with d = min(decay, (1 + n)/(10 + n)).

    The warm-up is important: with a fixed 0.99 the average lags behind by about 100 steps, and a visit has about 16.
    With `decay` None the average equals the weights.
    """

    def __init__(self, parameters: list[torch.nn.Parameter], decay: float | None) -> None:
        self.parameters, self.decay = parameters, decay
        self.shadow = [p.detach().clone() for p in parameters]
        self.updates = 0

    def restart(self) -> None:
        """Start a new average from the current weights."""
        self.updates = 0
        self._copy()

    @torch.no_grad()
    def update(self) -> None:
        """Update the average; to be called after each optimiser step."""
        self.updates += 1
        if self.decay is None:
            self._copy()
            return
        d = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for shadow, weight in zip(self.shadow, self.parameters, strict=True):
            shadow.lerp_(weight, 1 - d)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Use the averaged weights in the model inside the block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def adopt(self) -> None:
        """Set the weights to the averaged ones."""
        for shadow, weight in zip(self.shadow, self.parameters, strict=True):
            weight.copy_(shadow)

    @torch.no_grad()
    def _copy(self) -> None:
        for shadow, weight in zip(self.shadow, self.parameters, strict=True):
            shadow.copy_(weight)

    def _swap(self) -> None:
        for k, weight in enumerate(self.parameters):
            weight.data, self.shadow[k] = self.shadow[k], weight.data


class EqualWeightMean:
    """The mean of the weights at the end of several epochs (stochastic weight averaging, arXiv:1803.05407)."""

    def __init__(self) -> None:
        self.sum: list[torch.Tensor] | None = None
        self.epochs = 0

    def add(self, weights: Sequence[torch.Tensor], restart: bool) -> None:
        """Add the weights after one more epoch; `restart` starts a new mean with them."""
        weights = [w.detach().clone() for w in weights]
        if restart or self.sum is None:
            self.sum, self.epochs = weights, 1
        else:
            self.sum = [t + w for t, w in zip(self.sum, weights, strict=True)]
            self.epochs += 1

    def mean(self) -> list[torch.Tensor] | None:
        """The mean; None for fewer than two epochs."""
        return None if self.sum is None or self.epochs < 2 else [t / self.epochs for t in self.sum]
