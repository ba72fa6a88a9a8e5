"""The smallest model there is, one layer of four channels, and its training step as a traced graph."""

from functools import cache

import numpy as np
import torch

from aims_pax.models.mace import compiled_step
from aims_pax.models.mace.build import build_model, set_statistics
from aims_pax.models.mace.fast_forward import fast_mace
from aims_pax.models.mace.graphs import GraphCache, collate
from aims_pax.models.mace.losses import edge_batch
from aims_pax.models.mace.statistics import Statistics
from tests.models.mace.tiny import settings

ELEMENTS = (1, 8, 29)


MICRO = {
    "correlation": 1, "max_L": 0, "max_ell": 1, "num_interactions": 1, "num_channels": 4, "radial_MLP": [4],
    "num_radial_basis": 3, "default_dtype": "float64", "compute_stress": True,
}  # fmt: skip


def micro(seed=1, elements=ELEMENTS, **changes):
    made = build_model(settings(**MICRO | changes), elements, seed)
    set_statistics(made, Statistics(np.zeros(len(elements)), 7.0, 1.7, 0.3, "given", len(elements)))
    return made


def batch(frames, elements=ELEMENTS, dtype=torch.float64):
    graphs = GraphCache(elements, 3.5, dtype).of(frames)
    return edge_batch(collate(graphs, np.zeros(len(elements)), torch.device("cpu")))


class Traced(compiled_step.Step):
    """The traced graph, executed as it is: what compiling starts from, without a compiler."""

    def __init__(self, quick):
        self._run = compiled_step.trace_step(quick)


@cache
def micro_and_traced():
    """A model and its traced step, which no test changes; tracing takes a while."""
    model = micro()
    return model, Traced(fast_mace(model))
