"""Candidates go through a snapshot and come back as they were."""

import numpy as np

from aims_pax.engine.candidates import Candidate, candidate_arrays, candidates_from_arrays
from aims_pax.engine.stage_environment import group_arrays
from aims_pax.frames import Label
from tests.worlds import crystal, water


def test_they_come_back_with_what_they_have_and_no_more():
    prediction = {"predicted_forces": np.ones((2, 3, 3)), "atomic_sd": np.arange(3.0)}
    labelled = Candidate(
        crystal(), {"system": "cu", "step": 5}, None, Label(-1.5, np.ones((4, 3)), np.eye(3))
    )
    asked = Candidate(water(), {"system": "water"}, prediction)
    before = {c.frame.id: c for c in (labelled, asked)}
    grouped = group_arrays(candidate_arrays(before))
    after = candidates_from_arrays(grouped, {i: c.origin for i, c in before.items()})
    assert set(after) == set(before)
    for frame_id, old in before.items():
        new = after[frame_id]
        assert (new.frame, new.origin, new.system) == (old.frame, old.origin, old.system)
    one, two = (after[c.frame.id] for c in (labelled, asked))
    assert one.label.energy == -1.5
    np.testing.assert_array_equal(one.label.forces, labelled.label.forces)
    np.testing.assert_array_equal(one.label.stress, labelled.label.stress)
    assert one.prediction is None
    assert two.label is None
    assert set(two.prediction) == set(prediction)
    assert all((two.prediction[k] == v).all() for k, v in prediction.items())
