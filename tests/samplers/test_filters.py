"""Filters behind a sampler."""

from __future__ import annotations

import doctest
import logging

import pytest

from aims_pax.errors import SettingsError
from aims_pax.frames import Frame
from aims_pax.record.arrays import pack_arrays, unpack_arrays
from aims_pax.sampler import Sample, Stateful
from aims_pax.samplers import duplicates, filtered, filters, sanity
from tests.md.potentials import cluster, crystal
from tests.samplers.crystals import water_box
from tests.worlds import ethanol, rattled, water


def shifted(frame: Frame, by: float) -> Sample:
    return Sample(frame.moved(frame.positions + [[by, 0, 0]] * len(frame)))


def test_filters_follow_one_another_in_order():
    seen = []

    def note(samples):
        for sample in samples:
            seen.append(sample)
            yield sample

    start = cluster(4)
    samples = [Sample(start), Sample(start)]
    assert list(filtered(samples, duplicates(), note)) == samples[:1]
    assert seen == samples[:1]


def test_samples_come_as_they_are_made():
    def endless():
        k = 0
        while True:
            k += 1
            yield shifted(crystal(1, 5.4), 0.2 * k)

    stream = filtered(endless(), sanity(), duplicates(0.01))
    assert [next(stream).frame.positions[0, 0] for _ in range(3)] == pytest.approx([0.2, 0.4, 0.6])


def test_it_says_how_many_it_took_away(caplog):
    with caplog.at_level(logging.DEBUG, logger="aims_pax"):
        list(filtered([Sample(cluster(4))] * 3, duplicates()))
    assert "filter duplicates: 2 of 3 structures removed" in caplog.text


def test_filters_are_found_by_their_kind():
    start = cluster(4)
    assert list(filters.make_filter("duplicates", threshold=0.2)([Sample(start)] * 2)) == [Sample(start)]
    with pytest.raises(SettingsError, match="nearest: sanity"):
        filters.make_filter("sanitty")
    with pytest.raises(SettingsError, match="descriptor: mace needs the model of a sampler"):
        filters.make_filter("farthest_points", descriptor="mace")
    with pytest.raises(SettingsError, match=r"filter duplicates: .*treshold"):
        filters.make_filter("duplicates", treshold=0.2)


def test_its_examples_are_true():
    from aims_pax.samplers import filters

    result = doctest.testmod(filters)
    assert result.attempted > 0
    assert result.failed == 0


def made(frame: Frame, system: str = "x") -> Sample:
    return Sample(frame, None, {"system": system})


REMEMBERING = {
    "equilibration": {"skip": 4},
    "duplicates": {"threshold": 0.15},
    "duplicates by descriptor": {"by": "descriptor", "threshold": 0.1},
    "farthest_points": {"of": 3},
    "finite_clusters": {"n_molecules": (1, 3)},
}


@pytest.mark.parametrize("kind", REMEMBERING)
def test_what_a_filter_remembers_goes_on_in_another_process(kind):
    box = [f for f in rattled(water_box(2, 4.0), 8, 0.02)]
    structures = box if kind == "finite_clusters" else rattled(ethanol(), 20, 0.1) + rattled(water(), 8, 0.1)
    samples = [made(f, str(len(f))) for f in structures]
    half = len(samples) // 2
    one, other = (filters.make_filter(kind.split()[0], **REMEMBERING[kind]) for _ in range(2))
    assert isinstance(one, Stateful)
    list(one(samples[:half]))
    other.load_state_arrays(unpack_arrays(pack_arrays(one.state_arrays(), {}))[0])
    rest = [s.frame.id for s in one(samples[half:])]
    assert [s.frame.id for s in other(samples[half:])] == rest
    assert other.state_arrays().keys() == one.state_arrays().keys()
    if kind == "finite_clusters":
        assert [f.id for f in structures[half:]] != [f.id for f in structures[:half]]
