"""Energies, forces and dE/dε of a batch with `forward`, which replaces MACE's own modules for supported models.

From g = ∂E/∂v of every edge (v = x_receiver − x_sender + shift):

    F_a = Σ_{e from a} g_e − Σ_{e to a} g_e              dE/dε = sym Σ_e v_e ⊗ g_e
"""

from __future__ import annotations

import logging
import weakref
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch

from aims_pax.models.mace.build import model_atomic_energies
from aims_pax.models.mace.forward import MacePlan, UnsupportedModel, Weights, check_supported
from aims_pax.models.mace.graphs import EdgeBatch
from aims_pax.models.mace.layout import Layout, arrange, pad
from aims_pax.models.mace.mace_import import MaceModel

if TYPE_CHECKING:
    from aims_pax.models.mace.graphs import EdgeGraph
    from aims_pax.models.mace.layout import Rows

log = logging.getLogger(__name__)

LAYOUTS = 4  # cached by an evaluator at most


class FastMace:
    """A model evaluated by `forward`; reads the model's parameters at every call. Raises UnsupportedModel."""

    def __init__(self, model: MaceModel) -> None:
        self.model: MaceModel = weakref.proxy(model)  # weak: a cache of this must not keep the model alive
        self.plan = MacePlan(model)
        self._parameters = dict(model.named_parameters())
        self._cached: tuple[object, Weights] | None = None

    def weights(self) -> Weights:
        """The current parameters; differentiable with respect to the model's."""
        neighbours = [float(i.avg_num_neighbors) for i in self.model.interactions]
        n = torch.tensor(neighbours, dtype=self.plan.dtype, device=self.plan.device)
        return self.plan.weights(self._parameters, n)

    def frozen_weights(self) -> Weights:
        """The current parameters without gradients, recomputed only when one has changed."""
        state = [(p.data_ptr(), p._version) for p in self._parameters.values()]
        key = state, [float(i.avg_num_neighbors) for i in self.model.interactions]
        if self._cached is None or self._cached[0] != key:
            with torch.no_grad():
                self._cached = key, self.weights()
        return self._cached[1]

    def scale_shift(self) -> tuple[torch.Tensor | float, torch.Tensor | float]:
        """(scale, shift): eV and eV/atom."""
        if not hasattr(self.model, "scale_shift"):
            return 1.0, 0.0
        return self.model.scale_shift.scale.reshape(-1)[0], self.model.scale_shift.shift.reshape(-1)[0]

    def atomic_energies(self) -> torch.Tensor:
        """(Z,) eV float64."""
        return model_atomic_energies(self.model)

    def pair(self, graph: EdgeBatch) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Energies (A,) and their gradients ∂/∂v (E, 3) of MACE's pair repulsion, in the caller's order."""
        if not hasattr(self.model, "pair_repulsion_fn"):
            return None
        with torch.enable_grad():
            v = graph.vectors.detach().requires_grad_(True)
            one_hot = torch.nn.functional.one_hot(graph.species, len(self.model.atomic_numbers)).to(v.dtype)
            edges = torch.stack([graph.sender, graph.receiver])
            x = v.norm(dim=1, keepdim=True)
            e = self.model.pair_repulsion_fn(x, one_hot, edges, self.model.atomic_numbers)
            (g,) = torch.autograd.grad(e.sum(), v)
        return e.detach(), g


def unsupported_part(model: MaceModel) -> str | None:
    """The part of a model that makes MACE's own modules evaluate it, or None."""
    try:
        check_supported(model)
    except UnsupportedModel as reason:
        return str(reason)
    return None


def fast_mace(model: MaceModel) -> FastMace | None:
    """The fast evaluation of a model, cached as long as the model exists; None if the model is not supported."""
    if model not in _known:
        try:
            _known[model] = FastMace(model)
        except UnsupportedModel as reason:
            log.debug("MACE's own modules evaluate this model: %s", reason)
            _known[model] = None
    return _known[model]


_known: WeakKeyDictionary[MaceModel, FastMace | None] = WeakKeyDictionary()


def evaluate_fast(
    fast: FastMace, graph: EdgeBatch, *, training: bool, strain: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Energies (F,) eV above the atomic energies, forces (A, 3) eV/Å, dE/dε (F, 3, 3) eV or None.

    With `training` all results can be differentiated with respect to the model's parameters.
    """
    layout = arrange(graph.species, graph.sender, graph.receiver, len(fast.model.atomic_numbers))
    plan = fast.plan
    with torch.enable_grad():
        v = pad(graph.vectors.detach(), layout, plan.r_max).requires_grad_(True)
        Y, features = plan.geometry(layout, v)
        weights = fast.weights()
        e = plan.node_energies(weights, layout, Y, features)
        (g,) = torch.autograd.grad(e.sum(), v, create_graph=training)
    return assemble(fast, graph, layout, e, g, strain)


@torch.no_grad()
def only_energies(fast: FastMace, graph: EdgeBatch) -> torch.Tensor:
    """Energies (F,) eV above the atomic energies."""
    layout = arrange(graph.species, graph.sender, graph.receiver, len(fast.model.atomic_numbers))
    geometry = fast.plan.geometry(layout, pad(graph.vectors, layout, fast.plan.r_max))
    e = fast.plan.node_energies(fast.weights(), layout, *geometry)[layout.rank]
    repulsion = fast.pair(graph)
    scale, shift = fast.scale_shift()
    e = (e if repulsion is None else e + repulsion[0]) * scale + shift
    return e.new_zeros(graph.frames).index_add(0, graph.frame_of, e)


def assemble(
    fast: FastMace, graph: EdgeBatch, layout: Layout | Rows, e: torch.Tensor, g: torch.Tensor, strain: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Apply scale, shift and pair repulsion, and sum over atoms and edges. e: (A,), g: (S, 3), in layout order."""
    scale, shift = fast.scale_shift()
    e, g = e[layout.rank], g[layout.slot]
    repulsion = fast.pair(graph)
    if repulsion is not None:
        e, g = e + repulsion[0], g + repulsion[1]
    e, g = e * scale + shift, g * scale
    energy = e.new_zeros(graph.frames).index_add(0, graph.frame_of, e)
    forces = g.new_zeros((len(e), 3)).index_add(0, graph.sender, g).index_add(0, graph.receiver, -g)
    tensor = None
    if strain:
        virial = g[:, :, None] * graph.vectors[:, None, :].to(g.dtype)
        virial = 0.5 * (virial + virial.transpose(1, 2))
        frame_of_edge = graph.frame_of[graph.sender]
        tensor = g.new_zeros((graph.frames, 3, 3)).index_add(0, frame_of_edge, virial)
    return energy, forces, tensor


class FastEvaluator:
    """`Evaluator` of several models, which share one layout and one computation of the geometry.

    Layouts are cached and used again while the edges stay the same: one, or those of the pieces of a large batch.
    """

    def __init__(self, models: Sequence[FastMace], owners: Sequence[MaceModel]) -> None:
        self.models, self.owners = list(models), list(owners)
        self.members, self.elements = len(self.models), len(self.models[0].model.atomic_numbers)
        self._layouts: deque[tuple[tuple[torch.Tensor, ...], Layout]] = deque(maxlen=LAYOUTS)

    def __call__(
        self, graph: EdgeGraph, *, strain: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        batch = self.batch(graph)
        layout = self._arranged(batch)
        v = pad(batch.vectors, layout, self.models[0].plan.r_max)
        return self.assembled(batch, layout, *self.node_energies(self.frozen_weights(), layout, v), strain)

    def batch(self, graph: EdgeGraph) -> EdgeBatch:
        """The graph in the precision of the models."""
        vectors = graph.vectors.to(self.models[0].plan.dtype)
        return EdgeBatch(
            graph.species, graph.sender, graph.receiver, vectors, graph.frame_of, len(graph.ptr) - 1
        )

    def frozen_weights(self) -> list[Weights]:
        """The current parameters of each model."""
        return [model.frozen_weights() for model in self.models]

    def node_energies(
        self, weights: Sequence[Weights], layout: Layout, v: torch.Tensor
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """ε (A,) of each model and g = ∂Σε/∂v (S, 3), in the layout's order. v: (S, 3) Å."""
        with torch.enable_grad():
            v = v.requires_grad_(True)
            Y, features = self.models[0].plan.geometry(layout, v)
            leaves = Y.detach().requires_grad_(True), features.detach().requires_grad_(True)
            energies, slopes = [], []
            for model, own in zip(self.models, weights, strict=True):
                e = model.plan.node_energies(own, layout, *leaves)
                energies.append(e.detach())
                slopes.append(torch.autograd.grad(e.sum(), leaves))
            gs = [torch.autograd.grad((Y, features), v, slope, retain_graph=True)[0] for slope in slopes]
        return energies, gs

    def assembled(
        self,
        batch: EdgeBatch,
        layout: Layout,
        node_energies: Sequence[torch.Tensor],
        gs: Sequence[torch.Tensor],
        strain: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Energies with the atomic energies, forces and dE/dε of all models from their `node_energies`."""
        composition = torch.zeros(
            (batch.frames, self.elements), dtype=torch.float64, device=batch.vectors.device
        )
        composition.index_put_((batch.frame_of, batch.species), composition.new_ones(()), accumulate=True)
        energies, forces, strains = [], [], []
        for model, e, g in zip(self.models, node_energies, gs, strict=True):
            energy, force, tensor = assemble(model, batch, layout, e.double(), g.double(), strain)
            energies.append(energy + composition @ model.atomic_energies())
            forces.append(force)
            strains.append(tensor)
        return torch.stack(energies), torch.stack(forces), torch.stack(strains) if strain else None  # type: ignore[arg-type]

    def _arranged(self, batch: EdgeBatch) -> Layout:
        key = batch.species, batch.sender, batch.receiver
        for known, layout in self._layouts:
            if all(map(torch.equal, known, key)):
                return layout
        layout = arrange(*key, self.elements)
        self._layouts.appendleft((key, layout))
        return layout


def fast_evaluator(models: Sequence[MaceModel]) -> FastEvaluator | None:
    """The fast evaluation of all models together; None if one of them is not supported, or another's geometry."""
    known = [fast_mace(model) for model in models]
    if None in known or not all(_same_geometry(models[0], model) for model in models[1:]):
        return None
    return FastEvaluator([k for k in known if k is not None], models)


def _same_geometry(one: MaceModel, other: MaceModel) -> bool:
    """Whether both have the same spherical harmonics and the same radial basis."""
    mine, theirs = (m.radial_embedding.state_dict() for m in (one, other))
    return (
        one.spherical_harmonics._lmax == other.spherical_harmonics._lmax
        and str(one.radial_embedding) == str(other.radial_embedding)
        and mine.keys() == theirs.keys()
        and all(torch.equal(value, theirs[name].to(value)) for name, value in mine.items())
    )
