from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from aims_pax.frames import Frame
from aims_pax.sampler import Sample
from aims_pax.samplers import duplicates, filtered
from tests.md.potentials import cluster, crystal
from tests.worlds import ethanol, rattled


def shifted(frame: Frame, by: float) -> Sample:
    return Sample(frame.moved(frame.positions + [[by, 0, 0]] * len(frame)))


def made(frame: Frame, system: str = "x") -> Sample:
    return Sample(frame, None, {"system": system})


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


def test_one_filter_serves_many_streams_of_one_run():
    same = duplicates()
    start = [Sample(cluster(4))]
    assert list(same(start)) == start
    assert list(same(start)) == [], "what an earlier call let pass is remembered"


def test_duplicates_by_descriptor_are_found_however_they_are_turned():
    frame = ethanol()
    turned = frame.moved(frame.positions @ Rotation.random(random_state=1).as_matrix().T)
    other = rattled(frame, 1, 0.1)[0]
    samples = [made(f) for f in (frame, turned, other, turned)]
    assert list(duplicates(by="descriptor")(samples)) == [samples[0], samples[2]]
    assert list(duplicates(by="geometry")(samples)) == samples[:3]
    with pytest.raises(ValueError, match="geometry or descriptor"):
        duplicates(by="name")


def test_what_was_removed_is_no_measure_for_what_comes_later():
    """Slowly moving structures: each is compared with those that passed, not with the one before it."""
    frame = crystal(1, 5.4)
    samples = [Sample(frame.moved(frame.positions * [1 + 0.01 * k, 1, 1])) for k in range(7)]
    moved = [float(np.abs(s.frame.positions - frame.positions).sum(1).mean()) for s in samples]
    assert moved[1] < 0.05 < moved[4]
    expected, last = [0], 0
    for k in range(1, 7):
        if moved[k] - moved[last] >= 0.05:
            expected, last = [*expected, k], k
    assert list(filtered(samples, duplicates(0.05))) == [samples[k] for k in expected]
    assert 2 <= len(expected) <= 4


def test_the_threshold_of_descriptors_has_a_default_of_its_own():
    assert (duplicates().threshold, duplicates(by="descriptor").threshold) == (0.1, 0.05)
    assert duplicates(0.3, "descriptor").threshold == 0.3
