"""How members that begin from one foundation model come to differ, and what an epoch of their training is made of.

Members that begin from the same weights and see the same data agree, also where they are wrong. So each one weights the
structures in its own way, w ~ Exp(1) (Bayesian bootstrap, Rubin, Ann. Stat. 9, 130 (1981)), and begins with perturbed
readouts, w ← w + σ·rms(w)·N(0, 1). Both follow from the seed of the member.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from aims_pax import seeds
from aims_pax.settings.foundation import DATA, REPLAY

if TYPE_CHECKING:
    from aims_pax.models.mace.graphs import LabelledGraph
    from aims_pax.models.mace.mace_import import MaceModel
    from aims_pax.models.mace.member import Member

PERTURBATION = (
    1.0  # σ of the readouts, in units of the rms of each weight tensor; see benchmarks/fine_tuning.py
)
FROZEN = ("node_embedding", "radial_embedding", "interactions")  # of `recipe: frozen`


@torch.no_grad()
def perturb_readouts(model: MaceModel, seed: int, strength: float = PERTURBATION) -> None:
    """Add noise to the weights of all readouts, in place."""
    rng = seeds.rng("readouts", seed)
    for parameter in model.readouts.parameters():
        noise = torch.from_numpy(rng.standard_normal(tuple(parameter.shape)))
        rms = parameter.detach().double().square().mean().sqrt()
        parameter.add_((strength * rms * noise.to(rms.device)).to(parameter.dtype))


def freeze_lower_layers(model: MaceModel) -> None:
    """Exclude embedding and interactions from training, in place."""
    for name in FROZEN:
        getattr(model, name).requires_grad_(False)


def weighted_graphs(member: Member, graphs: Sequence[LabelledGraph]) -> Sequence[LabelledGraph]:
    """The training graphs with this member's own weights, if its settings say so."""
    foundation = member.settings.foundation
    if foundation is None or not foundation.differs_by(DATA):
        return graphs
    seed = member.seed
    return [replace(g, weight=g.weight * bootstrap_weight(seed, g.parent or g.id)) for g in graphs]


def bootstrap_weight(seed: int, frame: str) -> float:
    """The weight of a frame for a member: exponentially distributed with mean 1, the same in every visit."""
    return -float(np.log1p(-seeds.uniform("bootstrap", seed, frame)))


def epoch_graphs(
    member: Member, graphs: Sequence[LabelledGraph], words: Sequence[str | int]
) -> list[LabelledGraph]:
    """The graphs of an epoch in random order; with `recipe: replay` also a random part of the replayed structures.

    words: the name of the epoch, which seeds the order.
    """
    rng = seeds.rng(*words)
    foundation = member.settings.foundation
    if foundation is not None and foundation.recipe == REPLAY and member.replay:
        share = foundation.replay_share
        n = min(len(member.replay), max(1, round(len(graphs) * share / (1 - share))))
        chosen = rng.choice(len(member.replay), size=n, replace=False)
        graphs = [*graphs, *(member.replay[k] for k in chosen)]
    return [graphs[k] for k in rng.permutation(len(graphs))]
