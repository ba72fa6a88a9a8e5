"""From the prior to structures: the noise level falls from σ_max to 0, step by step.

    heun_ode   dx/dσ = −d/σ, second order                                 (Karras et al., Algorithm 1)
    heun       the same, with noise added before each step                (Karras et al., Algorithm 2)
    ddim       dx/dσ = −d/σ, first order: x + d·(1 − σ'/σ)
    em         x + (1 − σ'²/σ²)·d + √(σ² − σ'²)·n                         Euler–Maruyama of the reverse SDE
    pc         ddim, then Langevin steps at σ': x + (τ/σ'²)·d + √(2τ)·n   the stationary law is p_σ'

d = D(x, σ) − x = σ²·∇ log p_σ(x), n standard normal. Masked elements are drawn on the way: from σ to σ' each is
revealed with the probability 1 − t'/t, t the time of the schedule.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from aims_pax.models.diffusion.atoms_graph import BatchedGraphs
from aims_pax.models.diffusion.denoiser import Denoises
from aims_pax.models.diffusion.noise_schedule import NoiseSchedule
from aims_pax.models.diffusion.noisers import PositionNoiser

REVERSE_SAMPLERS = ("heun", "heun_ode", "ddim", "em", "pc")
DEFAULT_SAMPLER = "heun"
CHURN = 0.4142135623730951  # √2 − 1: the largest relative increase of σ before a Heun step
S_CHURN = 12.0  # Karras et al.: sum of these increases, whatever the number of steps
CORRECTOR = 0.1  # τ/σ²; the narrowest direction of p_σ has the variance σ² at least


@dataclass(frozen=True)
class ReverseProcess:
    """One way of sampling a model. steps: noise levels. corrector_steps: Langevin steps at each level, of `pc`.

    noiser: None when only elements are generated. masked: class of atoms whose element is masked; None without types.
    churn: sum of the relative increases of σ before the steps of `heun`, √2 − 1 at most in each.
    stop: called at every step; it raises when sampling should end. watch: called with (σ, positions) at every level.
    """

    denoise: Denoises
    noiser: PositionNoiser | None
    schedule: NoiseSchedule
    sampler: str = DEFAULT_SAMPLER
    steps: int = 40
    corrector_steps: int = 1
    churn: float = S_CHURN
    masked: int | None = None
    stop: Callable[[], None] = lambda: None
    watch: Callable[[float, Tensor], None] = lambda sigma, pos: None

    def run(
        self,
        batch: BatchedGraphs,
        pos: Tensor,
        classes: Tensor,
        generator: torch.Generator,
        left: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Positions (A, 3) and classes (A,) of new structures.

        pos: where the fixed atoms are, and where all are if positions are not generated. classes: (A,), masked where
        the element is generated. left: (B, V) how many atoms of each element are to be generated, counted down in
        place; None: any number.
        """
        s = self.schedule
        if self.noiser is not None:
            width = (s.high**2 + s.data**2) ** 0.5
            pos = self.noiser.settled(batch, self.noiser.prior(batch, pos, width, generator))
        levels = s.levels(self.steps)
        for now, after in itertools.pairwise(levels):
            self.stop()
            self.watch(float(now), pos)
            pos, scores = self._step(batch, pos, classes, now, after, generator)
            if self.masked is not None and scores is not None:
                classes = self._reveal(batch, classes, scores, now, after, generator, left)
            if self.sampler == "pc" and after > 0:
                for _ in range(self.corrector_steps):
                    pos = self.corrected(batch, pos, classes, after, generator)
        return pos, classes

    def corrected(
        self, batch: BatchedGraphs, pos: Tensor, classes: Tensor, sigma: Tensor, generator: torch.Generator
    ) -> Tensor:
        """One step of Langevin dynamics at a constant noise level."""
        if self.noiser is None:
            return pos
        d, _ = self.denoise(batch, pos, classes, sigma.expand(len(batch)))
        noise = self._noise(batch, (2 * CORRECTOR) ** 0.5 * sigma, generator)
        return self.noiser.settled(batch, pos + CORRECTOR * d + noise)

    def _step(
        self,
        batch: BatchedGraphs,
        pos: Tensor,
        classes: Tensor,
        now: Tensor,
        after: Tensor,
        g: torch.Generator,
    ) -> tuple[Tensor, Tensor | None]:
        if self.noiser is None:
            return pos, self.denoise(batch, pos, classes, now.expand(len(batch)))[1]
        if self.sampler == "heun" and self.churn and now < self.schedule.high:
            higher = now * (1 + min(self.churn / self.steps, CHURN))
            pos = pos + self._noise(batch, (higher**2 - now**2).sqrt(), g)
            pos, now = self.noiser.settled(batch, pos), higher
        d, scores = self.denoise(batch, pos, classes, now.expand(len(batch)))
        share = 1 - after / now
        if self.sampler == "em":
            moved = pos + (1 - (after / now) ** 2) * d
            if after > 0:
                moved = moved + self._noise(batch, (now**2 - after**2).sqrt(), g)
        elif self.sampler in ("heun", "heun_ode") and after > 0:
            ahead = self.noiser.settled(batch, pos + share * d)
            d2, _ = self.denoise(batch, ahead, classes, after.expand(len(batch)))
            moved = pos + (now - after) * 0.5 * (d / now + d2 / after)
        else:
            moved = pos + share * d
        return self.noiser.settled(batch, moved), scores

    def _noise(self, batch: BatchedGraphs, sigma: Tensor, g: torch.Generator) -> Tensor:
        assert self.noiser is not None
        return self.noiser.noise(batch, sigma.expand(len(batch)), g)

    def _reveal(
        self,
        batch: BatchedGraphs,
        classes: Tensor,
        scores: Tensor,
        now: Tensor,
        after: Tensor,
        g: torch.Generator,
        left: Tensor | None,
    ) -> Tensor:
        t, u = (float(self.schedule.time(s)) for s in (now, after))
        chance = 1.0 if t <= 0 else 1 - u / t
        drawn = torch.rand(len(classes), generator=g, dtype=torch.float64) < chance
        shown = torch.nonzero(drawn & (classes == self.masked))[:, 0]
        order = torch.rand(len(shown), generator=g).argsort()
        classes = classes.clone()
        for atom in shown[order].tolist():
            weight = torch.softmax(scores[atom].double(), 0) + 1e-12
            if left is not None:
                weight = weight * (left[batch.graph[atom]] > 0)
            kind = int(torch.multinomial(weight, 1, generator=g))
            classes[atom] = kind
            if left is not None:
                left[batch.graph[atom], kind] -= 1
        return classes
