from __future__ import annotations

import pytest

from aims_pax.frames import Frame
from aims_pax.sampler import Sample
from aims_pax.samplers import filters
from aims_pax.samplers.filter_kinds.equilibration import Equilibrated, EquilibrationSettings
from tests.md.potentials import cluster


def made(frame: Frame, system: str = "x") -> Sample:
    return Sample(frame, None, {"system": system})


def test_the_beginning_of_each_trajectory_is_thrown_away_once():
    samples = [made(cluster(4), s) for s in "abababa"]
    equilibrated = filters.make_filter("equilibration", skip=2)
    assert equilibrated.wants(3, "a") == 5
    kept = list(equilibrated(samples))
    assert kept == samples[4:]
    assert equilibrated.wants(3, "a") == 3
    assert list(equilibrated(samples[:2])) == samples[:2]


def test_structures_without_a_system_are_one_trajectory():
    samples = [Sample(cluster(4)) for _ in range(3)]
    assert list(Equilibrated(2)(samples)) == samples[2:]


def test_a_count_goes_on_where_another_process_left_it():
    one, other = Equilibrated(3), Equilibrated(3)
    samples = [made(cluster(4), s) for s in "aab"]
    assert list(one(samples)) == []
    other.load_state_arrays(one.state_arrays())
    assert [other.wants(1, s) for s in "abc"] == [2, 3, 4]
    assert list(other([samples[0], samples[0]])) == samples[:1]


def test_nothing_may_be_discarded_but_not_less():
    samples = [made(cluster(4))]
    assert list(Equilibrated(0)(samples)) == samples
    assert EquilibrationSettings(skip=7).needed(100) == 107
    with pytest.raises(ValueError, match="skip -1: expected at least 0"):
        Equilibrated(-1)
