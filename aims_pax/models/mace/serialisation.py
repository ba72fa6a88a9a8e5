"""Members on their way to another process of this run: once the whole module, later only arrays."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from aims_pax.models.mace.build import read_statistics
from aims_pax.models.mace.mace_import import MaceModel, quiet
from aims_pax.models.mace.member import Member

if TYPE_CHECKING:
    from aims_pax.settings.mace import MaceSettings


def packed_member(model: MaceModel) -> bytes:
    """A member's module, raw weights and constants, for `unpacked` on the same versions of the packages."""
    file = io.BytesIO()
    with quiet():
        torch.save(model, file)
    return file.getvalue()


def unpacked(data: bytes, name: str, seed: int, settings: MaceSettings) -> Member:
    """A member around the module, on the settings' device, with the statistics that the module holds.

    Only for bytes that this run's own driver sent: a pickled module can run anything when it is read.
    """
    with quiet():
        model = torch.load(io.BytesIO(data), settings.misc.device, weights_only=False)
    member = Member(name, seed, model, settings)
    member.freeze(read_statistics(model))
    return member


@dataclass(frozen=True, eq=False)
class PackedEnsemble:
    """All members as they travel once: names, seeds and the pickled modules."""

    settings: MaceSettings
    members: tuple[tuple[str, int, bytes], ...]
