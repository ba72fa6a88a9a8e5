"""The symmetric contraction of MACE, with U and W contracted first, independently of the atoms.

For an atom of element z, channel c and output component M (Batatia et al., NeurIPS 2022, eqs. 10 and 11)

    B_M = Σ_ν Σ_{i1…iν} Σ_p U^ν_{M i1…iν p} W^ν_{z p c} x_{i1 c} … x_{iν c}

is a polynomial of degree ν ≤ 3 in the D numbers x_{·c}. Every monomial x_k x_i x_j (k ≤ i ≤ j) is computed once:

    B_M = Σ_k x_k Σ_q C_{z c, M k q} P_q,        P = (1, x_i, x_i x_j)

C = U·W does not depend on the atoms. A monomial is assigned to its lowest index k, so an x_k of degree l needs only
those P with indices of degree l and above. These come first in P: each degree uses a leading part of it.
Neighbouring degrees share one matrix product, with the longer of their parts, if each alone would have few rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations_with_replacement, product
from typing import Any

import torch

ORDERS = 3  # the highest correlation that is precontracted; P grows as D²
ROWS = 16  # of a matrix product; with fewer rows it takes about the same time


class Coupling:
    """The constants of one product block, to compute C from its weights, and B from C and x.

    contractions: MACE's `Contraction` modules, one for each degree of the output. ls: degrees of x, in order.
    Raises ValueError for a correlation above `ORDERS`.
    """

    def __init__(self, contractions: Iterable[Any], ls: Sequence[int], device: torch.device) -> None:
        contractions = list(contractions)
        orders = {int(c.correlation) for c in contractions}
        if len(orders) != 1 or max(orders) > ORDERS:
            raise ValueError(f"correlation {sorted(orders)}")
        self.order = orders.pop()
        self.dims = [2 * ell + 1 for ell in ls]
        D = sum(self.dims)
        self.rows = _rows(self.dims, self.order)
        leading = [sum(min(row, default=D) >= s for row in self.rows) for s in _starts(self.dims)]
        self.factors = torch.tensor(self.rows, dtype=torch.int64).T.contiguous().to(device)  # (ν − 1, rows)
        self.components = [_components(c) for c in contractions]
        self.blocks = self._blocks(leading)
        self.constants = [self._constants(c, device) for c in contractions]

    def contract(self, parameters: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """C for each block of x: (Z, channels, nM·d, leading part). parameters: of the product block."""
        parts: list[list[torch.Tensor]] = [[] for _ in self.blocks]
        for k, (constants, nM) in enumerate(zip(self.constants, self.components, strict=True)):
            name = f"symmetric_contractions.contractions.{k}."
            names = [f"weights.{n}" for n in reversed(range(self.order - 1))] + ["weights_max"]  # ν = 1, 2, …
            W = torch.cat([parameters[name + n] for n in names], dim=1)  # (Z, p, C)
            Z, _, channels = W.shape
            flat = W.transpose(1, 2).reshape(Z * channels, -1) @ constants  # (Z·C, all entries)
            sizes = [nM * d * n for d, n in self.blocks]
            for q, (part, (d, n)) in enumerate(zip(flat.split(sizes, dim=1), self.blocks, strict=True)):
                parts[q].append(part.reshape(Z, channels, nM * d, n))
        return [p[0] if len(p) == 1 else torch.cat(p, dim=2) for p in parts]

    def monomials(self, x: torch.Tensor) -> torch.Tensor:
        """P (channels, rows, A) of x (channels, D, A)."""
        one = torch.ones_like(x[:, :1])
        padded = torch.cat([x, one], dim=1)
        P = one
        for k, factor in enumerate(self.factors):
            chosen = padded.index_select(1, factor)
            P = chosen if k == 0 else P * chosen
        return P

    def __call__(self, C: Sequence[torch.Tensor], x: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
        """B (channels, all components, A) of x (channels, D, A): counts[z] atoms of each element, in order."""
        channels, nM = len(x), sum(self.components)
        P = self.monomials(x).split(list(counts), dim=2)
        parts = []
        for c, (d, n) in zip(C, self.blocks, strict=True):
            made = [torch.bmm(own, p[:, :n]) for own, p in zip(c.unbind(), P, strict=True) if p.shape[2]]
            parts.append(_joined(made, 2).view(channels, nM, d, x.shape[2]))
        return (_joined(parts, 2) * x[:, None]).sum(2)

    def _blocks(self, leading: Sequence[int]) -> list[tuple[int, int]]:
        """(number of components of x, leading part of P) of each matrix product: whole degrees, from the lowest."""
        nM, blocks = sum(self.components), []
        d, n = 0, 0
        for own, part in zip(self.dims, leading, strict=True):
            d, n = d + own, n or part
            if self.order == ORDERS and nM * d >= ROWS:
                blocks.append((d, n))
                d, n = 0, 0
        return [*blocks, (d, n)] if d else blocks

    def _constants(self, contraction: Any, device: torch.device) -> torch.Tensor:
        """(weights, entries): for each block of x the entries (M, k, leading part) flattened, one after another."""
        nM, D, rows = _components(contraction), sum(self.dims), len(self.rows)
        place = {row: q for q, row in enumerate(self.rows)}
        blocks = []
        for nu in range(1, self.order + 1):
            U = getattr(contraction, f"U_matrix_{nu}").double().cpu()
            flat = U.movedim(-1, 0).reshape(U.shape[-1], nM, D**nu)
            target = torch.empty(D**nu, dtype=torch.int64)
            for n, indices in enumerate(product(range(D), repeat=nu)):
                k, *others = sorted(indices)
                target[n] = k * rows + place[*others, *[D] * (self.order - nu)]
            folded = torch.zeros((len(flat), nM, D * rows), dtype=torch.float64)
            blocks.append(folded.index_add_(2, target, flat))
        dense = torch.cat(blocks).view(-1, nM, D, rows)
        parts = zip(dense.split([d for d, _ in self.blocks], dim=2), self.blocks, strict=True)
        flat = torch.cat([part[..., :n].flatten(1) for part, (_, n) in parts], dim=1)
        return flat.to(device, contraction.U_matrix_1.dtype)


def _joined(parts: Sequence[torch.Tensor], dim: int) -> torch.Tensor:
    return torch.cat(list(parts), dim) if len(parts) > 1 else parts[0]


def _components(contraction: Any) -> int:
    """2l + 1 of the output; MACE removes this dimension for scalars."""
    U = contraction.U_matrix_1
    return 1 if U.dim() == 2 else len(U)


def _starts(dims: Sequence[int]) -> list[int]:
    return [sum(dims[:n]) for n in range(len(dims))]


def _rows(dims: Sequence[int], order: int) -> list[tuple[int, ...]]:
    """The indices of each monomial of degree below `order`, where index D means 1; highest degrees l first."""
    D = sum(dims)
    degree = [ell for ell, d in enumerate(dims) for _ in range(d)] + [len(dims)]
    rows = list(combinations_with_replacement(range(D + 1), order - 1))
    return sorted(rows, key=lambda row: -min((degree[i] for i in row), default=0))
