"""Exports a MACE model to the file format of symmetrix.

The layout is that of the JSON files of symmetrix-xl 0.1 ("compact", format version 2); its quantities are those
of Batatia et al., NeurIPS 2022 (eqs. 8 to 13), with consecutive linear maps multiplied together:

    H0 = linear_up · embedding(z)            A0, A1: linear · (1/neighbours, or by density)
    M  = Σ_ν Σ_η W_zην U_ν^η  as polynomials in the 16 components of A: monomials and their coefficients
    H1 = linear_up · linear · M0             H2 = linear · M1 + skip · linear_up⁻¹ · H1

What depends only on the architecture (`Topology`: the sparse U, the Clebsch-Gordan couplings) is computed once, so
that exporting new weights takes only a few matrix products.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from aims_pax.frames import Array
from aims_pax.models.mace.mace_import import MaceModel
from aims_pax.models.mace.native_support import channels, original_class_name
from aims_pax.settings.inference_support import FIRST, MAX_ELL

SPLINE_POINTS = 1024  # of each radial function: forces then differ by about 1e-7 eV/Å
ZERO = 1e-6  # smaller entries count as zero: U tensors have entries of order one, rounded to float32


@dataclass(frozen=True, eq=False)
class Polynomials:
    """Σ_ν U_ν W_ν as polynomials. monomials: component indices, sorted. maps: for ν = 1, 2, …: (monomials, η)."""

    monomials: list[list[int]]
    maps: list[Array]

    def coefficients(self, contraction: Any, chosen: Sequence[int]) -> Array:
        """(elements chosen, channels, monomials) from the weights of a contraction."""
        highest = len(self.maps)
        weights = [contraction.weights_max, *contraction.weights]  # of ν = highest, highest − 1, …, 1
        total: Array = np.zeros(1)
        for nu, u in enumerate(self.maps, 1):
            if u.any():  # for an order with U = 0 the weights in MACE are empty
                total = total + np.einsum("pn,znk->zkp", u, _array(weights[highest - nu])[list(chosen)])
        return total


class Topology:
    """The part of the export that is the same for all models of one architecture."""

    def __init__(self, model: MaceModel) -> None:
        self.channels = channels(model)
        self.L = int(model.products[0].linear.irreps_out.lmax)
        first = model.products[0].symmetric_contractions.contractions
        self.M0 = [p for contraction in first for p in _polynomials(contraction)]
        (self.M1,) = _polynomials(model.products[1].symmetric_contractions.contractions[0])
        self.Phi1 = _couplings(model, self.L)

    def export(
        self, model: MaceModel, chosen: Sequence[int] | None = None, spline_points: int = SPLINE_POINTS
    ) -> dict[str, Any]:
        """The content of the file for these weights. Energies are interaction energies, without E0.

        model: float64, of this topology. chosen: indices of the elements to write, ascending; all by default.
        Raises ArithmeticError when linear_up of the second layer is singular.
        """
        shift, scale = 0.0, 1.0
        if hasattr(model, "scale_shift"):
            shift, scale = float(model.scale_shift.shift), float(model.scale_shift.scale)
        elements = range(len(model.atomic_numbers)) if chosen is None else chosen
        numbers = [int(model.atomic_numbers[z]) for z in elements]
        out = {
            "symmetrix_format_version": 2,
            "model_type": "MACE",
            "has_field_coupling": False,
            "field_couplings": [],
            "num_channels": self.channels,
            "r_cut": float(model.r_max),
            "l_max": MAX_ELL,
            "L_max": self.L,
            "num_interactions": 2,
            "atomic_numbers": numbers,
            "num_elements": len(numbers),
            "atomic_energies": [shift] * len(numbers),
            "radial_representation": "compact",
            "compact_radial": _radial(model, spline_points),
            **_repulsion(model, scale),
            **self._first_layer(model, elements),
            **self._second_layer(model, elements),
            **self._readouts(model, scale),
        }
        return out

    def _first_layer(self, model: MaceModel, elements: Sequence[int]) -> dict[str, Any]:
        Z = len(model.atomic_numbers)
        K, interaction, product = self.channels, model.interactions[0], model.products[0]
        residual, by_density = FIRST[original_class_name(interaction)], _by_density(interaction)
        linears = [_array(w) / math.sqrt(K) for w in interaction.linear.weight_views()]
        if not by_density:
            linears = [w / float(interaction.avg_num_neighbors) for w in linears]
        A0 = [[w.ravel().tolist() for w in linears]] * len(elements)
        if not residual:  # here the skip is applied to the message and depends on the element
            skips = [_array(w) / math.sqrt(Z * K) for w in interaction.skip_tp.weight_views()]
            A0 = [
                [(w @ s[:, z]).ravel().tolist() for w, s in zip(linears, skips, strict=True)]
                for z in elements
            ]
        embedding = _array(model.node_embedding.linear.weight).reshape(Z, K)[list(elements)] / math.sqrt(Z)
        up = _array(interaction.linear_up.weight).reshape(K, K) / math.sqrt(K)
        after = _array(product.linear.weight).reshape(self.L + 1, K, K) / math.sqrt(K)
        up1 = self._up1(model)
        coefficients = [
            p.coefficients(contraction, elements)
            for p, contraction in zip(self.M0, _per_component(product), strict=True)
        ]
        out = {
            "first_interaction_residual": residual,
            "H0_weights": (embedding @ up).ravel().tolist(),
            "A0_scaled": by_density,
            "A0_weights": A0,
            "M0_monomials": {str(lm): p.monomials for lm, p in enumerate(self.M0)},
            "M0_weights": {
                str(n): {str(lm): _by_channel(c[n]) for lm, c in enumerate(coefficients)}
                for n in range(len(elements))
            },
            "H1_weights": (after @ up1).ravel().tolist(),
        }
        if residual:
            out |= {
                "H1_product_weights": after.ravel().tolist(),
                "H1_linear_up_weights": up1.ravel().tolist(),
                "H1_first_residual_weights": self._first_residual(model)[list(elements)].ravel().tolist(),
            }
        return out

    def _first_residual(self, model: MaceModel) -> Array:
        """(Z, (L + 1)², K): the residual of each element; edge vectors have the opposite sign in symmetrix."""
        Z = len(model.atomic_numbers)
        with torch.no_grad():
            one_hot = torch.eye(Z, dtype=torch.float64)
            skipped = _array(model.interactions[0].skip_tp(model.node_embedding(one_hot), one_hot))
        out, start = np.zeros((Z, (self.L + 1) ** 2, self.channels)), 0
        for ell in range(self.L + 1):
            width = (2 * ell + 1) * self.channels
            block = skipped[:, start : start + width].reshape(Z, self.channels, 2 * ell + 1)
            out[:, ell * ell : (ell + 1) ** 2] = (-1) ** ell * block.transpose(0, 2, 1)
            start += width
        return out

    def _second_layer(self, model: MaceModel, elements: Sequence[int]) -> dict[str, Any]:
        Z = len(model.atomic_numbers)
        K, interaction, product = self.channels, model.interactions[1], model.products[1]
        by_density = _by_density(interaction)
        linear, start, A1 = _array(interaction.linear.weight), 0, []
        for ell in range(MAX_ELL + 1):
            fan_in = self.Phi1["Phi1_l"].count(ell) * K
            w = linear[start : start + fan_in * K] / math.sqrt(fan_in)
            A1.append((w if by_density else w / float(interaction.avg_num_neighbors)).tolist())
            start += fan_in * K
        inverse = _inverse(self._up1(model)[0])
        skip = _array(interaction.skip_tp.weight_view_for_instruction(0)) / math.sqrt(Z * K)
        coefficients = self.M1.coefficients(product.symmetric_contractions.contractions[0], elements)
        return {
            **self.Phi1,
            "A1_scaled": by_density,
            "A1_weights": A1,
            "M1_monomials": self.M1.monomials,
            "M1_weights": {str(n): _by_channel(c) for n, c in enumerate(coefficients)},
            "H2_weights_for_H1": [(inverse @ skip[:, z]).ravel().tolist() for z in elements],
            "H2_weights_for_M1": (_array(product.linear.weight) / math.sqrt(K)).tolist(),
        }

    def _readouts(self, model: MaceModel, scale: float) -> dict[str, Any]:
        K, (first, last) = self.channels, model.readouts
        linear = _array(first.linear.weight) / math.sqrt(K)
        inner = _array(last.linear_1.weight).reshape(K, -1)
        outer = _array(last.linear_2.weight)
        return {
            "readout_1_weights": (scale * (_inverse(self._up1(model)[0]) @ linear)).tolist(),
            "readout_2_hidden_size": inner.shape[1],
            "readout_2_weights_1": (inner.T / math.sqrt(K)).ravel().tolist(),
            "readout_2_weights_2": (scale * outer / math.sqrt(len(outer))).tolist(),
            "readout_2_scale_factor": float(last.non_linearity.acts[0].cst),
        }

    def _up1(self, model: MaceModel) -> Array:
        """(L + 1, K, K): linear_up of the second interaction."""
        K = self.channels
        up = _array(model.interactions[1].linear_up.weight).reshape(self.L + 1, K, K)
        return up / math.sqrt(K)


def _polynomials(contraction: Any) -> list[Polynomials]:
    """One for each output component of a contraction, from its U tensors (2l + 1, 16, …, 16, η)."""
    orders = []
    for nu in itertools.count(1):
        u = getattr(contraction, f"U_matrix_{nu}", None)
        if u is None:
            break
        orders.append(_array(u if u.dim() == nu + 2 else u[None]))
    out = []
    for m in range(len(orders[0])):
        terms: list[tuple[int, ...]] = []
        parts = []
        for u in (order[m] for order in orders):
            places = np.argwhere((np.abs(u) > ZERO).any(-1))
            found, which = np.unique(np.sort(places, axis=1), axis=0, return_inverse=True)
            sums = np.zeros((len(found), u.shape[-1]))
            np.add.at(sums, which.reshape(-1), u[tuple(places.T)])
            parts.append(sums)
            terms += [tuple(int(x) for x in t) for t in found]
        ends = np.cumsum([0] + [len(p) for p in parts])
        maps = [np.zeros((len(terms), p.shape[1])) for p in parts]
        for full, p, start in zip(maps, parts, ends[:-1], strict=True):
            full[start : start + len(p)] = p
        out.append(Polynomials([list(t) for t in terms], maps))
    return out


def _couplings(model: MaceModel, L: int) -> dict[str, Any]:
    """The nonzero couplings of Y and H1 to Phi1, found by evaluating the tensor product on unit vectors.

    Order and indices as in symmetrix: for every component of Y and of H1, over the paths.
    """
    product = model.interactions[1].conv_tp
    K = channels(model)
    l_out = [int(ir.l) for _, ir in product.irreps_out]
    l_edge = [int(product.irreps_in2[i.i_in2].ir.l) for i in product.instructions]
    l_source = [int(product.irreps_in1[i.i_in1].ir.l) for i in product.instructions]
    out_of = [int(i.i_out) for i in product.instructions]
    if out_of != sorted(out_of):
        l_edge = [l_edge[k] for k in np.argsort(out_of)]
        l_source = [l_source[k] for k in np.argsort(out_of)]
    Y, H = (MAX_ELL + 1) ** 2, (L + 1) ** 2
    pairs = [(y, h) for y in range(Y) for h in range(H)]
    left = torch.zeros((len(pairs), H * K), dtype=torch.float64)
    right = torch.zeros((len(pairs), Y), dtype=torch.float64)
    for row, (y, h) in enumerate(pairs):
        ell = math.isqrt(h)
        left[row, ell * ell * K + h - ell * ell] = 1.0  # channel 0
        right[row, y] = 1.0
    with torch.no_grad():
        one = torch.ones((len(pairs), product.weight_numel), dtype=torch.float64)
        phi = _array(product(left, right, one))
    starts = np.cumsum([0] + [(2 * ell + 1) * K for ell in l_out])
    blocks = np.cumsum([0] + [(2 * a + 1) * (2 * b + 1) for a, b in zip(l_edge, l_source, strict=True)])
    count = [l_out.count(ell) for ell in range(MAX_ELL + 1)]
    lme, coefficients, rows = [], [], []
    for values, (y, h) in zip(phi, pairs, strict=True):
        ly, lh = math.isqrt(y), math.isqrt(h)
        for path, ell in enumerate(l_out):
            for m in range(2 * ell + 1):
                value = values[starts[path] + m]
                if abs(value) > ZERO:
                    before = sum((2 * k + 1) * count[k] for k in range(ell))
                    lme.append(before + m * count[ell] + path - l_out.index(ell))
                    coefficients.append(float(value))
                    rows.append(int(blocks[path] + (y - ly * ly) * (2 * lh + 1) + h - lh * lh))
    return {
        "Phi1_l": l_out,
        "Phi1_l1": l_edge,
        "Phi1_l2": l_source,
        "Phi1_lme": lme,
        "Phi1_clebsch_gordan": coefficients,
        "Phi1_lelm1lm2": rows,
    }


def _radial(model: MaceModel, points: int) -> dict[str, Any]:
    basis, cutoff = model.radial_embedding.bessel_fn, model.radial_embedding.cutoff_fn
    networks = {}
    for k, interaction in enumerate(model.interactions):
        networks[f"R{k}"] = _network(interaction.conv_tp_weights)
        if _by_density(interaction):
            networks[f"A{k}"] = _network(interaction.density_fn) | {"postprocess": "tanh-square"}
    return {
        "spline_grid_min": 1e-12,
        "num_spline_points": points,
        "basis": {
            "type": "bessel",
            "weights": _array(basis.bessel_weights).tolist(),
            "prefactor": float(basis.prefactor),
        },
        "cutoff": {"type": "polynomial", "r_max": float(cutoff.r_max), "p": int(cutoff.p)},
        "distance_transform": {"type": "none"},
        "networks": networks,
    }


def _network(network: Any) -> dict[str, Any]:
    """A radial network: weights of each layer (out, in), including e3nn's factor 1/√in."""
    layers = list(network._modules.values())
    return {
        "shape": [int(n) for n in network.hs],
        "weights": [(_array(layer.weight).T / math.sqrt(layer.h_in)).ravel().tolist() for layer in layers],
        "activation": "silu",
        "activation_scale": float(layers[0].act.cst) if len(layers) > 1 else 1.0,
    }


def _repulsion(model: MaceModel, scale: float) -> dict[str, Any]:
    if not getattr(model, "pair_repulsion", False):
        return {"has_zbl": False}
    zbl = model.pair_repulsion_fn
    return {
        "has_zbl": True,
        "zbl_a_exp": float(zbl.a_exp),
        "zbl_a_prefactor": float(zbl.a_prefactor),
        "zbl_c": (scale * _array(zbl.c)).tolist(),
        "zbl_covalent_radii": _array(zbl.covalent_radii).tolist(),
        "zbl_p": int(zbl.p),
    }


def _per_component(product: Any) -> list[Any]:
    """The contraction that each component of a product's output comes from."""
    contractions = product.symmetric_contractions.contractions
    return [c for ell, c in enumerate(contractions) for _ in range(2 * ell + 1)]


def _by_channel(coefficients: Array) -> dict[str, list[float]]:
    return {str(k): row for k, row in enumerate(coefficients.tolist())}


def _inverse(matrix: Array) -> Array:
    if np.linalg.matrix_rank(matrix) < len(matrix):
        raise ArithmeticError("linear_up of the second layer cannot be inverted")
    inverse: Array = np.linalg.inv(matrix).astype(np.float64)
    return inverse


def _by_density(interaction: Any) -> bool:
    return "Density" in original_class_name(interaction)


def _array(tensor: torch.Tensor) -> Array:
    array: Array = tensor.detach().cpu().double().numpy()
    return array
