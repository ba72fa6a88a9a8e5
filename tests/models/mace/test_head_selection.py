"""One head of a model of several is the same model, readout by readout."""

import numpy as np
import pytest
import torch

from aims_pax.errors import SettingsError
from aims_pax.models.mace.head_selection import chosen_head, heads_of, select_head
from aims_pax.models.mace.linear_selection import UnknownLayer
from aims_pax.models.mace.model_surgery import comparison_structure, double_copy
from tests.models.mace.published import ELEMENTS, THREE, a_copy, maces_own

FRAME = comparison_structure((1, 6, 8), periodic=True)


@pytest.mark.parametrize("name", ["three heads", "MH: non-linear, three heads"])
def test_each_head_alone_has_the_forces_of_maces_own_calculator_with_it(name):
    model = a_copy(name)
    theirs = [maces_own(model, FRAME, head) for head in THREE]
    for k, expected in enumerate(theirs):
        one = double_copy(model)
        select_head(one, k)
        assert heads_of(one) == ("Default",)
        assert one.atomic_energies_fn.atomic_energies.shape == (1, len(ELEMENTS))
        activation = one.readouts[-1].non_linearity
        assert activation.irreps_in.dim == activation.irreps_out.dim == 4, (
            "12 hidden scalars in the whole model"
        )
        found = maces_own(one, FRAME, "Default")
        for what, ours, known in zip(("energy", "forces", "stress"), found, expected, strict=True):
            np.testing.assert_allclose(ours, known, rtol=1e-10, atol=1e-10, err_msg=what)
    assert np.abs(theirs[0][1] - theirs[2][1]).max() > 1e-3, "the heads are different models"


def test_readouts_that_cannot_be_separated_are_named():
    class OwnReadout(torch.nn.Module):
        pass

    model = a_copy("three heads")
    model.readouts[0] = OwnReadout()
    with pytest.raises(UnknownLayer, match=r"^OwnReadout$"):
        select_head(model, 0)
    model = a_copy("three heads")
    model.heads = [*THREE, "a fourth one", "a fifth one"]  # 12 hidden scalars are not 5 equal blocks
    with pytest.raises(UnknownLayer, match=r"^12 hidden scalars for 5 heads$"):
        select_head(model, 0)


def with_heads(heads):
    model = a_copy("three heads")
    model.heads = list(heads)
    return model


@pytest.mark.parametrize(
    ("heads", "wanted", "found"),
    [(("Default",), None, 0), (("pt_head", "Default"), None, 1), (THREE, "matpes_r2scan", 2)],
)
def test_the_head_is_the_named_one_or_the_only_one_or_the_default(heads, wanted, found):
    assert chosen_head(with_heads(heads), wanted, "own.model") == found


def test_several_heads_without_a_default_are_listed():
    model = with_heads(("omat_pbe", "matpes_r2scan"))
    with pytest.raises(
        SettingsError, match=r"FOUNDATION\.head: own\.model has the heads omat_pbe, matpes_r2scan"
    ):
        chosen_head(model, None, "own.model")
    with pytest.raises(SettingsError, match=r"no head 'omat_pb'; it has .*; nearest: omat_pbe"):
        chosen_head(model, "omat_pb", "own.model")


def test_a_model_without_names_of_heads_has_one():
    model = a_copy()
    del model.heads
    assert heads_of(model) == ("Default",)
    select_head(model, 0)
    assert model.heads == ["Default"]
