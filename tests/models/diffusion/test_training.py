"""Training learns, and continues bit for bit."""

import io

import numpy as np
import pytest
import torch

from aims_pax.errors import Abandoned, SettingsError
from aims_pax.frames import Frame
from aims_pax.models.diffusion.atoms_graph import batch_graphs
from aims_pax.models.diffusion.denoiser import Denoiser
from aims_pax.models.diffusion.training import DiffusionTrainer
from aims_pax.models.diffusion.training_data import architecture_for
from tests.models.diffusion.structures import CONFINED, adsorbates, graphs, settings, trimers
from tests.sweeps import thinned


def trainer(own, **keys) -> DiffusionTrainer:
    made = settings(**keys)
    return DiffusionTrainer(architecture_for(own, made), made)


def weights(made: DiffusionTrainer) -> torch.Tensor:
    return torch.cat([v.flatten() for v in made.average.values()])


def same_state(a: DiffusionTrainer, b: DiffusionTrainer) -> bool:
    """Everything but the seconds, bit for bit."""
    one, other = a.state(), b.state()
    tensors = [(one[k][name], other[k][name]) for k in ("weights", "average") for name in one[k]]
    slots = one["optimiser"]["state"]
    tensors += [(v[name], other["optimiser"]["state"][k][name]) for k, v in slots.items() for name in v]
    same = one["counts"] == other["counts"] and one["numbers"][1:] == other["numbers"][1:]
    return same and all(torch.equal(x, y) for x, y in tensors)


def test_training_lowers_the_loss_of_structures_that_it_has_not_seen():
    own = graphs(trimers(160))
    made = trainer(own, epochs=25)
    before = made.held_out_loss(own[:32])
    while not made.ended:
        made.run_epoch(own[32:])
    assert made.held_out_loss(own[:32]) < 0.9 * before


def test_the_element_in_the_middle_is_learnt_for_each_composition():
    """O–H–O has H in the middle, H–O–H has O: without the composition neither is likelier while all are masked."""
    kinds = [[8, 1, 8], [1, 8, 1]] * 40
    chain = np.array([[-1.0, 0, 0], [0, 0, 0], [1.0, 0, 0]])
    own = graphs([Frame(np.array(numbers), chain) for numbers in kinds], noisers=["Types"])
    made = trainer(own, noisers=["Types"], epochs=60, feature_size=16, lr=0.01)
    while not made.ended:
        made.run_epoch(own)
    model = made.model()
    batch, pos, _ = batch_graphs(own[:3])
    masked, sigma = torch.full((9,), model.masked), torch.full((3,), model.schedule.high, dtype=torch.float64)
    left = torch.tensor([[1, 2], [2, 1], [-1, -1]])  # H and O that are masked; nobody knows
    with torch.no_grad():
        _, scores = model(batch, pos, masked, sigma, left=left)
    oxygen = torch.softmax(scores, 1)[:, 1].view(3, 3)
    assert oxygen[0, 1] < 0.1
    assert oxygen[0, [0, 2]].min() > 0.9
    assert oxygen[1, 1] > 0.9
    assert oxygen[1, [0, 2]].max() < 0.1
    assert abs(oxygen[2] - 0.5).max() < 0.25


@pytest.mark.parametrize("schedule", thinned(["cosine", "plateau"], 2))
def test_a_training_killed_at_any_epoch_gives_the_same_weights(schedule):
    """From each of 20 states, read as a file of plain values, the next epoch is that of the whole training."""
    own = graphs(adsorbates(20), **CONFINED)
    keys = {**CONFINED, "epochs": 21, "lr_schedule": schedule, "lr_patience": 2, "batch_size": 10}
    whole, instants = trainer(own, **keys), 0
    while not whole.ended:
        buffer = io.BytesIO()
        torch.save(whole.state(), buffer)
        whole.run_epoch(own[4:], own[:4])
        again = trainer(own, **keys)
        again.load_state(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
        again.run_epoch(own[4:], own[:4])
        assert same_state(again, whole)
        instants += 1
    assert instants == 21


def test_seeds_decide_and_others_differ():
    own = graphs(trimers(32))
    first, second, other = (trainer(own, seed=s) for s in (1, 1, 2))
    for made in (first, second, other):
        made.run_epoch(own)
    assert torch.equal(weights(first), weights(second))
    assert not torch.equal(weights(first), weights(other))


def test_repeated_structures_come_in_stages(caplog):
    own = graphs(adsorbates(8), **CONFINED)
    made = trainer(own, **CONFINED, repeat=2, repeat_epoch=2, epochs=4)
    sizes = []
    loss = made.denoiser.loss
    made.denoiser.loss = lambda some, g: (sizes.append(len(some[0])), loss(some, g))[1]
    with caplog.at_level("INFO"):
        while not made.ended:
            made.run_epoch(own)
    assert sizes == [3, 3, 12, 12]
    assert "structures are repeated 2 × 2 × 1" in caplog.text


def test_a_limit_of_time_ends_training_and_the_rate_falls_to_zero():
    own = graphs(trimers(64))
    made = trainer(own, epochs=-1, max_time_minutes=0.01, batch_size=2)
    made.run_epoch(own)
    while not made.ended:
        made.run_epoch(own)
    assert 0.6 <= made.elapsed < 30
    assert made.optimiser.param_groups[0]["lr"] < 1e-3


def test_a_request_to_stop_is_followed_at_the_next_step():
    own = graphs(trimers(64))
    with pytest.raises(Abandoned):
        trainer(own).run_epoch(own, (), lambda: True)


def test_a_step_without_a_finite_gradient_is_left_out_and_an_epoch_of_such_steps_is_an_error(
    monkeypatch, caplog
):
    own = graphs(trimers(20))
    made = trainer(own, epochs=3, batch_size=10)
    made.run_epoch(own)
    before, true_loss = weights(made).clone(), made.denoiser.loss
    calls = []

    def broken(*args):
        loss = true_loss(*args)
        calls.append(1)
        if len(calls) == 2:
            assert not torch.equal(weights(made), before)  # the first step was taken
            before.copy_(weights(made))
        if len(calls) == 1:
            return loss
        # a finite number of infinite slope
        return loss + torch.sqrt(0 * next(made.denoiser.parameters()).sum())

    monkeypatch.setattr(made.denoiser, "loss", broken)
    made.run_epoch(own)
    assert torch.equal(weights(made), before)
    assert "step 4: the gradient is not finite" in caplog.text
    with pytest.raises(SettingsError, match="epoch 3: no step had a finite gradient; lower lr"):
        made.run_epoch(own)
    assert torch.isfinite(weights(made)).all()


def test_a_limit_of_steps_is_met_exactly_and_continues(caplog):
    own = graphs(trimers(40))
    made = trainer(own, epochs=-1, max_steps=7, batch_size=16)
    assert made.settings.seconds == 0
    while not made.ended:
        made.run_epoch(own)
    assert made.step == 7
    other = trainer(own, epochs=-1, max_steps=7, batch_size=16)
    other.run_epoch(own)
    again = trainer(own, epochs=-1, max_steps=7, batch_size=16)
    again.load_state(other.state())
    while not again.ended:
        again.run_epoch(own)
    assert all(torch.equal(v, again.average[k]) for k, v in made.average.items())


def test_the_held_out_loss_of_many_structures_is_the_mean_over_parts(monkeypatch):
    own = graphs(trimers(30))
    made = trainer(own)
    whole = made.held_out_loss(own)
    monkeypatch.setattr("aims_pax.models.diffusion.training.AT_ONCE", 8)
    assert made.held_out_loss(own) == pytest.approx(whole, rel=0.5)  # other noise
    seen = []
    monkeypatch.setattr(Denoiser, "loss", lambda self, some, g: seen.append(len(some)) or torch.tensor(1.0))
    assert made.held_out_loss(own) == pytest.approx(1.0)
    assert max(seen) == 16
