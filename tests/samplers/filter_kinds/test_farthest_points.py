from __future__ import annotations

import numpy as np
import pytest

from aims_pax.frames import Frame
from aims_pax.sampler import Sample
from aims_pax.samplers import farthest_filter, filters
from aims_pax.samplers.descriptors import farthest_points, radial
from aims_pax.samplers.filter_kinds.farthest_points import FarthestSettings
from tests.worlds import ethanol, rattled, water


def made(frame: Frame, system: str = "x") -> Sample:
    return Sample(frame, None, {"system": system})


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


def on_a_line(frames):
    """A descriptor that is the height of the first atom."""
    return np.array([[f.positions[0, 2]] for f in frames])


def at_heights(*z: float) -> list[Sample]:
    return [made(water().moved(water().positions + np.array([0, 0, h]))) for h in z]


def test_the_ends_of_a_line_are_kept_before_its_middle():
    samples = at_heights(0.0, 1.0, 9.0, 1.1, 10.0, 1.2)
    keep = farthest_filter(of=3, describe=on_a_line)
    kept = [s.frame.positions[0, 2] - water().positions[0, 2] for s in keep(samples)]
    assert len(kept) == 2
    assert max(kept) - min(kept) >= 8.8
    again = [s.frame.positions[0, 2] - water().positions[0, 2] for s in keep(at_heights(0.1, 9.9, 5.0))]
    assert again == pytest.approx([5.0])  # far from what was kept, though in the middle


@pytest.mark.parametrize(("n", "of", "kept"), [(0, 4, 0), (1, 4, 1), (4, 4, 1), (5, 4, 2), (3, 1, 3)])
def test_a_group_that_is_begun_keeps_one(n, of, kept):
    assert len(list(farthest_filter(of=of, describe=on_a_line)(at_heights(*range(n))))) == kept


def test_one_of_none_is_refused():
    assert FarthestSettings(of=4).needed(25) == 100
    with pytest.raises(ValueError, match="of 0: expected at least 1"):
        farthest_filter(of=0)
