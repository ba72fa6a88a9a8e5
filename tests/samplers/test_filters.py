"""Filters behind a sampler."""

from __future__ import annotations

import doctest
import logging

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from aims_pax.errors import SettingsError
from aims_pax.frames import Frame, Label
from aims_pax.record.arrays import pack_arrays, unpack_arrays
from aims_pax.sampler import Sample, Stateful
from aims_pax.samplers import duplicates, farthest_filter, filtered, filters, finite_clusters, sanity
from aims_pax.samplers.descriptors import farthest_points, radial
from tests.md.potentials import cluster, crystal
from tests.samplers.crystals import water_box
from tests.worlds import ethanol, rattled, water


def shifted(frame: Frame, by: float) -> Sample:
    return Sample(frame.moved(frame.positions + [[by, 0, 0]] * len(frame)))


def test_touching_atoms_and_endless_positions_are_not_sane():
    good = cluster(4)
    touching = good.positions.copy()
    touching[1] = touching[0] + [0.4, 0, 0]
    with np.errstate(invalid="ignore"):
        lost = good.moved(good.positions * np.nan)
    samples = [Sample(good), Sample(good.moved(touching)), Sample(lost)]
    assert list(filtered(samples, sanity())) == samples[:1]
    assert list(filtered(samples, sanity(min_separation=0.39))) == samples[:2]


def test_strong_forces_are_not_sane():
    calm, wild, unknown = (Label(0.0, np.full((4, 3), f)) for f in (1.0, 9.0, np.nan))
    samples = [Sample(cluster(4), label) for label in (calm, wild, unknown, None)]
    assert list(filtered(samples, sanity(max_force=5.0))) == [samples[0], samples[3]]


def test_duplicates_are_found_through_the_boundary():
    start = crystal(1, 5.4)
    samples = [shifted(start, x) for x in (0, 0.05, 5.4, -5.35, 0.2, 5.6, 0.31)]
    kept = list(filtered(samples, duplicates(0.1)))
    assert kept == [samples[0], samples[4], samples[6]]


def test_other_systems_are_no_duplicates():
    start = cluster(4)
    charged = cluster(4, charge=1.0)
    samples = [Sample(start), Sample(charged), Sample(cluster(5)), Sample(start)]
    assert list(filtered(samples, duplicates())) == samples[:3]


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


def test_one_filter_serves_many_streams_of_one_run():
    same = duplicates()
    start = [Sample(cluster(4))]
    assert list(same(start)) == start
    assert list(same(start)) == [], "what an earlier call let pass is remembered"


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


def test_the_beginning_of_each_trajectory_is_thrown_away_once():
    samples = [made(cluster(4), s) for s in "abababa"]
    equilibrated = filters.make_filter("equilibration", skip=2)
    assert equilibrated.wants(3, "a") == 5
    kept = list(equilibrated(samples))
    assert kept == samples[4:]
    assert equilibrated.wants(3, "a") == 3
    assert list(equilibrated(samples[:2])) == samples[:2]


def test_duplicates_by_descriptor_are_found_however_they_are_turned():
    frame = ethanol()
    turned = frame.moved(frame.positions @ Rotation.random(random_state=1).as_matrix().T)
    other = rattled(frame, 1, 0.1)[0]
    samples = [made(f) for f in (frame, turned, other, turned)]
    assert list(duplicates(by="descriptor")(samples)) == [samples[0], samples[2]]
    assert list(duplicates(by="geometry")(samples)) == samples[:3]
    with pytest.raises(ValueError, match="geometry or descriptor"):
        duplicates(by="name")


def test_the_farthest_of_many_are_kept_in_their_order_and_those_kept_before_count():
    frame = ethanol()
    frames = rattled(frame, 12, 0.05) + rattled(frame, 12, 0.15, seed=1)
    samples = [made(f) for f in frames]
    keep = filters.make_filter("farthest_points", of=4)
    assert keep.wants(3, "x") == 12
    first = list(keep(samples[:16]))
    chosen = farthest_points(radial(frames[:16]), 4)
    assert first == [samples[k] for k in sorted(chosen)]
    again = list(keep(samples[16:]))
    known = radial([frames[k] for k in chosen])
    assert again == [samples[16 + k] for k in sorted(farthest_points(radial(frames[16:]), 2, known))]


def test_farthest_points_choose_among_each_system_alone():
    waters, ethanols = rattled(water(), 6), rattled(ethanol(), 6)
    mixed = [made(f) for pair in zip(waters, ethanols, strict=True) for f in pair]
    kept = list(farthest_filter(of=3)(mixed))
    assert [len(s.frame) for s in sorted(kept, key=lambda s: len(s.frame))] == [3, 3, 9, 9]


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


def test_clusters_of_a_run_are_those_of_its_first_structure():
    """Another reference chooses other molecules: a restart must not."""
    box, rng = water_box(2, 4.0), np.random.default_rng(5)
    boxes = [box.moved(box.positions + np.repeat(rng.normal(0, 0.3, (8, 3)), 3, axis=0)) for _ in range(8)]
    one, other = (filters.make_filter("finite_clusters", n_molecules=(2,)) for _ in range(2))
    list(one([made(boxes[0])]))
    other.load_state_arrays(one.state_arrays())
    pairs = [
        (*one([made(b)]), *other([made(b)]), *finite_clusters(n_molecules=(2,))([made(b)])) for b in boxes
    ]
    assert all(a.frame == b.frame for a, b, _ in pairs)
    assert any(a.frame != anew.frame for a, _, anew in pairs)
