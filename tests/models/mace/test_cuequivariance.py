"""cuEquivariance in dynamics, with a stand-in for its packages; the real converter where it is installed."""

import logging

import numpy as np
import pytest
import torch

from aims_pax.errors import SettingsError
from aims_pax.models.mace import cuequivariance
from aims_pax.models.mace.cuequivariance import Cueq, CueqEvaluator
from aims_pax.models.mace.inference import Committee
from tests.models.mace.tiny import copper, ensemble, ethanol, water

FRAMES = [f.frame for f in [*ethanol(2), *copper(1), *water(1)]]


class StandIn:
    """MACE's converter: a copy of the model, whose forces are wrong by a factor if asked for."""

    def __init__(self, monkeypatch) -> None:
        self.converted, self.transferred = 0, 0
        self.wrong, self.error = 1.0, None
        monkeypatch.setattr(cuequivariance, "find_spec", lambda name: name)
        monkeypatch.setattr(cuequivariance, "convert", self.convert)
        monkeypatch.setattr(cuequivariance, "transfer", self.transfer)

    def convert(self, model, device):
        assert device == "cpu"
        self.converted += 1
        if self.error:
            raise self.error
        target = ensemble([1, 2], default_dtype="float64").members[0].model
        self.transfer(model, target)
        self.transferred -= 1
        return target

    def transfer(self, model, target):
        self.transferred += 1
        target.load_state_dict(model.state_dict())
        for own, told in zip(target.interactions, model.interactions, strict=True):
            own.avg_num_neighbors = told.avg_num_neighbors
        with torch.no_grad():
            target.scale_shift.scale.mul_(self.wrong)


@pytest.fixture
def stand_in(monkeypatch):
    return StandIn(monkeypatch)


@pytest.fixture
def models():
    return [m.frozen_copy() for m in ensemble(default_dtype="float64").members]


def evaluate(chooser, models):
    return Committee(models, evaluator=chooser.evaluator).evaluate(FRAMES)


def same(a, b):
    torch.testing.assert_close(a.forces, b.forces, rtol=0, atol=1e-10)
    torch.testing.assert_close(a.energies, b.energies, rtol=0, atol=1e-9)
    torch.testing.assert_close(a.stress, b.stress, rtol=0, atol=1e-10, equal_nan=True)


def test_converted_models_evaluate_and_it_is_said_once(stand_in, models, caplog):
    chooser = Cueq("cuda")
    with caplog.at_level(logging.INFO):
        same(evaluate(chooser, models), Committee(models).evaluate(FRAMES))
        evaluate(chooser, models)
    assert isinstance(Committee(models, evaluator=chooser.evaluator).evaluator, CueqEvaluator)
    assert stand_in.converted == 2
    assert [r.message.split(",")[0] for r in caplog.records] == ["inference: cuEquivariance"]


def test_new_weights_are_transferred_and_not_converted_again(stand_in, models):
    chooser = Cueq("cuda")
    before = evaluate(chooser, models)
    with torch.no_grad():
        next(models[1].products[0].parameters()).mul_(1.5)
    after = evaluate(chooser, models)
    assert (stand_in.converted, stand_in.transferred) == (2, 1)
    assert not torch.allclose(before.forces[1], after.forces[1], atol=1e-3)
    same(after, Committee(models).evaluate(FRAMES))


def test_forces_that_differ_mean_torch_from_then_on(stand_in, models, caplog):
    chooser = Cueq("cuda")
    evaluate(chooser, models)
    stand_in.wrong = 1.001
    with torch.no_grad():
        next(models[0].products[0].parameters()).mul_(1.5)
    with caplog.at_level(logging.WARNING):
        same(evaluate(chooser, models), Committee(models).evaluate(FRAMES))
        same(evaluate(chooser, models), Committee(models).evaluate(FRAMES))
    assert len(caplog.records) == 1
    assert "torch instead of cuEquivariance from now on, because its forces differ" in caplog.text


def test_a_converter_that_fails_means_torch_with_the_reason(stand_in, models, caplog):
    stand_in.error = NotImplementedError("Correlation 1 not supported")
    with caplog.at_level(logging.WARNING):
        same(evaluate(Cueq("cuda"), models), Committee(models).evaluate(FRAMES))
    assert caplog.messages[-1].endswith("because NotImplementedError: Correlation 1 not supported")
    assert "Correlation 1" in caplog.text


def test_without_a_gpu_or_the_packages_the_error_names_the_way_out(monkeypatch):
    with pytest.raises(SettingsError, match="device: cuda, not cpu"):
        Cueq("cpu")
    monkeypatch.setattr(cuequivariance, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"pip install 'aims-pax\[cueq\]'"):
        Cueq("cuda")


def test_an_ensemble_uses_it_when_it_is_asked_to(stand_in, monkeypatch):
    built = ensemble(default_dtype="float64", enable_cueq=True)
    told = Committee([m.frozen_copy() for m in built.members]).evaluate(FRAMES)
    real = Cueq
    # models stay on the CPU here
    monkeypatch.setattr(cuequivariance, "Cueq", lambda device, plain: real("cuda", plain))
    potential = built.potential()
    assert isinstance(potential.evaluator, CueqEvaluator)
    same(potential.evaluate(FRAMES), told)


@pytest.mark.slow
def test_the_real_converter_on_the_cpu_gives_the_same_forces(monkeypatch, caplog):
    """Minutes: without its CUDA kernels the couplings are worked out slowly."""
    pytest.importorskip("cuequivariance_torch", reason="the extra cueq is not installed")
    monkeypatch.setattr(cuequivariance, "find_spec", lambda name: name)
    models = [m.frozen_copy() for m in ensemble(default_dtype="float64").members]
    chooser = Cueq("cuda")
    with caplog.at_level(logging.INFO):
        same(evaluate(chooser, models), Committee(models).evaluate(FRAMES))
        with torch.no_grad():
            for parameter in models[0].parameters():
                parameter.mul_(1.1)
        same(evaluate(chooser, models), Committee(models).evaluate(FRAMES))
    assert chooser.refusal is None
    assert "inference: cuEquivariance" in caplog.text
    assert np.isfinite(models[0].r_max.item())
