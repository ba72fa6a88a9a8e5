"""What every sampler and filter hands on, and a state that would be lost."""

import numpy as np
import pytest

from aims_pax.frames import Label
from aims_pax.sampler import Sample, Stateful, incomplete_state, under
from aims_pax.samplers.mixture import Mixture, Part
from tests.md.potentials import cluster
from tests.samplers.contract import of_kind


def test_a_sample_without_a_label_says_so():
    with pytest.raises(ValueError, match="has no label"):
        Sample(cluster(2)).labelled()


class Old:
    """A sampler as it was written before its methods were renamed."""

    name = "old"

    def sample(self, systems, n, rng):
        return iter(())

    def memory(self):
        return {}

    def remember(self, arrays):
        return None


def test_a_state_by_former_names_is_refused_with_the_new_ones():
    text = str(incomplete_state(Old()))
    assert "rename memory() to state_arrays(), remember() to load_state_arrays()" in text
    with pytest.raises(ValueError, match="rename memory"):
        Mixture([Part("old", Old(), 1.0)])
    half = type("Half", (), {"state_arrays": lambda self: {}})()
    assert "Half has state_arrays() but no load_state_arrays()" in str(incomplete_state(half))
    assert incomplete_state(of_kind("md")) is None
    assert incomplete_state(of_kind("phonons")) is None


def test_a_sample_takes_the_label_it_is_given_before_its_own():
    own, given = (Label(e, np.zeros((2, 3))) for e in (-1.0, -2.0))
    origin = {"system": "a", "step": 3}
    sample = Sample(cluster(2), own, origin)
    assert [sample.labelled(label).label.energy for label in (None, given)] == [-1.0, -2.0]
    made = sample.labelled()
    assert (made.frame, made.origin) == (sample.frame, origin)
    made.origin["step"] = 4
    assert sample.origin["step"] == 3


def test_a_sampler_without_any_state_has_none_to_lose():
    class Plain:
        pass

    class Both:
        def state_arrays(self):
            return {}

        def load_state_arrays(self, arrays):
            return None

    class HalfOld:
        def memory(self):
            return {}

    assert [incomplete_state(thing) for thing in (Plain(), Both(), HalfOld())] == [None, None, None]
    assert [isinstance(thing, Stateful) for thing in (Plain(), Both())] == [False, True]


def test_arrays_under_a_name_are_those_of_that_name_alone():
    arrays = {name: np.array(k) for k, name in enumerate(("1/a", "1/b/c", "10/a", "1", "2/1/a"))}
    assert {name: int(a) for name, a in under("1", arrays).items()} == {"a": 0, "b/c": 1}
