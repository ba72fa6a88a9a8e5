import numpy as np
import pytest
import torch
from mace.data import AtomicData, KeySpecification, config_from_atoms
from mace.modules import WeightedEnergyForcesLoss, WeightedEnergyForcesStressLoss
from mace.tools import AtomicNumberTable, torch_geometric

from aims_pax.frames import Label, LabelledFrame
from aims_pax.models.mace.graphs import collate
from aims_pax.models.mace.losses import LOSSES, Loss, predict
from aims_pax.models.mace.mace_import import default_dtype
from tests.models.mace.tiny import ELEMENTS, copper, ensemble, ethanol, settings

FRAMES = [*ethanol(2), *copper(2)]


@pytest.fixture(scope="module")
def made():
    return ensemble([1], default_dtype="float64")


def ours(made, frames, loss: Loss):
    member = made.members[0]
    batch = collate(made.graphs.of(frames), member.statistics.E0, member.device)
    return loss(batch, predict(member.model, batch, training=True, stress=loss.stress))


def theirs(made, frames, loss, stress: bool):
    """MACE's own data pipeline, batch and loss."""
    table = AtomicNumberTable(list(ELEMENTS))
    with default_dtype(torch.float64):
        data = []
        for f in frames:
            config = config_from_atoms(f.to_atoms(), key_specification=KeySpecification.from_defaults())
            data.append(AtomicData.from_config(config, z_table=table, cutoff=3.5))
        batch = next(iter(torch_geometric.dataloader.DataLoader(data, batch_size=len(data))))
    out = made.members[0].model(batch.to_dict(), training=True, compute_stress=stress)
    return loss(pred=out, ref=batch)


@pytest.mark.parametrize("name", ["weighted", "stress"])
def test_loss_and_gradient_are_those_of_mace_on_its_own_batches(made, name):
    stressed = name == "stress"
    loss = Loss(settings(loss=name, default_dtype="float64", stress_weight=50.0, compute_stress=stressed))
    with default_dtype(torch.float64):
        weights = {"energy_weight": 1.0, "forces_weight": 1000.0}
        if name == "stress":
            mace_loss = WeightedEnergyForcesStressLoss(**weights, stress_weight=50.0)
        else:
            mace_loss = WeightedEnergyForcesLoss(**weights)
    one, other = ours(made, FRAMES, loss), theirs(made, FRAMES, mace_loss, name == "stress")
    assert float(one.detach()) == pytest.approx(float(other.detach()), rel=1e-9)
    gradients = [torch.autograd.grad(x, made.members[0].weights, allow_unused=True) for x in (one, other)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8 * float(b.abs().max()) + 1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_finite_and_can_be_differentiated(made, name):
    value = ours(made, FRAMES, Loss(settings(loss=name, default_dtype="float64", compute_stress=True)))
    gradients = torch.autograd.grad(value, made.members[0].weights, allow_unused=True)
    assert float(value.detach()) > 0
    assert all(torch.isfinite(g).all() for g in gradients if g is not None)


@pytest.mark.parametrize(
    "name", [name for name, (_, terms) in LOSSES.items() if {"stress", "virials"} & set(terms)]
)
def test_a_label_without_stress_adds_nothing_to_the_stress_loss(made, name):
    alone = {"energy_weight": 0.0, "forces_weight": 0.0}
    loss = Loss(settings(loss=name, default_dtype="float64", compute_stress=True, **alone))
    without = [LabelledFrame(f.frame, Label(f.label.energy, f.label.forces)) for f in FRAMES]
    assert float(ours(made, FRAMES, loss).detach()) > 0
    assert float(ours(made, without, loss).detach()) == 0


@pytest.mark.parametrize("name", ["huber", "universal"])
def test_given_stress_is_not_learnt_without_compute_stress(made, name):
    loss = Loss(settings(loss=name, default_dtype="float64", stress_weight=1e6))
    without = [LabelledFrame(f.frame, Label(f.label.energy, f.label.forces)) for f in FRAMES]
    assert not loss.stress
    assert float(ours(made, FRAMES, loss).detach()) == float(ours(made, without, loss).detach())


def test_config_weights_scale_the_loss(made):
    loss = Loss(settings(default_dtype="float64"))
    member = made.members[0]
    batch = collate(made.graphs.of(FRAMES), member.statistics.E0, member.device)
    prediction = predict(member.model, batch, training=False, stress=False)
    plain = float(loss(batch, prediction).detach())
    batch.weight.mul_(2.0)
    assert float(loss(batch, prediction).detach()) == pytest.approx(2 * plain)


def test_compute_stress_turns_the_weighted_loss_into_one_with_stress():
    loss = Loss(settings(compute_stress=True))
    assert (loss.name, loss.stress) == ("stress", True)
    assert not Loss(settings()).stress


def test_predictions_for_training_are_those_for_inference(made):
    member = made.members[0]
    batch = collate(made.graphs.of(FRAMES), member.statistics.E0, member.device)
    prediction = predict(member.model, batch, training=True, stress=True)
    evaluation = made.potential().evaluate([f.frame for f in FRAMES])
    np.testing.assert_allclose(prediction.forces.detach(), evaluation.forces[0], atol=1e-10)
    np.testing.assert_allclose(prediction.stress.detach()[2:], evaluation.stress[0, 2:], atol=1e-12)
