import pytest
import torch

from aims_pax.models.mace.ema_swa import EqualWeightMean, ExponentialMovingAverage


def parameter(value=1.0):
    return torch.nn.Parameter(torch.tensor([value]))


def test_the_average_warms_up():
    w = parameter(0.0)
    average, expected = ExponentialMovingAverage([w], 0.99), 0.0
    for n in range(1, 40):
        with torch.no_grad():
            w.fill_(float(n))
        average.update()
        d = min(0.99, (1 + n) / (10 + n))
        expected = d * expected + (1 - d) * n
        assert float(average.shadow[0]) == pytest.approx(expected, rel=1e-5)
    assert float(average.shadow[0]) > 30  # a fixed decay of 0.99 would be at 13


def test_the_average_is_in_the_model_only_inside_the_context():
    w = parameter(2.0)
    average = ExponentialMovingAverage([w], 0.99)
    with torch.no_grad():
        w.fill_(5.0)
    with average.in_place():
        assert float(w.detach()) == 2.0
    assert float(w.detach()) == 5.0
    average.adopt()
    assert float(w.detach()) == 2.0


def test_without_averaging_the_weights_themselves_count():
    w = parameter(2.0)
    average = ExponentialMovingAverage([w], None)
    with torch.no_grad():
        w.fill_(5.0)
    average.update()
    assert float(average.shadow[0]) == 5.0


def test_the_weights_come_back_even_after_an_error():
    w = parameter(2.0)
    average = ExponentialMovingAverage([w], 0.99)
    with torch.no_grad():
        w.fill_(5.0)
    with pytest.raises(RuntimeError, match="x"), average.in_place():
        raise RuntimeError("x")
    assert (float(w.detach()), float(average.shadow[0])) == (5.0, 2.0)


def test_a_restart_forgets_the_past_and_warms_up_again():
    w = parameter(0.0)
    average = ExponentialMovingAverage([w], 0.99)
    for _ in range(200):
        average.update()
    with torch.no_grad():
        w.fill_(4.0)
    average.restart()
    assert (average.updates, float(average.shadow[0])) == (0, 4.0)
    with torch.no_grad():
        w.fill_(15.0)
    average.update()
    assert float(average.shadow[0]) == pytest.approx(4 * 2 / 11 + 15 * 9 / 11)  # d = 2/11 at the first step


def test_the_equal_weight_mean_is_that_of_the_epochs_since_its_restart():
    swa = EqualWeightMean()
    assert swa.mean() is None
    w = parameter(100.0)
    for value, restart in ((100.0, False), (1.0, True), (2.0, False), (6.0, False)):
        with torch.no_grad():
            w.fill_(value)
        swa.add([w], restart)
        if swa.epochs == 1:
            assert swa.mean() is None  # one epoch is no average
    assert swa.epochs == 3
    assert float(swa.mean()[0]) == pytest.approx(3.0)
    assert not swa.mean()[0].requires_grad
