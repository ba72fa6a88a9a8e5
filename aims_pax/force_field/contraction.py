"""The symmetric contraction of MACE with U and W contracted before the atoms come in.

For an atom of element z, channel c and output component M (Batatia et al., NeurIPS 2022, eqs. 10 and 11)

    B_M = Σ_ν Σ_{i1…iν} Σ_p U^ν_{M i1…iν p} W^ν_{z p c} x_{i1 c} … x_{iν c}

is a polynomial of degree ν ≤ 3 in the D numbers x_{·c}. Every monomial x_k x_i x_j (k ≤ i ≤ j) is kept once:

    B_M = Σ_k x_k Σ_q C_{z c, M k q} P_q,        P = (1, x_i, x_i x_j)

C = U·W does not depend on the atoms, and a monomial belongs to its lowest index k, so an x_k of degree l needs
only those P made of indices of degree l and above. They come first in P: each degree takes a leading part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations_with_replacement, product
from typing import Any

import torch

ORDERS = 3  # the highest correlation that is precontracted; P grows as D²


class Coupling:
    """The constants of one product block: what turns its weights into C, and C and x into B.

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
        self.leading = [sum(min(row, default=D) >= s for row in self.rows) for s in _starts(self.dims)]
        self.factors = torch.tensor(self.rows, dtype=torch.int64).T.contiguous().to(device)  # (ν − 1, rows)
        self.components = [_components(c) for c in contractions]
        self.constants = [self._constants(c, device) for c in contractions]

    def contract(self, parameters: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """C for each degree l of x: (Z, channels, nM·(2l + 1), leading part). parameters: of the product block."""
        parts: list[list[torch.Tensor]] = [[] for _ in self.dims]
        for k, (constants, nM) in enumerate(zip(self.constants, self.components, strict=True)):
            name = f"symmetric_contractions.contractions.{k}."
            names = [f"weights.{n}" for n in reversed(range(self.order - 1))] + ["weights_max"]  # ν = 1, 2, …
            W = torch.cat([parameters[name + n] for n in names], dim=1)  # (Z, p, C)
            Z, _, channels = W.shape
            flat = W.transpose(1, 2).reshape(Z * channels, -1) @ constants  # (Z·C, all entries)
            sizes = [nM * d * n for d, n in zip(self.dims, self.leading, strict=True)]
            for ell, (part, d) in enumerate(zip(flat.split(sizes, dim=1), self.dims, strict=True)):
                parts[ell].append(part.reshape(Z, channels, nM * d, -1))
        return [p[0] if len(p) == 1 else torch.cat(p, dim=2) for p in parts]

    def monomials(self, x: torch.Tensor) -> torch.Tensor:
        """P (rows, channels, A) of x (D, channels, A)."""
        one = torch.ones_like(x[:1])
        padded = torch.cat([x, one])
        P = one
        for k, factor in enumerate(self.factors):
            chosen = padded.index_select(0, factor)
            P = chosen if k == 0 else P * chosen
        return P

    def __call__(self, C: Sequence[torch.Tensor], P: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """B (channels, all components, A) for atoms of one element: C of that element, P and x of its atoms."""
        channels, nM = len(C[0]), sum(self.components)
        parts = []
        for c, leading, d in zip(C, self.leading, self.dims, strict=True):
            T = torch.bmm(c, P[:leading].transpose(0, 1))
            if nM * d == 1:
                T = _Packed.apply(T)  # type: ignore[no-untyped-call]
            parts.append(T.view(channels, nM, d, T.shape[-1]))
        T = torch.cat(parts, dim=2) if len(parts) > 1 else parts[0]
        return (T * x.transpose(0, 1)[:, None]).sum(2)

    def _constants(self, contraction: Any, device: torch.device) -> torch.Tensor:
        """(weights, entries): for each degree of x the entries (M, k, leading part) flattened, one after another."""
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
        parts = zip(dense.split(self.dims, dim=2), self.leading, strict=True)
        flat = torch.cat([part[..., :n].flatten(1) for part, n in parts], dim=1)
        return flat.to(device, contraction.U_matrix_1.dtype)


class _Packed(torch.autograd.Function):
    """The same; its gradient is laid out without gaps, so that a traced graph has no strides over size 1 to keep."""

    @staticmethod
    def forward(ctx: Any, T: torch.Tensor) -> torch.Tensor:
        return T.view_as(T)

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> torch.Tensor:
        return slope.contiguous()


def _components(contraction: Any) -> int:
    """2l + 1 of the output; MACE squeezes the dimension of scalars away."""
    U = contraction.U_matrix_1
    return 1 if U.dim() == 2 else len(U)


def _starts(dims: Sequence[int]) -> list[int]:
    return [sum(dims[:n]) for n in range(len(dims))]


def _rows(dims: Sequence[int], order: int) -> list[tuple[int, ...]]:
    """The indices of each monomial of degree below `order`, D standing for 1; highest degrees l first."""
    D = sum(dims)
    degree = [ell for ell, d in enumerate(dims) for _ in range(d)] + [len(dims)]
    rows = list(combinations_with_replacement(range(D + 1), order - 1))
    return sorted(rows, key=lambda row: -min((degree[i] for i in row), default=0))
