"""A model with few of its elements is the same model for them."""

import numpy as np
import pytest
import torch

from aims_pax.models.mace.build import elements_of
from aims_pax.models.mace.element_selection import select_elements
from aims_pax.models.mace.fast_forward import unsupported_part
from aims_pax.models.mace.linear_selection import UnknownLayer
from aims_pax.models.mace.model_surgery import compare, comparison_structure, double_copy, reduced_model
from tests.models.mace.published import ELEMENTS, a_copy, maces_own, published


@pytest.mark.parametrize("name", ["max_L 2, correlation 3", "MH: non-linear, three heads"])
def test_forces_are_those_of_maces_own_calculator_with_all_elements(name):
    """Symmetric contractions and skips with elements; embeddings of source and target, all heads."""
    model, frame = a_copy(name), comparison_structure((1, 8), periodic=True)
    head = model.heads[-1]
    expected = maces_own(model, frame, head)
    select_elements(model, (8, 1))
    assert elements_of(model) == (1, 8)
    found = maces_own(model, frame, head)
    for what, ours, known in zip(("energy", "forces", "stress"), found, expected, strict=True):
        np.testing.assert_allclose(ours, known, rtol=1e-10, atol=1e-10, err_msg=what)


def test_nothing_that_has_an_entry_for_each_element_keeps_the_others():
    model = a_copy()
    model.interactions.requires_grad_(False)
    model.products[1].requires_grad_(False)
    before = dict(model.named_parameters())
    select_elements(model, (1, 29))
    after = dict(model.named_parameters())
    shrunk = {name for name, p in after.items() if p.numel() < before[name].numel()}
    contracted = {name for name in before if ".symmetric_contractions." in name and before[name].numel()}
    skips = {f"interactions.{k}.skip_tp.weight" for k in range(2)}
    assert shrunk == {"node_embedding.linear.weight", *contracted, *skips}
    assert all(after[name].numel() * 5 == 2 * before[name].numel() for name in shrunk)
    assert all(after[name].requires_grad == before[name].requires_grad for name in after)
    assert model.atomic_energies_fn.atomic_energies.shape == (1, 2)


def test_a_model_of_these_elements_alone_is_left_as_it_is():
    model = a_copy()
    parts, energies = list(model.modules()), model.atomic_energies_fn.atomic_energies
    select_elements(model, ELEMENTS[::-1])
    assert all(one is other for one, other in zip(parts, model.modules(), strict=True))
    assert model.atomic_energies_fn.atomic_energies is energies


def test_a_layer_of_another_library_is_not_taken_for_one_of_e3nn():
    model = a_copy()
    model.node_embedding.linear = torch.nn.Linear(5, 4)
    with pytest.raises(UnknownLayer, match=r"^torch\.nn\.modules\.linear\.Linear$"):
        select_elements(model, (1, 6))


def test_elements_out_of_order_are_sorted():
    model = published(atomic_numbers=[8, 1, 6, 29, 7])
    small = reduced_model(model, 0, (8, 1, 6, 29, 7), "it")
    assert elements_of(small) == (1, 6, 7, 8, 29)
    assert compare(double_copy(model), 0, small, (1, 6, 7, 8, 29)) < 1e-12


def test_a_reduced_basis_of_couplings_stays_as_it_is():
    """Models trained with cuEquivariance have fewer couplings (use_reduced_cg) than MACE builds without it."""
    model = a_copy()
    rng = torch.Generator().manual_seed(1)
    for product in model.products:
        for contraction in product.symmetric_contractions.contractions:
            U, W = contraction.U_matrix_2, contraction.weights_max
            n = U.shape[-1] - 1
            mixing = torch.randn(U.shape[-1], n, dtype=U.dtype, generator=rng)
            contraction.U_matrix_2 = U @ mixing
            contraction.weights_max = torch.nn.Parameter(W[:, :n].detach().clone())
    small = reduced_model(model, 0, (1, 6), "it")
    assert elements_of(small) == (1, 6)
    assert compare(double_copy(model), 0, small, (1, 6)) < 1e-12
    assert unsupported_part(small) is None
