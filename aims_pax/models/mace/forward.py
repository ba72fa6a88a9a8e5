"""MACE's energy with few, large tensor operations: the same values as MACE's modules, several times faster.

`MacePlan` holds the constants of an architecture; `weights` converts a model's parameters into the form used here
(normalised, U·W contracted, linear maps per element), and `node_energies` computes from edge vectors:

    h⁰ = embedding(z)                                     Batatia et al., NeurIPS 2022, eqs. 8 to 13
    m_a = Σ_b R(x_ab) · (Y(v_ab) ⊗ W h_b)                 one batched matrix product over b for each path
    h⁺_a = W B(m_a) + W_z h_a                             B: see symmetric_contraction.py
    ε_a = Σ readouts(h)

The model is read, never changed. Features are lists over l of (A, 2l + 1, channels).
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from aims_pax.models.mace.layout import Layout
from aims_pax.models.mace.mace_import import MaceModel, o3
from aims_pax.models.mace.symmetric_contraction import Coupling

BLOCKS = {  # name: (residual, normalised by density)
    "RealAgnosticInteractionBlock": (False, False),
    "RealAgnosticResidualInteractionBlock": (True, False),
    "RealAgnosticDensityInteractionBlock": (False, True),
    "RealAgnosticDensityResidualInteractionBlock": (True, True),
}
Parameters = Mapping[str, torch.Tensor]
ByL = list[torch.Tensor]


class UnsupportedModel(Exception):
    """The model has a part that is not implemented here; it must be evaluated by MACE's own modules."""


@dataclass(frozen=True, eq=False)
class TensorProductPath:
    """One coupling of h_l1 and Y_l2 to l3; coupling: (2l2 + 1, (2l1 + 1)·(2l3 + 1)) where l1 and l2 > 0."""

    l1: int
    l2: int
    l3: int
    coupling: torch.Tensor | None


@dataclass(frozen=True, eq=False)
class Layer:
    """The constants of one interaction and its product.

    paths: sorted by l1. columns: radial weights in the order of the paths; scale: their normalisation.
    targets: the paths for each l of the messages. outputs: 2l + 1 of each output of the product.
    """

    paths: tuple[TensorProductPath, ...]
    columns: torch.Tensor
    scale: torch.Tensor
    targets: tuple[tuple[int, ...], ...]
    coupling: Coupling
    residual: bool
    density: bool
    outputs: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """The parameters of one layer in the form used here. Z elements, C channels.

    up: (C, C) for each l. radial: the MLP. density: (n, 1) or nothing. linear: (paths·C, C) for each l of the
    messages. skip: {(l in, l out): (Z, C, C)}. product: see `Coupling.contract`. mix: (C, C) for each l out.
    readout: one matrix, or two with an activation between.
    """

    up: ByL
    radial: ByL
    density: torch.Tensor | None
    linear: ByL
    skip: dict[tuple[int, int], torch.Tensor]
    product: ByL
    mix: ByL
    readout: ByL


@dataclass(frozen=True, eq=False)
class Weights:
    """All parameters, differentiable with respect to the model's. embedding: (Z, C)."""

    embedding: torch.Tensor
    layers: list[LayerWeights]


class MacePlan:
    """The constants of an architecture. Raises UnsupportedModel for parts that are not implemented here."""

    def __init__(self, model: MaceModel) -> None:
        check_supported(model)
        parameter = next(model.parameters())
        self.dtype, self.device = parameter.dtype, parameter.device
        self.model: MaceModel = weakref.proxy(model)
        self.channels = int(model.node_embedding.linear.irreps_out.dim)
        self.r_max = float(model.r_max)
        self.lmax = int(model.spherical_harmonics._lmax)
        cutoff = getattr(model.radial_embedding, "cutoff_fn", None)  # read once: reading it waits for a GPU
        self.cutoff_order = 0 if cutoff is None else int(cutoff.p)
        self.steps = [_harmonic_step(ell).to(self.device, self.dtype) for ell in range(self.lmax)]
        pairs = zip(model.interactions, model.products, strict=True)
        self.layers = [self._layer(interaction, product) for interaction, product in pairs]
        self.gates = [_gate(readout) for readout in model.readouts]

    def geometry(self, layout: Layout, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Spherical harmonics (S, (lmax + 1)²) and radial features (S, n) of edge vectors v (S, 3) Å."""
        x = v.square().sum(-1, keepdim=True).sqrt()
        n = v / x
        Y = [torch.ones_like(x)]
        for step in self.steps:
            Y.append((Y[-1][:, :, None] * n[:, None, :]).flatten(1) @ step)
        return torch.cat(Y, dim=1), self._radial_features(layout, x)

    def by_degree(self, Y: torch.Tensor) -> ByL:
        """(S, 2l + 1) for each l."""
        return list(Y.split([2 * ell + 1 for ell in range(self.lmax + 1)], dim=1))

    def node_energies(
        self, weights: Weights, layout: Layout, Y: torch.Tensor | ByL, features: torch.Tensor
    ) -> torch.Tensor:
        """ε (A,) in the layout's order, before scale, shift and pair repulsion. Y: as one, or for each l."""
        sh = self.by_degree(Y) if isinstance(Y, torch.Tensor) else list(Y)
        h: ByL = []
        energy = None
        for k, (layer, w) in enumerate(zip(self.layers, weights.layers, strict=True)):
            if k == 0:  # all atoms of an element still have the same features
                table = weights.embedding @ w.up[0]
                sent = [table.index_select(0, layout.species[layout.sender])[:, None]]
            else:
                sent = [_mixed(b, up).index_select(0, layout.sender) for b, up in zip(h, w.up, strict=True)]
            m = self._messages(layer, w, layout, sent, sh, features)
            if not layer.residual:
                made = _per_element(w.skip, layout, m)
                m = [made[ell] for ell in range(len(m))]
                skip_h: dict[int, torch.Tensor] = {}
            elif k == 0:
                table = torch.bmm(weights.embedding[:, None], w.skip[0, 0])
                skip_h = {0: table.index_select(0, layout.species)}
            else:
                skip_h = _per_element(w.skip, layout, h)
            h = self._product(layer, w, layout, m)
            h = [b + skip_h[ell] if ell in skip_h else b for ell, b in enumerate(h)]
            e = h[0].squeeze(1) @ w.readout[0]
            if len(w.readout) > 1:
                gate = self.gates[k]
                e = (gate(e) if gate is not None else e) @ w.readout[1]
            energy = e if energy is None else energy + e
        assert energy is not None
        return energy.squeeze(1)

    def weights(self, parameters: Parameters, neighbours: torch.Tensor) -> Weights:
        """From {name: parameter} and the mean number of neighbours of each layer (layers,)."""
        model = self.model
        layers = []
        for k, layer in enumerate(self.layers):
            block, product, readout = model.interactions[k], model.products[k], model.readouts[k]
            own = {n.removeprefix(f"interactions.{k}."): p for n, p in parameters.items()}
            made = {n.removeprefix(f"products.{k}."): p for n, p in parameters.items()}
            readout_weights = {n.removeprefix(f"readouts.{k}."): p for n, p in parameters.items()}
            radial = _mlp(block.conv_tp_weights, own, "conv_tp_weights")
            radial[-1] = radial[-1][:, layer.columns] * layer.scale
            linear = _linear(block.linear, own["linear.weight"])
            norm = 1.0 if layer.density else 1 / neighbours[k]
            sources = [[linear[i.i_in, i.i_out] for i in block.linear.instructions if i.i_out == ell]
                       for ell in range(len(layer.targets))]  # fmt: skip
            skip = _skip(block.skip_tp, own["skip_tp.weight"])
            mix = _linear(product.linear, made["linear.weight"])
            head = "linear" if hasattr(readout, "linear") else "linear_1"
            reads = [_linear(getattr(readout, head), readout_weights[f"{head}.weight"])[0, 0]]
            if head == "linear_1":
                reads.append(_linear(readout.linear_2, readout_weights["linear_2.weight"])[0, 0])
            up = _linear(block.linear_up, own["linear_up.weight"])
            layers.append(
                LayerWeights(
                    up=[up[ell, ell] for ell in range(len(up))],
                    radial=radial,
                    density=_mlp(block.density_fn, own, "density_fn")[0] if layer.density else None,
                    linear=[torch.cat(parts) * norm for parts in sources],
                    skip=skip,
                    product=layer.coupling.contract(made),
                    mix=[mix[ell, ell] for ell in range(len(layer.outputs))],
                    readout=reads,
                )
            )
        embedding = _linear(model.node_embedding.linear, parameters["node_embedding.linear.weight"])[0, 0]
        return Weights(embedding, layers)

    def _messages(
        self, layer: Layer, w: LayerWeights, layout: Layout, sent: ByL, sh: ByL, features: torch.Tensor
    ) -> ByL:
        """The messages (A, 2l + 1, C) for each l, normalised and mixed."""
        R = features
        for matrix in w.radial[:-1]:
            R = torch.nn.functional.silu(R @ matrix)
        Rs = (R @ w.radial[-1]).view(R.shape[0], -1, 1, self.channels).unbind(1)
        summed = []
        for p, path in enumerate(layer.paths):
            X = Rs[p] * sent[path.l1]  # (S, 2·l1 + 1, C)
            B = sh[path.l2] if path.coupling is None else sh[path.l2] @ path.coupling
            summed.append(_sum_rows(path, layout, B, X))
        out = [
            _mixed(torch.cat([summed[p] for p in paths], dim=2), linear)
            for paths, linear in zip(layer.targets, w.linear, strict=True)
        ]
        if w.density is not None:
            weight = torch.tanh((features @ w.density).square())
            split = weight.split([n * K for _, n, K in layout.rows])
            parts = [d.view(n, K).sum(1) for d, (_, n, K) in zip(split, layout.rows, strict=True)]
            density = torch.cat(parts)[:, None, None] + 1
            out = [m / density for m in out]
        return out if layout.place is None else [m.index_select(0, layout.place) for m in out]

    def _product(self, layer: Layer, w: LayerWeights, layout: Layout, m: ByL) -> ByL:
        """The symmetric contraction of the messages, element by element, and its linear map."""
        x = torch.cat(m, dim=1).permute(2, 1, 0).contiguous()  # (C, D, A)
        B = layer.coupling(w.product, x, layout.counts)
        blocks = B.permute(2, 1, 0).split(layer.outputs, dim=1)
        return [_mixed(b, mix) for b, mix in zip(blocks, w.mix, strict=True)]

    def _radial_features(self, layout: Layout, x: torch.Tensor) -> torch.Tensor:
        radial = self.model.radial_embedding
        basis = radial.bessel_fn
        if type(basis).__name__ != "BesselBasis" or hasattr(radial, "distance_transform"):
            one_hot = torch.nn.functional.one_hot(layout.species, len(layout.counts)).to(x.dtype)
            edges = torch.stack([layout.sender, layout.receiver])
            features: torch.Tensor = radial(x, one_hot, edges, self.model.atomic_numbers)[0]
            return features
        p, r = self.cutoff_order, x / self.r_max
        tail = (p + 1) * (p + 2) / 2 - p * (p + 2) * r + p * (p + 1) / 2 * r * r
        envelope = (1 - r.pow(p) * tail) * (r < 1)
        waves: torch.Tensor = torch.sin(x * basis.bessel_weights) * (basis.prefactor * envelope / x)
        return waves

    def _layer(self, interaction: Any, product: Any) -> Layer:
        """The constants of one layer, with its paths sorted and their indices in MACE's order."""
        residual, density = BLOCKS[type(interaction).__name__]
        conv, C = interaction.conv_tp, self.channels
        found = []
        for n, i in enumerate(conv.instructions):
            l1, l2, l3 = (
                conv.irreps_in1[i.i_in1].ir.l,
                conv.irreps_in2[i.i_in2].ir.l,
                conv.irreps_out[i.i_out].ir.l,
            )
            scale, coupling = i.path_weight, None
            if l1 == 0 or l2 == 0:
                scale /= math.sqrt(2 * l3 + 1)  # here the 3j symbol is δ/√(2l + 1)
            else:
                w3j = o3.wigner_3j(l1, l2, l3, dtype=torch.float64).transpose(0, 1)
                coupling = w3j.reshape(2 * l2 + 1, -1).to(self.device, self.dtype)
            found.append((TensorProductPath(l1, l2, l3, coupling), n, i.i_out, scale))
        found.sort(key=lambda f: (f[0].l1, f[1]))
        place = {out: p for p, (_, _, out, _) in enumerate(found)}
        lin = interaction.linear
        targets = tuple(
            tuple(place[i.i_in] for i in lin.instructions if i.i_out == ell)
            for ell in range(len(lin.irreps_out))
        )
        columns = torch.cat([torch.arange(n * C, (n + 1) * C) for _, n, _, _ in found])
        scale = torch.tensor([s for _, _, _, s in found], dtype=torch.float64).repeat_interleave(C)
        ls = [ir.l for _, ir in interaction.target_irreps]
        coupling = Coupling(product.symmetric_contractions.contractions, ls, self.device)
        return Layer(
            paths=tuple(path for path, _, _, _ in found),
            columns=columns.to(self.device),
            scale=scale.to(self.device, self.dtype),
            targets=targets,
            coupling=coupling,
            residual=residual,
            density=density,
            outputs=tuple(ir.dim for _, ir in product.linear.irreps_out),
        )


def check_supported(model: MaceModel) -> None:
    """Raise UnsupportedModel unless every part of the model is implemented here."""
    if (
        type(model).__name__ not in ("MACE", "ScaleShiftMACE")
        or len(getattr(model, "heads", None) or [0]) > 1
    ):
        raise UnsupportedModel("kind of model")
    if any(hasattr(model, part) for part in ("joint_embedding", "embedding_readout")):
        raise UnsupportedModel("embeddings")
    if getattr(model, "use_agnostic_product", False) or not getattr(
        model.radial_embedding, "apply_cutoff", True
    ):
        raise UnsupportedModel("agnostic product or radial cutoff")
    if type(model.radial_embedding.bessel_fn).__name__ == "ChebychevBasis":
        # they overflow beyond the cutoff, where dummy edges are
        raise UnsupportedModel("Chebyshev polynomials")
    if len(model.readouts) != len(model.interactions) or any(
        True for _ in model.radial_embedding.parameters()
    ):
        raise UnsupportedModel("readouts or trained radial basis")
    channels = model.node_embedding.linear.irreps_out.dim
    for interaction, product in zip(model.interactions, model.products, strict=True):
        if type(interaction).__name__ not in BLOCKS or hasattr(interaction, "conv_fusion"):
            raise UnsupportedModel(type(interaction).__name__)
        for linear in (interaction.linear_up, interaction.linear, product.linear):
            if type(linear) is not o3.Linear or any(mul != channels for mul, _ in linear.irreps_in):
                raise UnsupportedModel("channels")
        for irreps in (interaction.linear_up.irreps_in, interaction.target_irreps, product.linear.irreps_out):
            if [(ir.l, ir.p) for _, ir in irreps] != [(ell, (-1) ** ell) for ell in range(len(irreps))]:
                raise UnsupportedModel(f"irreps {irreps}")
        if type(product.symmetric_contractions).__name__ != "SymmetricContraction":
            raise UnsupportedModel("symmetric contraction")
        if max(int(c.correlation) for c in product.symmetric_contractions.contractions) > 3:
            raise UnsupportedModel("correlation above 3")
    if any(type(r).__name__ not in ("LinearReadoutBlock", "NonLinearReadoutBlock") for r in model.readouts):
        raise UnsupportedModel("readouts")


def _sum_rows(path: TensorProductPath, layout: Layout, B: torch.Tensor, X: torch.Tensor) -> torch.Tensor:
    """Σ over each receiver's row of B ⊗ X: (A, 2·l3 + 1, C) in the order of the rows."""
    d1, d3, C = 2 * path.l1 + 1, 2 * path.l3 + 1, X.shape[-1]
    sizes = [n * K for _, n, K in layout.rows]
    parts = []
    for b, x, (_, n, K) in zip(B.split(sizes), X.split(sizes), layout.rows, strict=True):
        if path.l2 == 0:  # Y = 1
            parts.append(x.reshape(n, K, d1, C).sum(1))
        else:
            parts.append(torch.bmm(b.reshape(n, K * d1, d3).transpose(1, 2), x.reshape(n, K * d1, C)))
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _mixed(h: torch.Tensor, W: torch.Tensor) -> torch.Tensor:
    """h W over channels as one matrix product; torch would use many if h is strided."""
    return (h.reshape(-1, h.shape[-1]) @ W).view(*h.shape[:-1], W.shape[-1])


def _per_element(
    skip: Mapping[tuple[int, int], torch.Tensor], layout: Layout, h: ByL
) -> dict[int, torch.Tensor]:
    """{l: Σ over l in of h W_z}, with a different matrix for each element."""
    out: dict[int, torch.Tensor] = {}
    for (i, j), W in skip.items():
        split = zip(h[i].split(layout.counts), W.unbind(), strict=True)
        parts = [_mixed(b, w) for b, w in split if b.shape[0]]
        made = torch.cat(parts) if len(parts) > 1 else parts[0]
        out[j] = out[j] + made if j in out else made
    return out


def _linear(module: Any, weight: torch.Tensor) -> dict[tuple[int, int], torch.Tensor]:
    """{(block in, block out): (channels in, channels out)} of an e3nn Linear, normalised."""
    sizes = [math.prod(i.path_shape) for i in module.instructions]
    return {
        (i.i_in, i.i_out): part.view(i.path_shape) * i.path_weight
        for i, part in zip(module.instructions, weight.split(sizes), strict=True)
    }


def _skip(module: Any, weight: torch.Tensor) -> dict[tuple[int, int], torch.Tensor]:
    """{(l in, l out): (Z, channels in, channels out)} of a product with the one-hot elements."""
    sizes = [math.prod(i.path_shape) for i in module.instructions]
    out = {}
    for i, part in zip(module.instructions, weight.split(sizes), strict=True):
        ell = module.irreps_out[i.i_out].ir.l
        matrix = part.view(i.path_shape).transpose(0, 1) * (i.path_weight / math.sqrt(2 * ell + 1))
        out[i.i_in1, i.i_out] = matrix
    return out


def _mlp(net: Any, parameters: Parameters, name: str) -> ByL:
    """The matrices of an e3nn FullyConnectedNet, including its normalisations; silu is applied between them."""
    layers = [getattr(net, f"layer{k}") for k in range(len(net.hs) - 1)]
    gain, out = 1.0, []
    for k, layer in enumerate(layers):
        scale = gain / math.sqrt(layer.h_in * layer.var_in)
        if layer.act is None:
            scale *= math.sqrt(layer.var_out)
        else:
            gain = math.sqrt(layer.var_out) * (1.0 if layer.act._is_id else layer.act.cst)
        out.append(parameters[f"{name}.layer{k}.weight"] * scale)
    return out


def _gate(readout: Any) -> Any:
    """The activation of a readout, or None."""
    if not hasattr(readout, "non_linearity"):
        return None
    return readout.non_linearity.acts[0]


def _harmonic_step(ell: int) -> torch.Tensor:
    """(3·(2l + 1), 2l + 3): Y_{l+1} = (Y_l ⊗ n) · step for unit vectors n, in e3nn's component normalisation."""
    w3j = o3.wigner_3j(ell, 1, ell + 1, dtype=torch.float64)
    n = torch.tensor([0.48, 0.6, 0.64], dtype=torch.float64)
    low, high = (
        o3.spherical_harmonics(k, n, normalize=True, normalization="component") for k in (ell, ell + 1)
    )
    made = torch.einsum("i,j,ijk->k", low, n, w3j)
    scaled: torch.Tensor = w3j * (high @ made / (made @ made))
    return scaled.reshape(3 * (2 * ell + 1), 2 * ell + 3)
