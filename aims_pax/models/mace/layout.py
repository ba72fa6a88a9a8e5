"""The order of atoms and edges in memory for an evaluation: atoms by element, neighbours in rows of equal length.

Unused slots of a row are filled with dummy edges. They are longer than the cutoff, so they contribute exactly zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

SPLIT = 256  # slots to be saved at least by one more set of rows


@dataclass(frozen=True, eq=False)
class Layout:
    """Positions of atoms and edges. A atoms sorted by element, E edges in S ≥ E slots.

    order: (A,) indices of the caller's atoms in the sorted order; rank: its inverse. counts: atoms of each element.
    species: (A,). rows: (first slot, receivers, slots of each) for sets of rows of equal length.
    place: (A,) index of each sorted atom in the order of the rows, None if the two orders are the same.
    sender, receiver: (S,) sorted atoms; for a dummy both are the receiver. slot: (E,) slot of each edge.
    """

    order: torch.Tensor
    rank: torch.Tensor
    counts: tuple[int, ...]
    species: torch.Tensor
    rows: tuple[tuple[int, int, int], ...]
    place: torch.Tensor | None
    sender: torch.Tensor
    receiver: torch.Tensor
    slot: torch.Tensor


def arrange(
    species: torch.Tensor, sender: torch.Tensor, receiver: torch.Tensor, elements: int, sets: int = 4
) -> Layout:
    """Sort atoms by element, and edges into rows of at most `sets` (a power of 2) different lengths.

    species: (A,), sender and receiver: (E,).
    """
    device = species.device
    z = species.cpu().numpy()
    order = np.argsort(z, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    s, r = rank[sender.cpu().numpy()], rank[receiver.cpu().numpy()]
    degree = np.bincount(r, minlength=len(z))
    groups = _row_sets(degree, sets.bit_length() - 1)
    width, start = np.empty(len(z), np.int64), np.empty(len(z), np.int64)
    rows, first = [], 0
    for atoms in groups:
        K = max(1, int(degree[atoms].max(initial=0)))
        width[atoms] = K
        start[atoms] = first + K * np.arange(len(atoms))
        rows.append((first, len(atoms), K))
        first += K * len(atoms)
    by_receiver = np.argsort(r, kind="stable")
    within = np.arange(len(r)) - np.repeat(np.cumsum(degree) - degree, degree)
    slot = np.empty(len(r), np.int64)
    slot[by_receiver] = start[r[by_receiver]] + within
    receivers = np.concatenate(groups)
    slot_receiver = np.repeat(receivers, width[receivers])
    slot_sender = slot_receiver.copy()
    slot_sender[slot] = s

    def tensor(array: np.ndarray[Any, Any]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    return Layout(
        order=tensor(order),
        rank=tensor(rank),
        counts=tuple(int(n) for n in np.bincount(z, minlength=elements)),
        species=tensor(z[order]),
        rows=tuple(rows),
        place=tensor(np.argsort(receivers)) if len(groups) > 1 else None,
        sender=tensor(slot_sender),
        receiver=tensor(slot_receiver),
        slot=tensor(slot),
    )


def _row_sets(degree: np.ndarray[Any, Any], depth: int) -> list[np.ndarray[Any, Any]]:
    """Groups of atoms whose rows have the same length; a group is split if this saves enough slots."""
    by_degree = np.argsort(-degree, kind="stable")
    d = degree[by_degree]
    n = len(d)
    cut = d[0] * np.arange(1, n) + d[1:] * (n - np.arange(1, n)) if n > 1 else np.zeros(0)
    best = int(np.argmin(cut)) if n > 1 else 0
    if depth and n > 1 and n * d[0] - cut[best] > max(SPLIT, 0.15 * n * d[0]):
        few, many = np.sort(by_degree[: best + 1]), np.sort(by_degree[best + 1 :])
        parts = [(few, _row_sets(degree[few], depth - 1)), (many, _row_sets(degree[many], depth - 1))]
        return [whole[part] for whole, split in parts for part in split]
    return [np.arange(n)]


def pad(vectors: torch.Tensor, layout: Layout, r_max: float) -> torch.Tensor:
    """(S, 3) Å from (E, 3) Å: each edge in its slot, dummies with twice the length of the cutoff."""
    padded = vectors.new_zeros((len(layout.sender), 3))
    padded[:, 0] = 2 * r_max
    return padded.index_copy_(0, layout.slot, vectors)


Tensors = list[torch.Tensor]


@dataclass(frozen=True, eq=False)
class Rows:
    """A batch as input of a traced graph. A atoms, E edges.

    vectors: (n_z, K, 3) Å for each element, dummies beyond the cutoff. senders: (n_z, K), indices of sorted atoms.
    rank: (A,) the sorted index of each atom. slot: (E,) the slot of each edge.
    """

    vectors: Tensors
    senders: Tensors
    rank: torch.Tensor
    slot: torch.Tensor
