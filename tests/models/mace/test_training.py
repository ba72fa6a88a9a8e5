import numpy as np
import pytest
import torch

from aims_pax.errors import Abandoned
from aims_pax.models.mace import training
from aims_pax.models.mace.build import build_model
from aims_pax.models.mace.graphs import GraphCache
from aims_pax.models.mace.losses import Loss
from aims_pax.models.mace.member import Member
from aims_pax.models.mace.statistics import measure
from aims_pax.models.mace.training import TrainingPlan, training_round, validate, visit_arrays
from tests.models.mace.tiny import ethanol, settings

HCO = (1, 6, 8)
STORE = GraphCache(HCO, 3.5, torch.float32)
TRAIN, VALID = STORE.of(ethanol(8, 0)), STORE.of(ethanol(4, 1))
MODEL = build_model(settings(), HCO, 3)
START = {n: p.detach().clone() for n, p in MODEL.named_parameters()}


def member(**changes) -> Member:
    """A fresh member; the module itself is built once."""
    with torch.no_grad():
        for name, parameter in MODEL.named_parameters():
            parameter.copy_(START[name])
    made = Member("m_3", 3, MODEL, settings(**changes))
    made.freeze(measure(TRAIN, HCO, scaling="rms_forces_scaling", dtype=torch.float32))
    return made


def plan(epochs=2, **how):
    return TrainingPlan(epochs, how.pop("words", ("train", 0)), **how)


def loss(made):
    return Loss(made.settings)


def same(a, b):
    return a.keys() == b.keys() and all(
        np.array_equal(a[k], b[k], equal_nan=a[k].dtype.kind == "f") for k in a
    )


def test_training_reduces_the_error():
    made = member()
    before = validate(made, VALID, loss(made))
    result = training_round(made, TRAIN, VALID, plan(25), loss(made))
    assert result.force_mae < 0.5 * before.force_mae
    assert result.valid_loss < 0.3 * before.loss
    assert result.train_loss < result.history[0].train_loss
    assert [h.epoch for h in result.history] == list(range(1, 26))
    assert result.stress_mae is None


def test_equal_visits_give_equal_bits_and_other_names_other_shuffles():
    one = member()
    training_round(one, TRAIN, VALID, plan(), loss(one))
    arrays = one.arrays()
    same_again = member()
    training_round(same_again, TRAIN, VALID, plan(), loss(same_again))
    assert same(arrays, same_again.arrays())
    other = member()
    training_round(other, TRAIN, VALID, plan(words=("train", 1)), loss(other))
    assert not same(arrays, other.arrays())


def test_going_on_from_arrays_is_bit_for_bit_like_not_having_stopped():
    made = member(swa=True)
    training_round(made, TRAIN, VALID, plan(), loss(made))
    half = made.arrays()
    training_round(made, TRAIN, VALID, plan(words=("train", 1)), loss(made))
    through = made.arrays()
    after, result = visit_arrays(member(swa=True), half, TRAIN, VALID, plan(words=("train", 1)))
    assert same(through, after)
    assert result.history[0].epoch == 3


def test_validation_uses_the_averaged_weights():
    made = member()
    training_round(made, TRAIN, VALID, plan(), loss(made))
    seen = validate(made, VALID, loss(made))
    assert seen.loss == made.seen.loss
    made.average.adopt()
    assert validate(made, VALID, loss(made)) == seen


def test_validation_happens_every_so_many_epochs_of_the_whole_life():
    made = member()
    first = training_round(made, TRAIN, VALID, plan(1, valid_skip=2), loss(made))
    assert np.isnan(first.valid_loss)
    second = training_round(made, TRAIN, VALID, plan(1, valid_skip=2), loss(made))
    assert np.isfinite(second.valid_loss)
    third = training_round(made, TRAIN, VALID, plan(1, valid_skip=2), loss(made))
    assert third.valid_loss == second.valid_loss  # the newest there is
    assert np.isnan(third.history[0].valid_loss)


def test_more_than_patience_validations_without_improvement_kick_the_optimiser():
    made = member()
    losses = loss(made)
    results = [training_round(made, TRAIN, VALID, plan(1, patience=2, margin=1e9), losses) for _ in range(8)]
    # the first validation improves on nothing, two may pass, the third kicks; then the count starts again
    assert [r.kicked for r in results] == [False, False, False, True, False, False, True, False]


def test_a_kick_forgets_moments_and_learning_rate_but_not_weights():
    made = member()
    losses = loss(made)
    training_round(made, TRAIN, VALID, plan(1, margin=1e9), losses)
    made.schedule.lr = 1e-6
    training_round(made, TRAIN, VALID, plan(1, margin=1e9, patience=0), losses)
    assert made.schedule.lr == 0.01
    assert not made.optimiser.state


def test_an_improvement_starts_the_count_again():
    made = member()
    losses = loss(made)
    training_round(made, TRAIN, VALID, plan(3, margin=1e9, patience=10), losses)
    assert made.progress.stale == 2
    made.progress.best = 1e12
    training_round(made, TRAIN, VALID, plan(1, margin=0.0, patience=10), losses)
    assert made.progress.stale == 0


def test_losses_on_a_grown_validation_set_are_a_new_mark():
    made = member()
    losses = loss(made)
    training_round(made, TRAIN, VALID[:2], plan(1, margin=0.0, patience=5), losses)
    made.progress.best = made.schedule.best = 1e-9
    training_round(made, TRAIN, VALID, plan(1, margin=0.0, patience=5), losses)
    assert made.progress.best == made.schedule.best == made.seen.loss
    assert made.progress.stale == made.schedule.bad == 0


def test_the_scheduler_lowers_the_learning_rate_only_when_it_may():
    for schedule, lower in [(True, True), (False, False)]:
        made = member(scheduler_patience=0, lr=0.2, clip_grad=1e6)
        training_round(made, TRAIN, VALID, plan(6, schedule=schedule), loss(made))
        assert (made.optimiser.param_groups[0]["lr"] < 0.2) == lower
    made = member(scheduler="ExponentialLR", lr_scheduler_gamma=0.5)
    training_round(made, TRAIN, [], plan(3), loss(made))
    assert made.optimiser.param_groups[0]["lr"] == pytest.approx(0.01 / 8)


def test_gradients_are_clipped():
    free = member(clip_grad=None, weight_decay=0.0)
    training_round(free, TRAIN[:5], [], plan(1), loss(free))
    far = torch.cat([(p - START[n]).ravel() for n, p in free.parameters.items()]).abs().max()
    clipped = member(clip_grad=1e-12, weight_decay=0.0)  # below Adam's 1e-8
    training_round(clipped, TRAIN[:5], [], plan(1), loss(clipped))
    near = torch.cat([(p - START[n]).ravel() for n, p in clipped.parameters.items()]).abs().max()
    assert float(near.detach()) < 0.01 * float(far.detach())


class Spoilt:
    """A loss that is NaN for one batch."""

    def __init__(self, inner, when):
        self.inner, self.when, self.calls = inner, when, 0
        self.stress = inner.stress

    def __call__(self, batch, prediction):
        value = self.inner(batch, prediction)
        self.calls += 1
        return value * torch.nan if self.calls == self.when else value


def test_a_batch_whose_loss_is_not_finite_is_skipped_and_counted(caplog):
    made = member()
    result = training_round(made, TRAIN, [], plan(2), Spoilt(loss(made), when=2))
    assert result.skipped == 1
    assert made.finite()
    assert made.average.updates == 3
    assert "1 batches skipped" in caplog.text


def test_weights_that_went_bad_are_taken_back(caplog, monkeypatch):
    made = member()
    training_round(made, TRAIN, VALID, plan(1), loss(made))
    before = made.arrays()
    true = training._epoch

    def ruin(m, *rest):
        told = true(m, *rest)
        with torch.no_grad():
            m.weights[0][0] = torch.inf
        return told

    monkeypatch.setattr(training, "_epoch", ruin)
    result = training_round(made, TRAIN, VALID, plan(1), loss(made))
    assert result.restored
    assert not made.optimiser.state
    after = made.arrays()
    assert all(np.array_equal(after[k], before[k]) for k in before if k.startswith(("param/", "ema/")))
    assert "not finite" in caplog.text


def test_stop_is_looked_at_before_every_batch():
    asked = []
    made = member()
    with pytest.raises(Abandoned):
        training_round(
            made, TRAIN, VALID, plan(5), loss(made), stop=lambda: asked.append(1) or len(asked) > 3
        )
    assert len(asked) == 4
