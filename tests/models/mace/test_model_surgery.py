"""One head and few elements of a published model are the same model, whatever its architecture."""

import logging

import numpy as np
import pytest
import torch

from aims_pax.errors import SettingsError
from aims_pax.frames import Frame
from aims_pax.models.mace.build import elements_of, read_model
from aims_pax.models.mace.fast_forward import unsupported_part
from aims_pax.models.mace.head_selection import heads_of
from aims_pax.models.mace.mace_import import quiet
from aims_pax.models.mace.model_surgery import (
    DifferentModel,
    compare,
    comparison_structure,
    double_copy,
    reduced_model,
)
from tests.models.mace.published import ARCHITECTURES, CATION, ELEMENTS, maces_own, published

# our own evaluation does not serve these; they run through MACE's own modules, and the log says why
EVALUATED_BY_MACE = {
    "MH: non-linear, three heads",
    "attention second",
    "chebyshev",
    "no gate, agnostic product",
    "OMOL: charge and spin",
}


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
    assert bool(unsupported_part(small)) == (name in EVALUATED_BY_MACE)


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

    # a local class cannot be pickled
    copy, model_surgery.double_copy = (
        model_surgery.double_copy,
        lambda m: m,
    )
    try:
        return reduced_model(model, 0, (1, 6), "own.model")
    finally:
        model_surgery.double_copy = copy


def test_an_element_it_does_not_know_is_refused():
    with pytest.raises(SettingsError, match=r"own\.model does not know Au; it knows H C N O Cu"):
        reduced_model(published(), 0, (1, 79), "own.model")


def test_the_file_of_a_reduced_model_is_an_ordinary_one(tmp_path):
    small = reduced_model(published("MH: non-linear, three heads"), 2, (1, 8), "it")
    with quiet():
        torch.save(small, tmp_path / "small.model")
    again = read_model(tmp_path / "small.model", "cpu", torch.float64)
    frame = comparison_structure((1, 8), periodic=True)
    assert maces_own(again, frame, "Default")[0] == maces_own(small, frame, "Default")[0]
