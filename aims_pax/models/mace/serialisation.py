"""Serialises members for other processes of this run: the whole module once, later only arrays."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from aims_pax.models.mace.build import read_statistics
from aims_pax.models.mace.graphs import LabelledGraph
from aims_pax.models.mace.mace_import import MaceModel, quiet
from aims_pax.models.mace.member import Member

if TYPE_CHECKING:
    from aims_pax.settings.mace import MaceSettings


def packed_member(model: MaceModel) -> bytes:
    """A member's module, raw weights and constants, for `unpacked` with the same versions of the packages."""
    file = io.BytesIO()
    with quiet():
        torch.save(model, file)
    return file.getvalue()


def packed_graphs(graphs: Sequence[LabelledGraph]) -> bytes:
    """Graphs as bytes: a pipe between processes would otherwise pass their tensors as open files."""
    file = io.BytesIO()
    torch.save(list(graphs), file)
    return file.getvalue()


def unpacked_graphs(data: bytes) -> list[LabelledGraph]:
    """The graphs of `packed_graphs`; only for bytes sent by this run's main process."""
    return list(torch.load(io.BytesIO(data), weights_only=False))


def unpacked(data: bytes, name: str, seed: int, settings: MaceSettings) -> Member:
    """A member from a pickled module, on the device of the settings, with the statistics in the module.

    Only for bytes sent by this run's main process: unpickling a module can execute arbitrary code.
    """
    with quiet():
        model = torch.load(io.BytesIO(data), settings.misc.device, weights_only=False)
    member = Member(name, seed, model, settings)
    member.freeze(read_statistics(model))
    return member


@dataclass(frozen=True, eq=False)
class PackedEnsemble:
    """All members for sending to another process once: names, seeds and the pickled modules."""

    settings: MaceSettings
    members: tuple[tuple[str, int, bytes], ...]
