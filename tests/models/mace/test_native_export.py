"""The numbers of an export against MACE's own modules, without symmetrix: each part computes what its module does."""

import io
import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from e3nn import o3

from aims_pax.models.mace.build import build_model, set_statistics
from aims_pax.models.mace.native_export import Topology
from aims_pax.models.mace.statistics import Statistics
from tests.models.mace.tiny import ELEMENTS, settings

SHAPE = {"max_ell": 3, "correlation": 3, "num_channels": 4, "default_dtype": "float64"}
STATISTICS = Statistics(np.zeros(4), 7.0, 1.7, 0.3, "given", 4)


@pytest.fixture(scope="module")
def model():
    built = build_model(settings(**SHAPE), ELEMENTS, 1)
    set_statistics(built, STATISTICS)
    return built


def copy_of(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.fixture(scope="module")
def topology(model):
    return Topology(model)


@pytest.fixture(scope="module")
def content(model, topology):
    return topology.export(model)


def sums(monomials, weights, x):
    """Σ c · Π x_i for every channel. weights: {channel: coefficients}; x: (channels, 16)."""
    return [
        sum(c * np.prod(x[k, list(m)]) for c, m in zip(weights[str(k)], monomials, strict=True))
        for k in range(len(x))
    ]


@pytest.mark.parametrize("element", [0, 3])
def test_the_polynomials_are_maces_symmetric_contractions(model, content, element):
    x = np.random.default_rng(element).normal(size=(4, 16))
    one_hot = torch.eye(4, dtype=torch.float64)[[element]]
    first, last = (
        p.symmetric_contractions(torch.from_numpy(x)[None], one_hot)[0].detach().numpy()
        for p in model.products
    )
    scalar, vector = first[:4], first[4:].reshape(4, 3)  # 4x0e + 4x1o
    M0 = content["M0_monomials"], content["M0_weights"][str(element)]
    ours = np.array([sums(M0[0][str(lm)], M0[1][str(lm)], x) for lm in range(4)])
    np.testing.assert_allclose(ours[0], scalar, rtol=1e-5)  # MACE stores U in float32
    np.testing.assert_allclose(ours[1:].T, vector, rtol=1e-5, atol=1e-6)
    M1 = sums(content["M1_monomials"], content["M1_weights"][str(element)], x)
    np.testing.assert_allclose(M1, last, rtol=1e-5)


def test_each_monomial_is_written_once_with_its_factors_in_order(content):
    for monomials in [*content["M0_monomials"].values(), content["M1_monomials"]]:
        assert all(m == sorted(m) and 1 <= len(m) <= 3 for m in monomials)
        assert len({tuple(m) for m in monomials}) == len(monomials)


def test_the_couplings_of_the_second_layer_are_clebsch_gordan_coefficients(model, content):
    """Φ = Σ over components of Y and H1 of path weight · 3j symbol, in the order of symmetrix."""
    rng = np.random.default_rng(2)
    Y, H = rng.normal(size=16), rng.normal(size=4)
    l3s, l1s, l2s = (content[name] for name in ("Phi1_l", "Phi1_l1", "Phi1_l2"))
    starts = np.cumsum([0] + [(2 * a + 1) * (2 * b + 1) for a, b in zip(l1s, l2s, strict=True)])
    phi = np.zeros(sum(2 * ell + 1 for ell in l3s))
    columns = (content[name] for name in ("Phi1_lme", "Phi1_clebsch_gordan", "Phi1_lelm1lm2"))
    for to, c, source in zip(*columns, strict=True):
        path = int(np.searchsorted(starts, source, side="right")) - 1
        m1, m2 = divmod(source - starts[path], 2 * l2s[path] + 1)
        phi[to] += c * Y[l1s[path] ** 2 + m1] * H[l2s[path] ** 2 + m2]
    weights = {}
    conv = model.interactions[1].conv_tp
    for i in conv.instructions:
        l3, l1, l2 = (
            conv.irreps_out[i.i_out].ir.l,
            conv.irreps_in2[i.i_in2].ir.l,
            conv.irreps_in1[i.i_in1].ir.l,
        )
        weights[l3, l1, l2] = i.path_weight
    expected = []
    for ell in range(4):
        rows = []
        for l3, l1, l2 in zip(l3s, l1s, l2s, strict=True):
            if l3 == ell:
                w3j = o3.wigner_3j(l2, l1, l3, dtype=torch.float64).numpy()
                h, y = H[l2**2 : (l2 + 1) ** 2], Y[l1**2 : (l1 + 1) ** 2]
                rows.append(weights[l3, l1, l2] * np.einsum("abc,a,b->c", w3j, h, y))
        expected.append(np.array(rows).T.ravel())  # component by component, path by path
    np.testing.assert_allclose(phi, np.concatenate(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("name", "layer"), [("R0", 0), ("R1", 1)])
def test_the_radial_networks_are_maces(model, content, name, layer):
    network = content["compact_radial"]["networks"][name]
    x = np.random.default_rng(3).normal(size=network["shape"][0])
    y = x
    for n, (a, b) in enumerate(pairwise(network["shape"])):
        y = np.reshape(network["weights"][n], (b, a)) @ y
        if n < len(network["weights"]) - 1:
            y = network["activation_scale"] * y / (1 + np.exp(-y))
    theirs = model.interactions[layer].conv_tp_weights(torch.from_numpy(x)[None])[0].detach().numpy()
    np.testing.assert_allclose(y, theirs, rtol=1e-6, atol=1e-9)


def test_cutoff_basis_scale_and_shift_are_those_of_the_model(content):
    radial = content["compact_radial"]
    assert (content["r_cut"], content["num_channels"], content["L_max"]) == (3.5, 4, 1)
    assert radial["cutoff"] == {"type": "polynomial", "r_max": 3.5, "p": 5}
    np.testing.assert_allclose(radial["basis"]["weights"], np.pi * np.arange(1, 7) / 3.5, rtol=1e-6)
    assert radial["basis"]["prefactor"] == pytest.approx(math.sqrt(2 / 3.5))
    assert content["atomic_energies"] == pytest.approx([0.3] * 4)
    assert not content["has_zbl"]


def test_the_scale_multiplies_both_readouts_and_nothing_else(model, topology, content):
    set_statistics(model, Statistics(np.zeros(4), 7.0, 3.4, 0.3, "given", 4))
    try:
        other = topology.export(model)
    finally:
        set_statistics(model, STATISTICS)
    changed = {key for key in content if content[key] != other[key]}
    assert changed == {"readout_1_weights", "readout_2_weights_2"}
    for key in changed:
        np.testing.assert_allclose(other[key], 2 * np.array(content[key]), rtol=1e-12)


def test_elements_that_do_not_occur_are_left_out(model, topology, content):
    part = topology.export(model, chosen=[1, 3])
    assert part["atomic_numbers"] == [6, 29]
    assert part["M0_weights"] == {"0": content["M0_weights"]["1"], "1": content["M0_weights"]["3"]}
    assert part["M1_weights"] == {"0": content["M1_weights"]["1"], "1": content["M1_weights"]["3"]}
    assert part["H2_weights_for_H1"] == [content["H2_weights_for_H1"][z] for z in (1, 3)]
    for key in ("H0_weights", "H1_first_residual_weights"):
        np.testing.assert_array_equal(
            np.reshape(part[key], (2, -1)), np.reshape(content[key], (4, -1))[[1, 3]], err_msg=key
        )
    assert json.loads(json.dumps(part)) == part, "plain numbers"


def test_the_topology_of_one_member_exports_the_weights_of_another(model, topology):
    other = copy_of(model)
    with torch.no_grad():
        for k, weight in enumerate(other.parameters()):
            weight.mul_(1.1 + 0.01 * k)
    assert topology.export(other) != topology.export(model)
    assert topology.export(other) == Topology(other).export(other)


def test_weights_that_cannot_be_inverted_are_refused(model, topology):
    made = copy_of(model).requires_grad_(False)
    made.interactions[1].linear_up.weight[:4] = 0.0  # one channel
    with pytest.raises(ArithmeticError, match="cannot be inverted"):
        topology.export(made)
