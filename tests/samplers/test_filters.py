"""Filters behind a sampler."""

from __future__ import annotations

import doctest
import logging

import numpy as np
import pytest

from aims_pax.errors import SettingsError
from aims_pax.frames import Frame, Label
from aims_pax.samplers import filters
from aims_pax.samplers.base import Sample
from aims_pax.samplers.filters import filtered, new, sane
from tests.md.potentials import cluster, crystal


def shifted(frame: Frame, by: float) -> Sample:
    return Sample(frame.moved(frame.positions + [[by, 0, 0]] * len(frame)))


def test_touching_atoms_and_endless_positions_are_not_sane():
    good = cluster(4)
    touching = good.positions.copy()
    touching[1] = touching[0] + [0.4, 0, 0]
    with np.errstate(invalid="ignore"):
        lost = good.moved(good.positions * np.nan)
    samples = [Sample(good), Sample(good.moved(touching)), Sample(lost)]
    assert list(filtered(samples, sane())) == samples[:1]
    assert list(filtered(samples, sane(min_separation=0.39))) == samples[:2]


def test_strong_forces_are_not_sane():
    calm, wild, unknown = (Label(0.0, np.full((4, 3), f)) for f in (1.0, 9.0, np.nan))
    samples = [Sample(cluster(4), label) for label in (calm, wild, unknown, None)]
    assert list(filtered(samples, sane(max_force=5.0))) == [samples[0], samples[3]]


def test_duplicates_are_found_through_the_boundary():
    start = crystal(1, 5.4)
    samples = [shifted(start, x) for x in (0, 0.05, 5.4, -5.35, 0.2, 5.6, 0.31)]
    kept = list(filtered(samples, new(0.1)))
    assert kept == [samples[0], samples[4], samples[6]]


def test_other_systems_are_no_duplicates():
    start = cluster(4)
    charged = cluster(4, charge=1.0)
    samples = [Sample(start), Sample(charged), Sample(cluster(5)), Sample(start)]
    assert list(filtered(samples, new())) == samples[:3]


def test_filters_follow_one_another_in_order():
    seen = []

    def note(samples):
        for sample in samples:
            seen.append(sample)
            yield sample

    start = cluster(4)
    samples = [Sample(start), Sample(start)]
    assert list(filtered(samples, new(), note)) == samples[:1]
    assert seen == samples[:1]


def test_samples_come_as_they_are_made():
    def endless():
        k = 0
        while True:
            k += 1
            yield shifted(crystal(1, 5.4), 0.2 * k)

    stream = filtered(endless(), sane(), new(0.01))
    assert [next(stream).frame.positions[0, 0] for _ in range(3)] == pytest.approx([0.2, 0.4, 0.6])


def test_one_filter_serves_many_streams_of_one_run():
    same = new()
    start = [Sample(cluster(4))]
    assert list(same(start)) == start
    assert list(same(start)) == [], "what an earlier call let pass is remembered"


def test_it_says_how_many_it_took_away(caplog):
    with caplog.at_level(logging.INFO):
        list(filtered([Sample(cluster(4))] * 3, new()))
    assert "filter duplicates: 2 of 3 structures removed" in caplog.text


def test_filters_are_found_by_their_kind():
    start = cluster(4)
    assert list(filters.make("duplicates", threshold=0.2)([Sample(start)] * 2)) == [Sample(start)]
    with pytest.raises(SettingsError, match="nearest: sanity"):
        filters.make("sanitty")
    with pytest.raises(SettingsError, match=r"filter duplicates: .*treshold"):
        filters.make("duplicates", treshold=0.2)


def test_its_examples_are_true():
    from aims_pax.samplers import filters

    result = doctest.testmod(filters)
    assert result.attempted > 0
    assert result.failed == 0
