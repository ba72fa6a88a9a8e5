"""One head and few elements of a published model are the same model, whatever its architecture."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from aims_pax.errors import SettingsError
from aims_pax.frames import Frame
from aims_pax.models.mace.build import elements_of, read_model
from aims_pax.models.mace.embedding_folding import check_electrons_of, check_features
from aims_pax.models.mace.fast_forward import unsupported_part
from aims_pax.models.mace.head_selection import chosen_head, heads_of, select_head
from aims_pax.models.mace.mace_import import quiet
from aims_pax.models.mace.model_surgery import (
    DifferentModel,
    compare,
    comparison_structure,
    double_copy,
    reduced_model,
)
from tests.models.mace.published import ARCHITECTURES, ELEMENTS, THREE, published

CATION = {"total_charge": 1.0, "total_spin": 2.0}


def maces_own(model, frame: Frame, head: str):
    """Energy, forces and stress by MACE's own calculator, from the positions as a user gives them."""
    from mace.calculators import MACECalculator

    with quiet():
        calculator = MACECalculator(models=[model], device="cpu", default_dtype="float64", head=head)
        atoms = frame.to_atoms()
        atoms.info |= {"charge": 1, "spin": 2}  # read by models with embeddings alone
        atoms.calc = calculator
        return atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_published_architecture_is_the_same_with_one_head_and_fewer_elements(name, caplog):
    model = published(name)
    head = heads_of(model)[-1]
    small = reduced_model(model, len(heads_of(model)) - 1, (8, 1, 6), "it", CATION)
    assert elements_of(small) == (1, 6, 8)
    assert heads_of(small) == ("Default",)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    frame = comparison_structure((1, 6, 8), periodic=True)
    expected, found = maces_own(model, frame, head), maces_own(small, frame, "Default")
    for what, one, other in zip(("energy", "forces", "stress"), expected, found, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-10, atol=1e-10, err_msg=what)
    assert not caplog.records


def test_forces_agree_with_finite_differences_after_the_surgery():
    small = reduced_model(published("MH: non-linear, three heads"), 1, (1, 8), "it")
    frame = comparison_structure((1, 8), periodic=False)
    box = Frame(frame.numbers, frame.positions, 30 * np.eye(3), np.full(3, True))
    _, forces, _ = maces_own(small, box, "Default")
    for atom, axis in ((0, 1), (3, 2)):
        step = np.zeros((len(box), 3))
        step[atom, axis] = 1e-4
        up, down = (maces_own(small, box.moved(box.positions + s * step), "Default")[0] for s in (1, -1))
        assert forces[atom, axis] == pytest.approx(-(up - down) / 2e-4, abs=1e-6)


def test_our_own_evaluation_serves_what_it_can():
    """The others run through MACE's own modules; `unsupported_part` names the reason for the log."""
    slow = {
        name
        for name in ARCHITECTURES
        if unsupported_part(reduced_model(published(name), 0, (1, 8), "it", CATION))
    }
    assert slow == {
        "MH: non-linear, three heads",
        "attention second",
        "chebyshev",
        "no gate, agnostic product",
        "OMOL: charge and spin",
    }


def test_charge_and_spin_are_fixed_to_one_value_and_other_properties_are_refused():
    model = published("OMOL: charge and spin")
    frame = comparison_structure((1, 8), periodic=True)
    ion = maces_own(reduced_model(model, 1, (1, 8), "it", CATION), frame, "Default")
    neutral = reduced_model(model, 1, (1, 8), "it", {"total_charge": 0.0, "total_spin": 1.0})
    assert ion[0] == pytest.approx(maces_own(model, frame, "Default")[0], rel=1e-12)
    assert abs(ion[0] - maces_own(neutral, frame, "Default")[0]) > 1e-3
    specs = {"total_charge": {"per": "graph"}, "elec_temp": {"per": "graph"}, "total_spin": {"per": "atom"}}
    with pytest.raises(
        SettingsError, match=r"it reads elec_temp \(of each graph\), total_spin \(of each atom\) of"
    ):
        check_features(SimpleNamespace(embedding_specs=specs), "it")
    check_electrons_of([(1.0, 2), (None, None)], CATION, "it")
    with pytest.raises(SettingsError, match=r"FOUNDATION\.spin: it is fixed to 2, but a geometry has 1"):
        check_electrons_of([(1.0, 1)], CATION, "it")


def test_a_reduced_basis_of_couplings_stays_as_it_is():
    """Models trained with cuEquivariance have fewer couplings (use_reduced_cg) than MACE builds without it."""
    model = published()
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


def test_trained_constants_of_the_radial_basis_become_constants():
    """MACE's fine-tuning stores them as parameters, which its optimiser never changes."""
    model = published()
    basis = model.radial_embedding.bessel_fn
    shifted = basis.bessel_weights * 1.01
    del basis.bessel_weights
    basis.bessel_weights = torch.nn.Parameter(shifted)
    assert unsupported_part(model) == "readouts or trained radial basis"
    small = reduced_model(model, 0, ELEMENTS, "it")
    assert unsupported_part(small) is None
    assert torch.equal(small.radial_embedding.bessel_fn.bessel_weights, shifted.detach())


def test_elements_out_of_order_are_sorted():
    model = published(atomic_numbers=[8, 1, 6, 29, 7])
    small = reduced_model(model, 0, (8, 1, 6, 29, 7), "it")
    assert elements_of(small) == (1, 6, 7, 8, 29)
    assert compare(double_copy(model), 0, small, (1, 6, 7, 8, 29)) < 1e-12


def test_a_comparison_that_cannot_fail_would_be_none():
    model = published("three heads")
    small = reduced_model(model, 0, (1, 6), "it")
    with pytest.raises(DifferentModel, match="energies would differ"):
        compare(double_copy(model), 1, small, (1, 6))
    with torch.no_grad():
        small.readouts[0].linear.weight.mul_(1 + 1e-6)
    with pytest.raises(DifferentModel):
        compare(double_copy(model), 0, small, (1, 6))


def test_a_model_that_cannot_be_reduced_keeps_its_elements(caplog, monkeypatch):
    from aims_pax.models.mace import model_surgery

    def other_model(model, elements):
        model.readouts[0].linear.weight.data.mul_(2)

    monkeypatch.setattr(model_surgery, "select_elements", other_model)
    with caplog.at_level(logging.WARNING):
        small = reduced_model(published("three heads"), 2, (1, 6), "big.model")
    assert elements_of(small) == ELEMENTS
    assert heads_of(small) == ("Default",)
    assert (
        "big.model: all 5 elements remain in it (without the others its energies would differ" in caplog.text
    )


def test_heads_that_cannot_be_separated_are_refused():
    class OwnReadout(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x, heads=None):
            return self.inner(x, heads)

    model = published("three heads")
    model.readouts[0] = OwnReadout(model.readouts[0])
    with pytest.raises(
        SettingsError, match=r"heads omat_pbe, .*cannot be reduced to one head here \(OwnReadout\)"
    ):
        select_and_reduce(model)


def select_and_reduce(model):
    from aims_pax.models.mace import model_surgery

    copy, model_surgery.double_copy = (
        model_surgery.double_copy,
        lambda m: m,
    )  # a local class cannot be pickled
    try:
        return reduced_model(model, 0, (1, 6), "own.model")
    finally:
        model_surgery.double_copy = copy


def test_an_element_it_does_not_know_is_refused():
    with pytest.raises(SettingsError, match=r"own\.model does not know Au; it knows H C N O Cu"):
        reduced_model(published(), 0, (1, 79), "own.model")


@pytest.mark.parametrize(
    ("heads", "wanted", "found"),
    [(("Default",), None, 0), (("pt_head", "Default"), None, 1), (THREE, "matpes_r2scan", 2)],
)
def test_the_head_is_the_named_one_or_the_only_one_or_the_default(heads, wanted, found):
    assert chosen_head(published(heads=heads), wanted, "own.model") == found


def test_several_heads_without_a_default_are_listed():
    model = published(heads=("omat_pbe", "matpes_r2scan"))
    with pytest.raises(
        SettingsError, match=r"FOUNDATION\.head: own\.model has the heads omat_pbe, matpes_r2scan"
    ):
        chosen_head(model, None, "own.model")
    with pytest.raises(SettingsError, match=r"no head 'omat_pb'; it has .*; nearest: omat_pbe"):
        chosen_head(model, "omat_pb", "own.model")


def test_a_model_without_names_of_heads_has_one():
    model = published()
    del model.heads
    assert heads_of(model) == ("Default",)
    select_head(model, 0)
    assert model.heads == ["Default"]


def test_the_file_of_a_reduced_model_is_an_ordinary_one(tmp_path):
    small = reduced_model(published("MH: non-linear, three heads"), 2, (1, 8), "it")
    with quiet():
        torch.save(small, tmp_path / "small.model")
    again = read_model(tmp_path / "small.model", "cpu", torch.float64)
    frame = comparison_structure((1, 8), periodic=True)
    assert maces_own(again, frame, "Default")[0] == maces_own(small, frame, "Default")[0]
