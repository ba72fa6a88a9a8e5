"""Trajectories of the MD test: what survives, what breaks and when, and what drifts."""

import time

import numpy as np
import pytest

from aims_pax.commands.md_test.starts import choose_starts, systems_of_frames
from aims_pax.commands.md_test.trajectories import (
    CHUNK,
    EVERY,
    _steps_in_time,
    at_constant_energy,
    continue_all,
    drift,
    follow,
)
from aims_pax.errors import Abandoned
from aims_pax.md.temperature_law import temperature_law
from tests.commands.md_test.springs import MD, Springs, frames


def starts(n=4, **md):
    return choose_starts(systems_of_frames(frames(), lambda name: MD.model_copy(update=md), None), n, 64)


def test_a_sound_model_survives_at_its_temperature_and_conserves_energy():
    thermal = follow(starts(), Springs(), 3000)
    assert all(f.survived and f.length == 1.5 and len(f.ps) == 300 for f in thermal)
    cool = [f for f in thermal if f.start.temperature == 300]
    assert temperature_law([f.settled() for f in cool], 300, 9).agrees is True
    calm = continue_all(at_constant_energy(cool), Springs(), 1000)
    slopes, rms = np.array([drift(f) for f in calm]).T
    assert abs(slopes).max() < 0.5
    assert rms.max() < 1
    assert [f.state.step for f in calm] == [1000] * 4


def test_a_broken_bond_ends_its_trajectory_and_says_which_one_broke_and_when():
    gone = follow(starts(1, temperature=3000.0), Springs(snaps=0.15), 2000)
    assert all(f.fault.startswith("bond O1–H") for f in gone)
    assert "the longest in the labelled frames is" in gone[0].fault
    assert gone[0].fault.endswith(f"at {gone[0].ps[-1]:.3g} ps")
    assert 0 < gone[0].length < 1, "it is not moved on"


def test_a_force_that_is_no_derivative_of_the_energy_is_seen_as_a_drift():
    thermal = follow(starts(2), Springs(), 200)
    calm = continue_all(at_constant_energy(thermal), Springs(swirl=0.05), 1000)
    slopes = [drift(f)[0] for f in calm]
    assert np.mean(slopes) > 20


def test_the_deadline_ends_all_together_after_the_first_chunk():
    found = follow(starts(), Springs(), 1000, deadline=time.monotonic() - 1)
    assert {f.state.step for f in found} == {EVERY}
    assert all(f.survived for f in found)


def test_a_stop_is_an_abandoned_test():
    with pytest.raises(Abandoned):
        follow(starts(), Springs(), 1000, stop=lambda: True)


def test_too_few_observations_give_no_drift():
    assert np.isnan(drift(follow(starts(1), Springs(), 20)[0])).all()


def test_a_chunk_of_steps_fits_into_the_time_that_is_left():
    assert _steps_in_time(0, 0.0, None) == CHUNK
    assert _steps_in_time(0, time.monotonic(), time.monotonic() + 1) == EVERY
    slow = time.monotonic() - 10.0  # ten steps took ten seconds
    assert _steps_in_time(10, slow, time.monotonic() + 25) == 20
    assert _steps_in_time(10, slow, time.monotonic() + 5) == 0
    assert _steps_in_time(10, slow, time.monotonic() + 1e4) == CHUNK
