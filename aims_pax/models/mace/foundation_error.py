"""The error of a foundation model on the first labels, before it is trained; and labels in other units."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from aims_pax.errors import SettingsError
from aims_pax.force_units import other_unit
from aims_pax.frames import Array
from aims_pax.models.batch_splitting import BatchSplitter
from aims_pax.models.mace.graphs import LabelledGraph, collate
from aims_pax.models.mace.losses import predict
from aims_pax.models.mace.mace_import import MaceModel

EDGES = 20_000  # of structures evaluated together
MOST = 50  # structures


def foundation_force_mae(
    model: MaceModel, E0: Array, graphs: Sequence[LabelledGraph], device: torch.device
) -> float:
    """Force MAE of the model on (at most MOST of) these structures, eV/Å.

    Raises SettingsError when the labels are proportional to its forces with the factor of another unit.
    """
    some = [graphs[int(k)] for k in np.linspace(0, len(graphs) - 1, min(len(graphs), MOST)).round()]

    def work(first: int, end: int) -> Array:
        batch = collate(some[first:end], E0, device)
        said = predict(model, batch, training=False, stress=False).forces.detach()
        both: Array = torch.stack([batch.forces, said]).double().cpu().numpy()
        return both

    sizes = [graph.edges.shape[1] for graph in some]
    parts = BatchSplitter("foundation error", str(device), EDGES).each(sizes, work)
    labels, predicted = np.concatenate(parts, axis=1)
    if (unit := other_unit(labels, predicted)) is not None:
        raise SettingsError(
            f"the forces of the labels look like {unit} instead of eV/Å: but for such a factor they are like those of "
            "the foundation model; convert the labels to eV and eV/Å"
        )
    return float(np.abs(labels - predicted).mean())
