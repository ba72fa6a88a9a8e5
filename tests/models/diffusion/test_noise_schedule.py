"""Noise levels of training and sampling."""

import pytest
import torch

from aims_pax.models.diffusion.noise_schedule import WIDTH, NoiseSchedule


@pytest.mark.parametrize("sde", ["ve", "vp"])
def test_levels_fall_from_the_largest_to_the_smallest_and_zero(sde):
    levels = NoiseSchedule(sde, 0.01, 8.0, 1.5).levels(20)
    assert len(levels) == 21
    assert (levels[1:] < levels[:-1]).all()
    assert float(levels[0]) == pytest.approx(8.0)
    assert float(levels[-2]) == pytest.approx(0.01)
    assert levels[-1] == 0


@pytest.mark.parametrize("sde", ["ve", "vp"])
def test_levels_of_training_cover_the_range_evenly(sde):
    drawn = NoiseSchedule(sde, 0.01, 8.0, 1.5).drawn(64, torch.Generator().manual_seed(0)).sort().values
    assert drawn[0] >= 0.01
    assert drawn[-1] <= 8.0 + 1e-9
    if sde == "ve":
        place = (drawn / 0.01).log() / torch.tensor(800.0).log()
        assert ((place * 64).floor() == torch.arange(64)).all(), "one in each part"


def test_levels_of_training_are_most_around_the_centre_and_never_outside():
    schedule = NoiseSchedule("ve", 0.01, 8.0, 1.5, centre=0.8)
    drawn = schedule.drawn(4000, torch.Generator().manual_seed(0))
    assert drawn.min() >= 0.01
    assert drawn.max() <= 8.0 + 1e-9
    inside = (1 / (1 + (0.8 / level) ** (1 / WIDTH)) for level in (0.4, 1.6, 0.01, 8.0))
    a, b, first, last = inside
    share = float(((drawn > 0.4) & (drawn < 1.6)).double().mean())
    assert share == pytest.approx((b - a) / (last - first), abs=2e-3)


def test_the_time_runs_from_zero_to_one():
    schedule = NoiseSchedule("ve", 0.01, 1.0, 1.0)
    assert schedule.time(torch.tensor([0.0, 0.01, 0.1, 1.0, 5.0])).tolist() == pytest.approx(
        [0, 0, 0.5, 1, 1]
    )
