"""Reduced layers of e3nn give what the original gives for the chosen inputs and outputs."""

import pytest
import torch

from aims_pax.models.mace.linear_selection import UnknownLayer, selected_linear, selected_product
from aims_pax.models.mace.mace_import import default_dtype, o3

IN, OUT = (4, 0, 2), (1, 3)


@pytest.fixture(autouse=True)
def double_precision():
    with default_dtype(torch.float64), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def embedded(x, chosen, n):
    """x as the chosen of n inputs, the others zero."""
    whole = x.new_zeros(len(x), n)
    whole[:, list(chosen)] = x
    return whole


@pytest.mark.parametrize("inputs", [None, IN])
@pytest.mark.parametrize("outputs", [None, OUT])
@pytest.mark.parametrize("biases", [False, True])
def test_a_linear_of_chosen_scalars_maps_them_as_the_whole_one_does(inputs, outputs, biases):
    linear = o3.Linear("5x0e", "4x0e", biases=biases)
    if biases:
        linear.bias.data.normal_()
    x = torch.randn(7, 5 if inputs is None else len(inputs))
    expected = linear(x if inputs is None else embedded(x, inputs, 5))
    found = selected_linear(linear, inputs, outputs)(x)
    assert torch.allclose(found, expected if outputs is None else expected[:, list(outputs)], atol=1e-14)


def test_vectors_pass_where_nothing_of_them_is_chosen():
    linear = o3.Linear("3x0e+2x1o", "4x0e", biases=True)  # vectors reach no scalar
    linear.bias.data.normal_()
    x = torch.randn(5, 9)
    assert torch.allclose(selected_linear(linear, outputs=OUT)(x), linear(x)[:, list(OUT)], atol=1e-14)
    embedding = o3.Linear("5x0e", "4x0e+3x0e")  # two paths with weights of their own
    y = torch.randn(5, 3)
    found = selected_linear(embedding, inputs=IN)(y)
    assert torch.allclose(found, embedding(embedded(y, IN, 5)), atol=1e-14)


def test_a_product_with_chosen_elements_is_that_with_all_where_the_others_are_zero():
    product = o3.FullyConnectedTensorProduct("3x0e+2x1o", "5x0e", "4x0e+2x1o")
    small = selected_product(product, IN)
    assert small.weight_numel * 5 == product.weight_numel * 3
    x, z = torch.randn(6, 9), torch.randn(6, 3)
    assert torch.allclose(small(x, z), product(x, embedded(z, IN, 5)), atol=1e-14)


def test_what_training_depends_on_stays():
    linear = o3.Linear("5x0e", "4x0e", biases=True).float().requires_grad_(False).eval()
    small = selected_linear(linear, IN, OUT)
    assert {(p.dtype, p.requires_grad) for p in small.parameters()} == {(torch.float32, False)}
    assert not small.training
    product = o3.FullyConnectedTensorProduct("3x0e", "5x0e", "4x0e").float()
    product.weight.requires_grad_(False)
    small = selected_product(product, IN)
    assert (small.weight.dtype, small.weight.requires_grad, small.training) == (torch.float32, False, True)


def test_the_original_is_not_changed():
    linear = o3.Linear("5x0e", "4x0e", biases=True)
    before = [p.detach().clone() for p in linear.parameters()]
    selected_linear(linear, IN, OUT).weight.data.fill_(7.0)
    assert all(torch.equal(p, old) for p, old in zip(linear.parameters(), before, strict=True))


def test_other_layers_are_refused():
    class Own(o3.Linear):
        """It may compute something else."""

    with pytest.raises(UnknownLayer, match=r"test_linear_selection\.Own"):
        selected_linear(Own("5x0e", "4x0e"), IN)
    with pytest.raises(UnknownLayer, match="Linear"):
        selected_product(o3.Linear("5x0e", "4x0e"), IN)
    with pytest.raises(UnknownLayer, match=r"scalars were expected, found 2x0e\+1x1o"):
        selected_linear(o3.Linear("2x0e+1x1o", "4x0e"), inputs=(0,))
    with pytest.raises(UnknownLayer, match=r"scalars were expected, found 5x0o"):
        selected_product(o3.FullyConnectedTensorProduct("3x0o", "5x0o", "4x0e"), (0,))
