"""An equivariant network after PaiNN (Schütt et al., ICML 2021): scalars and vectors on the atoms, messages from
neighbours, with the noise level (and a property) in every layer by feature-wise scale and shift (FiLM).

Rotating the structure rotates the vectors; permuting atoms permutes the output. Fixed atoms send messages and
receive none.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

HEIGHTS = 12  # radial functions of the height between two walls
WAVES = 8  # frequencies of the noise level
LEAST_SHARE = 1e-4  # of an element among masked atoms


@dataclass(frozen=True)
class Neighbourhood:
    """Neighbours of R receiving atoms, at most K each, padded.

    receiver: (R,) atoms. sender: (R, K) atoms. vectors: (R, K, 3) from receiver to sender, in units of the radial
    functions. present: (R, K) 1 or 0. scale: (R, 1) what sums over neighbours are multiplied by.
    heights: (A,) place between the walls from 0 to 1, or None.
    """

    receiver: Tensor
    sender: Tensor
    vectors: Tensor
    present: Tensor
    scale: Tensor
    heights: Tensor | None = None

    def of_senders(self, values: Tensor) -> Tensor:
        """(A, F) → (R, K, F): values of the atoms that messages come from."""
        return values.index_select(0, self.sender.reshape(-1)).view(*self.sender.shape, -1)


class ScoreNetwork(nn.Module):
    """Vectors (A, 3) and, with `classes`, scores of the elements (A, classes).

    types: number of classes of atoms at the input. features: width. blocks: layers. reach: the largest distance that
    radial functions resolve. smooth: whether messages vanish at `reach`. heights: whether atoms have a height.
    condition: 0 none, 1 a scalar, n > 1 one of n classes. composition: whether elements of masked atoms are counted.
    """

    def __init__(
        self,
        types: int,
        features: int = 32,
        blocks: int = 3,
        radial: int = 24,
        reach: float = 6.0,
        smooth: bool = False,
        heights: bool = False,
        classes: int = 0,
        condition: int = 0,
        composition: bool = False,
    ) -> None:
        super().__init__()
        F = features
        self.features, self.reach, self.smooth, self.condition = F, reach, smooth, condition
        self.centres: Tensor
        self.register_buffer("centres", torch.linspace(0, reach, radial), persistent=False)
        self.sharpness = (radial - 1) / reach
        self.element = nn.Embedding(types, F)
        self.held = nn.Parameter(torch.zeros(F))
        self.level = nn.Sequential(nn.Linear(2 * WAVES, F), nn.SiLU(), nn.Linear(F, F))
        if condition == 1:
            self.scalar = nn.Sequential(nn.Linear(2 * WAVES + 1, F), nn.SiLU(), nn.Linear(F, F))
        if condition > 1:
            self.integer = nn.Embedding(condition, F)
        if condition:
            self.unconditional = nn.Parameter(torch.zeros(F))
        if composition:
            self.shares = nn.Sequential(nn.Linear(classes, F), nn.SiLU(), nn.Linear(F, F))
            self.any_shares = nn.Parameter(torch.zeros(F))
        if heights:
            self.height = nn.Linear(HEIGHTS, F)
            self.height_vector = nn.Linear(HEIGHTS, F)
        self.layers = nn.ModuleList([_Layer(F, radial) for _ in range(blocks)])
        self.vector = nn.Linear(F, 1, bias=False)
        self.gate = nn.Sequential(nn.Linear(F, F), nn.SiLU(), nn.Linear(F, 1))
        nn.init.zeros_(self.vector.weight)
        if classes:
            self.classify = nn.Sequential(nn.Linear(F, F), nn.SiLU(), nn.Linear(F, classes))
        self.classes = classes

    def forward(
        self,
        near: Neighbourhood,
        types: Tensor,
        free: Tensor,
        graph: Tensor,
        level: Tensor,
        condition: Tensor | None = None,
        known: Tensor | None = None,
        shares: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """types, graph: (A,); free: (A,) bool; level: (B,); condition: (B,); known: (B,) bool, where it is given.

        shares: (B, classes) of the elements among the masked atoms, not a number where nobody knows them.
        """
        state = self.level(_waves(level)) + self._conditioned(level, condition, known)
        if shares is not None:
            counted = ~shares.isnan().any(1, keepdim=True)
            shares = shares.nan_to_num(0.0)
            state = state + torch.where(counted, self.shares(shares), self.any_shares)
        h = self.element(types) + state[graph] + (~free).to(state.dtype)[:, None] * self.held
        v = None
        if near.heights is not None:
            shape = _bumps(near.heights)
            h = h + self.height(shape)
            up = self.height_vector(shape) * free.to(h.dtype)[:, None]
            v = torch.stack([torch.zeros_like(up), torch.zeros_like(up), up], 1)
        r = (near.vectors.square().sum(-1) + 1e-8).sqrt()
        unit = near.vectors / (r[..., None] + 1e-3)
        radial = torch.exp(-0.5 * ((r[..., None] - self.centres) * self.sharpness).square())
        weight = near.present * near.scale
        if self.smooth:
            weight = weight * (0.5 * torch.cos(torch.pi * (r / self.reach).clamp_max(1)) + 0.5)
        for layer in self.layers:
            h, v = layer(h, v, state[graph], radial, unit, weight[..., None], near)
        out = self.vector(v)[..., 0] * self.gate(h)
        if not self.classes:
            return out, None
        scores = self.classify(h)
        if shares is not None:  # before anything is learnt, each masked atom has the elements of the rest
            scores = scores + torch.where(counted, (shares + LEAST_SHARE).log(), 0.0)[graph]
        return out, scores

    def _conditioned(self, level: Tensor, condition: Tensor | None, known: Tensor | None) -> Tensor:
        if not self.condition:
            return level.new_zeros((len(level), self.features))
        nothing = self.unconditional.expand(len(level), -1)
        if condition is None:
            return nothing
        if self.condition == 1:
            found = self.scalar(torch.cat([_waves(condition), condition[:, None]], 1))
        else:
            found = self.integer(condition.long())
        return found if known is None else torch.where(known[:, None], found, nothing)


class _Layer(nn.Module):
    def __init__(self, F: int, radial: int) -> None:
        super().__init__()
        self.film = nn.Linear(F, 2 * F)
        self.radial = nn.Sequential(nn.Linear(radial, F), nn.SiLU(), nn.Linear(F, 3 * F))
        self.message = nn.Sequential(nn.Linear(F, F), nn.SiLU(), nn.Linear(F, 3 * F))
        self.mix = nn.Linear(F, 2 * F, bias=False)
        self.update = nn.Sequential(nn.Linear(2 * F, F), nn.SiLU(), nn.Linear(F, 3 * F))

    def forward(
        self,
        h: Tensor,
        v: Tensor | None,
        state: Tensor,
        radial: Tensor,
        unit: Tensor,
        weight: Tensor,
        near: Neighbourhood,
    ) -> tuple[Tensor, Tensor]:
        """v: (A, 3, F), or None where all vectors are zero."""
        a, b = self.film(state).chunk(2, -1)
        h = h * (1 + a) + b
        dh, dv = self._messages(h, v, self._weights(radial, weight), unit, near)
        if len(near.receiver) < len(h):
            dh = h.new_zeros(h.shape).index_add(0, near.receiver, dh)
            dv = h.new_zeros((len(h), *dv.shape[1:])).index_add(0, near.receiver, dv)
        h, v = h + dh, dv if v is None else v + dv
        U, V = self.mix(v).chunk(2, -1)
        size = (V.square().sum(1) + 1e-8).sqrt()
        a, b, c = self.update(torch.cat([h, size], -1)).chunk(3, -1)
        return h + a + b * (U * V).sum(1), v + c[:, None] * U

    def _weights(self, radial: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Three times (R, K, F): `radial(…) · weight`, each contiguous, which makes all that follows twice as fast."""
        outer = self.radial[2]
        assert isinstance(outer, nn.Linear)
        inner = torch.cat([self.radial[:2](radial) * weight, weight], -1)
        ws, wv, wu = torch.cat([outer.weight, outer.bias[:, None]], 1).chunk(3)
        return inner @ ws.T, inner @ wv.T, inner @ wu.T

    def _messages(
        self, h: Tensor, v: Tensor | None, weights: tuple[Tensor, ...], unit: Tensor, near: Neighbourhood
    ) -> tuple[Tensor, Tensor]:
        """(R, F) and (R, 3, F): sums over the neighbours."""
        ws, wv, wu = weights
        ps, pv, pu = self.message(h).chunk(3, -1)
        dh = (ws * near.of_senders(ps)).sum(1)
        dv = unit.transpose(1, 2) @ (wu * near.of_senders(pu))
        if v is not None:
            carried = (pv[:, None] * v).unbind(1)
            dv = dv + torch.stack([(wv * near.of_senders(c)).sum(1) for c in carried], 1)
        return dh, dv


def _waves(x: Tensor) -> Tensor:
    """(B, 2·WAVES) sines and cosines of a number of order one."""
    f = torch.arange(1, WAVES + 1, dtype=x.dtype) * 0.5
    return torch.cat([torch.sin(x[:, None] * f), torch.cos(x[:, None] * f)], 1)


def _bumps(u: Tensor) -> Tensor:
    """(A, HEIGHTS) Gaussians of a number between 0 and 1."""
    centres = torch.linspace(0, 1, HEIGHTS, dtype=u.dtype)
    return torch.exp(-0.5 * ((u[:, None] - centres) * (HEIGHTS - 1)).square())
