from itertools import product

import numpy as np
import pytest
import torch

from aims_pax.models.mace.build import build_model
from aims_pax.models.mace.symmetric_contraction import Coupling
from tests.models.mace.tiny import ELEMENTS, settings


def blocks(**changes):
    """Product blocks of a float64 model, and the degrees of what they contract."""
    model = build_model(settings(default_dtype="float64", **changes), ELEMENTS, 1)
    pairs = zip(model.interactions, model.products, strict=True)
    return [(p, [ir.l for _, ir in i.target_irreps]) for i, p in pairs]


def contracted(block, ls, x, z):
    """B (channels, components, A) of atoms x (channels, D, A) that are all of element z."""
    coupling = Coupling(block.symmetric_contractions.contractions, ls, torch.device("cpu"))
    C = coupling.contract(dict(block.named_parameters()))
    return coupling(C, x, [x.shape[2] if k == z else 0 for k in range(len(ELEMENTS))])


@pytest.mark.parametrize("correlation", [1, 2, 3])
@pytest.mark.parametrize(("max_L", "max_ell"), [(0, 3), (1, 2), (2, 2)])
def test_it_is_maces_symmetric_contraction(correlation, max_L, max_ell):
    rng = torch.Generator().manual_seed(1)
    for block, ls in blocks(correlation=correlation, max_L=max_L, max_ell=max_ell):
        D = sum(2 * ell + 1 for ell in ls)
        x = torch.randn((8, D, 5), generator=rng, dtype=torch.float64)
        one_hot = torch.zeros((5, len(ELEMENTS)), dtype=torch.float64)
        one_hot[:, 2] = 1
        theirs = block.symmetric_contractions(x.permute(2, 0, 1), one_hot)  # (A, Σ channels·components)
        ours = contracted(block, ls, x, 2)
        sizes = [8 * (2 * ell + 1) for ell in range(max_L + 1 if block.linear.irreps_out.lmax else 1)]
        first = 0
        for part in theirs.split(sizes, dim=1):
            part = part.view(5, 8, -1).permute(1, 2, 0)
            torch.testing.assert_close(ours[:, first : first + part.shape[1]], part, rtol=1e-11, atol=1e-11)
            first += part.shape[1]
        assert first == ours.shape[1]


def test_a_scalar_is_the_sum_the_docstring_writes():
    block, ls = blocks(correlation=2, max_L=0, max_ell=1)[0]
    contraction = block.symmetric_contractions.contractions[0]
    x = torch.randn((8, 4, 1), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    U1, U2 = contraction.U_matrix_1.numpy(), contraction.U_matrix_2.numpy()
    W1, W2 = contraction.weights[0].detach().numpy()[1], contraction.weights_max.detach().numpy()[1]
    expected = np.zeros(8)
    for c in range(8):
        v = x[c, :, 0].numpy()
        expected[c] += sum(U1[i, p] * W1[p, c] * v[i] for i in range(4) for p in range(U1.shape[-1]))
        expected[c] += sum(
            U2[i, j, p] * W2[p, c] * v[i] * v[j]
            for i, j, p in product(range(4), range(4), range(U2.shape[-1]))
        )
    np.testing.assert_allclose(contracted(block, ls, x, 1)[:, 0, 0].detach().numpy(), expected, rtol=1e-12)


def coupling_of(**changes):
    block, ls = blocks(**changes)[0]
    return Coupling(block.symmetric_contractions.contractions, ls, torch.device("cpu"))


def test_each_monomial_is_kept_once():
    coupling = coupling_of(correlation=3, max_L=0, max_ell=2)
    D = 9
    assert len(coupling.rows) == (D + 1) * (D + 2) // 2
    assert len(set(coupling.rows)) == len(coupling.rows)


def test_degrees_share_a_product_until_it_has_rows_enough():
    # monomials with 9, 8 and 5 numbers left: (n + 1)(n + 2)/2 = 55, 45, 21
    assert coupling_of(correlation=3, max_L=0, max_ell=2).blocks == [(9, 55)]
    assert coupling_of(correlation=3, max_L=1, max_ell=2).blocks == [(4, 55), (5, 21)]
    assert coupling_of(correlation=3, max_L=2, max_ell=2).blocks == [(4, 55), (5, 21)]
    assert coupling_of(correlation=2, max_L=1, max_ell=2).blocks == [(9, 10)]


def test_elements_without_atoms_take_no_part():
    block, ls = blocks(correlation=3, max_L=1)[0]
    x = torch.randn(
        (8, sum(2 * ell + 1 for ell in ls), 5), generator=torch.Generator().manual_seed(3)
    ).double()
    coupling = Coupling(block.symmetric_contractions.contractions, ls, torch.device("cpu"))
    C = coupling.contract(dict(block.named_parameters()))
    counts = [2, 0, 3, 0]
    both = coupling(C, x, counts)
    apart = [contracted(block, ls, x[:, :, :2], 0), contracted(block, ls, x[:, :, 2:], 2)]
    torch.testing.assert_close(both, torch.cat(apart, dim=2), rtol=1e-12, atol=1e-12)


def test_higher_correlation_is_refused():
    class Four:
        correlation = 4

    with pytest.raises(ValueError, match="4"):
        Coupling([Four()], [0, 1], torch.device("cpu"))
