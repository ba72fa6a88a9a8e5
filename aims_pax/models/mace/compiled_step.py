"""Energies and forces of a batch as one traced graph, so that training needs only an ordinary backward pass.

Uncompiled (eager), the gradient of a loss of forces is a second derivative, taken operation by operation. Here

    (parameters θ, vectors v) → (ε, g = ∂Σε/∂v)

is traced once with symbolic sizes (`make_fx`; the first derivative becomes part of the graph) and compiled.
Parameters are inputs, so the same graph is used for all members, batches and weights. Sums over atoms and edges,
stress and loss are not part of it (`fast_forward.assemble`).

The graph has few sizes: K neighbour slots for every atom, and n_z atoms of each element. Each size is at least 2,
because torch treats 0 and 1 as constants, and there are at least 40 atoms in total. Missing atoms are filled in by
atoms without neighbours.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from aims_pax.models.mace.fast_forward import FastMace, assemble
from aims_pax.models.mace.forward import MacePlan
from aims_pax.models.mace.graphs import EdgeBatch
from aims_pax.models.mace.layout import Layout, Rows, Tensors

log = logging.getLogger(__name__)

LEAST = 2  # atoms of an element
ALTOGETHER = 40  # atoms; with fewer, inductor recompiles for small matrix products
DETACHED = "aten.detach"  # silently cuts the gradient of a traced graph

EnergyForcesStrain = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]
Evaluation = Callable[[], EnergyForcesStrain]
Traced = Callable[[Tensors, torch.Tensor, Tensors, Tensors], tuple[torch.Tensor, torch.Tensor]]


class Disagreement(Exception):
    """The compiled step does not give the gradients of uncompiled evaluation."""


def arrange_rows(graph: EdgeBatch, elements: int, r_max: float) -> Rows:
    """Sort atoms by element; every atom gets as many slots as the one with the most neighbours."""
    device = graph.species.device
    z, sender, receiver = (t.cpu().numpy() for t in (graph.species, graph.sender, graph.receiver))
    counts = np.bincount(z, minlength=elements)
    sizes = np.maximum(counts, LEAST)
    sizes[0] += max(0, ALTOGETHER - int(sizes.sum()))
    order = np.argsort(z, kind="stable")
    rank = np.empty(len(z), np.int64)
    rank[order] = np.arange(len(z)) + np.repeat(np.cumsum(sizes - counts) - (sizes - counts), counts)
    places, r = int(sizes.sum()), rank[receiver]
    degree = np.bincount(r, minlength=places)
    K = max(LEAST, int(degree.max(initial=0)))
    by_receiver = np.argsort(r, kind="stable")
    slot = np.empty(len(r), np.int64)
    slot[by_receiver] = r[by_receiver] * K + np.arange(len(r)) - np.repeat(np.cumsum(degree) - degree, degree)
    senders = np.repeat(np.arange(places), K)
    senders[slot] = rank[sender]
    where = torch.from_numpy(slot).to(device)
    vectors = graph.vectors.new_zeros((places * K, 3))
    vectors[:, 0] = 2 * r_max
    vectors.index_copy_(0, where, graph.vectors.detach())
    parts = sizes.tolist()
    return Rows(
        vectors=[v.contiguous() for v in vectors.view(places, K, 3).split(parts)],
        senders=[s.contiguous() for s in torch.from_numpy(senders).to(device).view(places, K).split(parts)],
        rank=torch.from_numpy(rank).to(device),
        slot=where,
    )


def flat_function(plan: MacePlan, names: Sequence[str]) -> Traced:
    """The function that is traced. Parameters in the order of `names`; neighbours: mean number (layers,)."""

    def energies(
        parameters: Tensors, neighbours: torch.Tensor, vectors: Tensors, senders: Tensors
    ) -> tuple[torch.Tensor, torch.Tensor]:
        counts, K = tuple(v.shape[0] for v in vectors), vectors[0].shape[1]
        A = sum(counts)
        v = torch.cat(vectors).reshape(A * K, 3)
        kinds = [torch.full((n,), z, dtype=torch.int64, device=v.device) for z, n in enumerate(counts)]
        layout = Layout(
            order=neighbours, rank=neighbours,  # placeholder, not used: the caller's order
            counts=counts,
            species=torch.cat(kinds),
            rows=((0, A, K),),
            place=None,
            sender=torch.cat(senders).reshape(A * K),
            receiver=torch.arange(A, device=v.device)[:, None].expand(A, K).reshape(A * K),
            slot=neighbours,
        )  # fmt: skip
        with torch.enable_grad():
            v.requires_grad_(True)
            weights = plan.weights(dict(zip(names, parameters, strict=True)), neighbours)
            Y, features = plan.geometry(layout, v)
            # Inductor would change the layout of a strided slice saved for the backward graph, and torch would then
            # write the strides of the example, as numbers, into the backward graph.
            sh = [y.contiguous() for y in plan.by_degree(Y)]
            e = plan.node_energies(weights, layout, sh, features)
            (g,) = torch.autograd.grad(e.sum(), v, create_graph=True)
        return e, g

    return energies


def trace_step(fast: FastMace) -> torch.fx.GraphModule:
    """The graph of `flat_function`: sizes of the parameters are constants, those of the batch are symbols."""
    from torch._decomp import core_aten_decompositions
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

    mode = FakeTensorMode(shape_env=ShapeEnv(duck_shape=False), allow_non_fake_inputs=True)

    def fake(t: torch.Tensor, symbols: int = 0) -> torch.Tensor:
        sizes = [DimDynamic.DYNAMIC] * symbols + [DimDynamic.STATIC] * (t.dim() - symbols)
        return mode.from_tensor(t.detach(), symbolic_context=StatelessSymbolicContext(dynamic_sizes=sizes))

    rows = example(fast)
    parameters = [fake(p).requires_grad_(True) for p in parameters_of(fast)]
    vectors, senders = ([fake(t, 2) for t in ts] for ts in (rows.vectors, rows.senders))
    # Without the decompositions `detach` stays in the graph: correct energies and forces, but wrong gradients.
    traced = make_fx(
        flat_function(fast.plan, names_of(fast)),
        tracing_mode="fake",
        decomposition_table=core_aten_decompositions(),  # type: ignore[arg-type]
        _allow_non_fake_inputs=True,
    )(parameters, fake(neighbours_of(fast)), vectors, senders)
    _refuse_detached(traced)
    return traced


def example(fast: FastMace, K: int = 11, least: int = 12) -> Rows:
    """Random rows with sizes that are all different: K slots; least, least + 5, … atoms of the elements. They are the
    same in every process, so the compiled code is the same too and is found in the cache on disk.
    """
    plan, elements = fast.plan, len(fast.model.atomic_numbers)
    rng = np.random.default_rng(0)
    sizes = [least + 5 * z for z in range(elements)]
    sizes[0] += max(0, ALTOGETHER + K - sum(sizes))
    total = sum(sizes)
    v = rng.normal(size=(total, K, 3))
    v *= (0.2 + 0.6 * rng.random((total, K, 1))) * plan.r_max / np.linalg.norm(v, axis=2, keepdims=True)
    vectors = torch.from_numpy(v).to(plan.device, plan.dtype)
    senders = torch.from_numpy(rng.integers(0, total, (total, K))).to(plan.device)
    every = torch.arange(total * K, device=plan.device)
    return Rows(
        [t.contiguous() for t in vectors.split(sizes)],
        [t.contiguous() for t in senders.split(sizes)],
        every[:total],
        every,
    )


class Step:
    """The compiled graph of an architecture, which replaces `evaluate_fast` in training."""

    def __init__(self, fast: FastMace, backend: str = "inductor") -> None:
        """Trace, compile and run once, with backward pass. Raises any error of these."""
        import torch._dynamo as dynamo
        import torch.fx.experimental._config as shapes

        self.names = names_of(fast)
        traced = trace_step(fast)
        self._run: Any = torch.compile(traced, fullgraph=True, backend=backend)
        rows = example(fast)
        for t in (*rows.vectors, *rows.senders):
            for dimension in (0, 1):
                dynamo.mark_dynamic(t, dimension)
        with shapes.patch(use_duck_shape=False):  # type: ignore[attr-defined]
            self._try(fast, rows)
        with torch.compiler.set_stance("fail_on_recompile"):  # detects a size that became a constant
            self._try(fast, example(fast, K=8, least=9))

    def _try(self, fast: FastMace, rows: Rows) -> None:
        e, g = self._run(parameters_of(fast), neighbours_of(fast), rows.vectors, rows.senders)
        torch.autograd.grad(e.sum() + g.sum(), trained(fast), allow_unused=True)

    def __call__(self, fast: FastMace, graph: EdgeBatch, *, strain: bool) -> EnergyForcesStrain:
        """Like `evaluate_fast` with `training=True`. Raises RuntimeError for sizes that would need recompilation."""
        rows = arrange_rows(graph, len(fast.model.atomic_numbers), fast.plan.r_max)
        with torch.compiler.set_stance("fail_on_recompile"):
            e, g = self._run(parameters_of(fast), neighbours_of(fast), rows.vectors, rows.senders)
        return assemble(fast, graph, rows, e, g, strain)


def compare_gradients(fast: FastMace, compiled: Evaluation, eager: Evaluation) -> None:
    """Raise Disagreement if the gradient of any parameter differs: largest difference over largest entry.

    Comparing forces is not enough: if the graph is cut, forces are correct but gradients of the weights are wrong.
    """
    tolerance = 1e-7 if fast.plan.dtype == torch.float64 else 2e-3
    weights = trained(fast)
    ours, theirs = (parameter_gradients(f(), weights) for f in (compiled, eager))
    floor = 1e-6 * max(float(g.abs().max()) for g in theirs)
    names = [n for n, p in fast.model.named_parameters() if p.requires_grad]
    off = {}
    for name, a, b in zip(names, ours, theirs, strict=True):
        difference = float((a - b).abs().max() / b.abs().max().clamp_min(floor))
        off[name] = difference if difference == difference else float("inf")
    worst = max(off, key=lambda name: off[name])
    if off[worst] > tolerance:
        raise Disagreement(f"its gradient of {worst} is wrong by {off[worst]:.2g} (largest entry = 1)")


def parameter_gradients(
    result: EnergyForcesStrain, weights: Sequence[torch.Tensor]
) -> Sequence[torch.Tensor]:
    """Gradients of ΣE² + ΣF² + Σ(dE/dε)², which depends on all outputs."""
    value = torch.stack([t.square().sum() for t in result if t is not None]).sum()
    return torch.autograd.grad(value, weights, allow_unused=True, materialize_grads=True)


def names_of(fast: FastMace) -> list[str]:
    return [n for n, _ in fast.model.named_parameters()]


def parameters_of(fast: FastMace) -> Tensors:
    return list(fast.model.parameters())


def trained(fast: FastMace) -> Tensors:
    return [p for p in fast.model.parameters() if p.requires_grad]


def neighbours_of(fast: FastMace) -> torch.Tensor:
    """(layers,) mean number of neighbours."""
    mean = [float(i.avg_num_neighbors) for i in fast.model.interactions]
    return torch.tensor(mean, dtype=fast.plan.dtype, device=fast.plan.device)


def _refuse_detached(traced: torch.fx.GraphModule) -> None:
    cut = sum(DETACHED in str(node.target) for node in traced.graph.nodes)
    if cut:
        raise Disagreement(f"{cut} operations of its graph would cut the gradient")
