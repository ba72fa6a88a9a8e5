"""Charge and spin of a model that reads them, as constants: the same model for structures with this charge and spin."""

from types import SimpleNamespace

import numpy as np
import pytest

from aims_pax.errors import SettingsError
from aims_pax.models.mace.embedding_folding import (
    WithFeatures,
    check_electrons_of,
    check_features,
    fold_embeddings,
    is_embedded,
)
from aims_pax.models.mace.inference import Committee, TorchEvaluator
from aims_pax.models.mace.model_surgery import comparison_structure, double_copy
from tests.models.mace.published import ARCHITECTURES, CATION, a_copy, maces_own, published

OMOL = "OMOL: charge and spin"
FRAME = comparison_structure((1, 6, 8), periodic=True)


def test_a_folded_model_has_the_forces_of_maces_own_calculator_for_this_charge_and_spin_alone():
    model = a_copy(OMOL)
    ion, neutral = double_copy(model), double_copy(model)
    fold_embeddings(ion, CATION)
    fold_embeddings(neutral, {"total_charge": 0.0, "total_spin": 1.0})
    assert (is_embedded(model), is_embedded(ion)) == (True, False)
    for head in ("omol", "Default"):
        expected, found = maces_own(model, FRAME, head), maces_own(ion, FRAME, head)
        for what, ours, known in zip(("energy", "forces", "stress"), found, expected, strict=True):
            np.testing.assert_allclose(ours, known, rtol=1e-10, atol=1e-10, err_msg=what)
    assert abs(found[0] - maces_own(neutral, FRAME, "Default")[0]) > 1e-3


def test_a_model_that_reads_the_charge_alone_and_has_no_readout_of_it_is_folded_too():
    specs = {"total_charge": ARCHITECTURES[OMOL]["embedding_specs"]["total_charge"]}
    model = published(OMOL, embedding_specs=specs, use_embedding_readout=False)
    expected, E0 = maces_own(model, FRAME, "Default"), model.atomic_energies_fn.atomic_energies.clone()
    fold_embeddings(model, CATION)
    found = maces_own(model, FRAME, "Default")
    assert found[0] == pytest.approx(expected[0], rel=1e-12)
    np.testing.assert_allclose(found[1], expected[1], atol=1e-10)
    assert (model.atomic_energies_fn.atomic_energies == E0).all()


def test_a_model_with_features_is_called_like_one_without_them():
    model = a_copy(OMOL)
    frames = [FRAME, comparison_structure((1, 8), periodic=False)]
    wrapped = WithFeatures(model, CATION)
    assert (wrapped.heads, float(wrapped.r_max)) == (["omol", "Default"], 4.5)
    with pytest.raises(AttributeError, match="no_such_part"):
        _ = wrapped.no_such_part
    for k, head in enumerate(wrapped.heads):
        said = Committee([wrapped], head=k, evaluator=TorchEvaluator).evaluate(frames)
        energy, forces, _ = maces_own(model, FRAME, head)
        assert float(said.energies[0, 0]) == pytest.approx(energy, rel=1e-12)
        np.testing.assert_allclose(said.forces[0, : len(FRAME)], forces, atol=1e-10)


def test_other_properties_than_charge_and_spin_of_structures_are_refused():
    check_features(a_copy(OMOL), "it")
    specs = {"total_charge": {"per": "graph"}, "elec_temp": {"per": "graph"}, "total_spin": {"per": "atom"}}
    with pytest.raises(
        SettingsError, match=r"it reads elec_temp \(of each graph\), total_spin \(of each atom\) of"
    ):
        check_features(SimpleNamespace(embedding_specs=specs), "it")


def test_a_geometry_with_another_charge_or_spin_is_refused():
    check_electrons_of([(1.0, 2), (None, None)], CATION, "it")
    with pytest.raises(
        SettingsError, match=r"FOUNDATION\.spin: it is fixed to 2, but a geometry has 1; set it"
    ):
        check_electrons_of([(1.0, 1)], CATION, "it")
    with pytest.raises(SettingsError, match=r"FOUNDATION\.charge: it is fixed to 1, but a geometry has 0"):
        check_electrons_of([(None, 2), (0.0, None)], CATION, "it")
