"""Trajectories as plain values."""

import json

import numpy as np
import pytest

from aims_pax.commands.md_test.starts import choose_starts, systems_of_frames
from aims_pax.commands.md_test.summary import summary_of_trajectories
from aims_pax.commands.md_test.trajectories import Followed, at_constant_energy, continue_all, drift, follow
from tests.commands.md_test.springs import MD, Springs, frames


@pytest.fixture(scope="module")
def moved():
    systems = systems_of_frames(frames(), lambda name: MD, None)
    thermal = follow(choose_starts(systems, 2, 64), Springs(), 300)
    cool = [f for f in thermal if f.start.temperature == 300]
    return systems, thermal, continue_all(at_constant_energy(cool), Springs(), 200)


def test_it_is_json_with_a_law_for_each_temperature_and_a_drift_for_each_system(moved):
    systems, thermal, calm = moved
    found = json.loads(json.dumps(summary_of_trajectories(thermal, calm, systems), allow_nan=False))
    assert [law["target"] for law in found["temperature_law"]] == [300, 450]
    assert found["temperature_law"][0]["canonical_width"] == pytest.approx(300 * (2 / 9) ** 0.5, rel=1e-4)
    [one] = found["drift"]
    assert one["trajectories"] == 2
    assert one["mean"] == pytest.approx(sum(drift(f)[0] for f in calm) / 2, rel=1e-4)
    assert len(found["trajectories"]) == 4
    assert len(found["trajectories"][0]["t_ps"]) == 30


def test_distances_at_both_temperatures_are_compared_with_the_data(moved):
    systems, thermal, calm = moved
    pairs = {d["pair"]: d for d in summary_of_trajectories(thermal, calm, systems)["distances"]}
    assert set(pairs) == {"H–H", "H–O"}
    one = pairs["H–O"]
    places = [f.frame.positions for f in systems[0].frames]
    assert one["data"] == pytest.approx(min(np.linalg.norm(x[0] - x[k]) for x in places for k in (1, 2)))
    assert sum(one["histogram_data"]) == 2 * len(systems[0].frames)
    assert sum(one["histogram_md"]) == 2 * 2 * 30
    assert one["covalent"] == pytest.approx(0.97)


def test_a_thermostat_that_is_not_canonical_is_not_judged(moved):
    systems, thermal, _ = moved
    for f in thermal:
        f.start.md.stat_ensemble, f.start.md.barostat = "NPT", "Berendsen"
    found = summary_of_trajectories(thermal, [], systems)
    assert [law["agrees"] for law in found["temperature_law"]] == [None, None]
    assert not any(law["canonical_thermostat"] for law in found["temperature_law"])
    lost = Followed(thermal[0].start, thermal[0].state, fault="it exploded")
    assert summary_of_trajectories([lost], [], systems)["temperature_law"] == []
