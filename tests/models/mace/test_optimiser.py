import numpy as np
import pytest
import torch

from aims_pax.models.mace.build import build_model
from aims_pax.models.mace.optimiser import Schedule, load_optimiser, make_optimiser, optimiser_arrays
from tests.models.mace.tiny import settings


def parameter(value=1.0):
    return torch.nn.Parameter(torch.tensor([value]))


def test_reduce_on_plateau_is_that_of_torch():
    training = settings(scheduler_patience=2, lr_factor=0.5).training
    ours = Schedule(training)
    optimiser = torch.optim.Adam([parameter()], lr=training.lr)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, factor=0.5, patience=2)
    for loss in np.random.default_rng(0).gamma(1.0, 1.0, 60):
        ours.after_validation(loss)
        theirs.step(loss)
        assert ours.lr == pytest.approx(optimiser.param_groups[0]["lr"])
    assert ours.lr < 0.1 * training.lr


@pytest.mark.parametrize("first", [8.0, np.nan])
def test_a_loss_on_other_frames_is_no_failure_but_the_one_to_beat(first):
    schedule = Schedule(settings(scheduler_patience=1, lr_factor=0.5).training)
    schedule.after_validation(1.0)
    schedule.after_validation(first, comparable=False)
    for loss in (7.0, 6.0, 5.0, 4.0):  # all above the best of the former frames
        schedule.after_validation(loss)
    assert schedule.lr == schedule.initial
    for _ in range(2):
        schedule.after_validation(4.0)
    assert schedule.lr == schedule.initial / 2


def test_exponential_decay_counts_epochs_and_does_not_look_at_losses():
    schedule = Schedule(settings(scheduler="ExponentialLR", lr_scheduler_gamma=0.9).training)
    for _ in range(3):
        schedule.after_validation(1.0)
        schedule.after_epoch()
    assert schedule.lr == pytest.approx(0.01 * 0.9**3)


@pytest.mark.parametrize(("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_weight_decay_acts_where_mace_puts_it(name, kind):
    model = build_model(settings(), (1, 8), 1)
    optimiser = make_optimiser(model, settings(optimizer=name, amsgrad=False, weight_decay=0.25).training)
    assert type(optimiser) is kind
    names = {p: n for n, p in model.named_parameters()}
    decays = {names[p]: g["weight_decay"] for g in optimiser.param_groups for p in g["params"]}
    assert set(decays) == set(names.values())
    assert decays["products.0.linear.weight"] == decays["interactions.1.linear.weight"] == 0.25
    assert decays["readouts.0.linear.weight"] == decays["interactions.0.linear_up.weight"] == 0.0
    assert not optimiser.param_groups[0]["amsgrad"]


def strided(gradient):
    """The same numbers in another order of memory."""
    return gradient.transpose(0, -1).contiguous().transpose(0, -1)


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_a_step_is_that_of_torchs_plain_loop_and_is_counted_in_every_parameter(optimizer):
    """What is kept of parameters (`Fast.frozen_weights`) goes by the count; a fused step alone would not raise it."""
    ours = build_model(settings(default_dtype="float64"), (1, 6), 1)
    theirs = build_model(settings(default_dtype="float64"), (1, 6), 1)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[optimizer]
    training = settings(optimizer=optimizer, amsgrad=True, weight_decay=0.0).training
    optimiser = make_optimiser(ours, training)
    loop = kind(theirs.parameters(), lr=training.lr, amsgrad=True, weight_decay=0.0, foreach=False)
    rng = torch.Generator().manual_seed(3)
    before = [p._version for p in ours.parameters()]
    for _ in range(3):
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            a.grad = torch.randn(a.shape, generator=rng, dtype=a.dtype)
            b.grad = a.grad.clone()
            a.grad = strided(a.grad)  # the fused kernel alone would take its numbers in the wrong order
        optimiser.step()
        loop.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)
    assert all(p._version > n for p, n in zip(ours.parameters(), before, strict=True))


def test_moments_are_laid_out_as_their_parameter_when_they_come_back():
    ends = []
    for restarted in (False, True):
        p = torch.nn.Parameter(strided(torch.arange(12.0).view(3, 4)))
        optimiser = torch.optim.Adam([p], lr=0.1, fused=True)
        for n in (1, 2):
            p.grad = strided(torch.arange(12.0).view(3, 4).flip(0) ** n)
            optimiser.step()
            if restarted:
                load_optimiser(optimiser, optimiser_arrays(optimiser, {p: "p"}), {"p": p})
        ends.append(p.detach().clone())
    assert torch.equal(*ends)


def test_amsgrad_can_be_switched_on_in_a_continued_training():
    p = parameter()
    optimiser = torch.optim.Adam([p], lr=0.1)
    p.grad = torch.ones(1)
    optimiser.step()
    again = torch.optim.Adam([p], lr=0.1, amsgrad=True)
    load_optimiser(again, optimiser_arrays(optimiser, {p: "p"}), {"p": p})
    assert torch.equal(again.state[p]["max_exp_avg_sq"], again.state[p]["exp_avg_sq"])
    again.step()


def test_a_continued_training_takes_another_learning_rate_and_keeps_an_old_one():
    before = Schedule(settings(lr=0.01, scheduler="ExponentialLR", lr_scheduler_gamma=0.5).training)
    before.after_epoch()
    for lr, expected in ((0.01, 0.005), (0.001, 0.001)):
        after = Schedule(settings(lr=lr).training)
        after.load(before.array())
        assert after.lr == expected
