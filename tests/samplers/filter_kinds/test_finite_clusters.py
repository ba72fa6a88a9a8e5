from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from aims_pax.frames import Frame, Label
from aims_pax.sampler import Sample, SamplingError
from aims_pax.samplers import filters, finite_clusters
from aims_pax.samplers.filter_kinds.finite_clusters import ClustersSettings
from tests.samplers.crystals import water_box


def made(frame: Frame, system: str = "x") -> Sample:
    return Sample(frame, None, {"system": system})


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


def test_a_structure_with_too_few_molecules_for_every_size_is_refused():
    """Else a run would make structure after structure of which nothing is left."""
    with pytest.raises(SamplingError, match=r"H16O8: too few molecules for clusters of \(9, 10\)"):
        next(finite_clusters(n_molecules=(9, 10))([Sample(water_box(2))]))


def test_as_a_filter_and_without_frames_that_reacted(caplog):
    frame = water_box(2)
    R = frame.positions.copy()
    R[1] += 5 * (R[1] - R[0]) / np.linalg.norm(R[1] - R[0])
    samples = [Sample(frame, origin={"system": "ice"}), Sample(frame.moved(R), origin={"system": "ice"})]
    passed = list(finite_clusters(n_molecules=(1, 3))(samples))
    assert [(s.origin["cluster"], len(s.frame)) for s in passed] == [("n=1", 3), ("n=3", 9)]
    assert "a bond broke or formed" in caplog.text


def test_each_system_has_a_reference_and_clusters_carry_no_label():
    small, large = water_box(2), water_box(3)
    samples = [
        Sample(small, Label(-1.0, np.zeros((24, 3))), {"system": "a", "step": 5}),
        made(large, "b"),
        made(small, "c"),
    ]
    one = finite_clusters(n_molecules=(2,))
    passed = list(one(samples))
    assert [(s.label, s.origin["system"], len(s.frame), s.frame.pbc.any()) for s in passed] == [
        (None, name, 6, False) for name in "abc"
    ]
    assert passed[0].origin["step"] == 5
    assert sorted(str(a) for name, a in one.state_arrays().items() if name.endswith("/system")) == [
        "a",
        "b",
        "c",
    ]


@pytest.mark.parametrize(
    ("written", "unused"),
    [
        ({}, None),
        ({"n_molecules": (2,)}, None),
        ({"distances": (4.0,)}, "distances"),
        ({"selection_rule": "max_min_distance_to_central_molecule", "distances": (4.0,)}, None),
        (
            {
                "selection_rule": "max_max_distance_to_central_molecule",
                "distances": (4.0,),
                "n_molecules": (2,),
            },
            "n_molecules",
        ),
    ],
)
def test_a_key_of_another_rule_is_warned_about(written, unused):
    assert [key for key, _ in ClustersSettings(**written).oddities()] == ([unused] if unused else [])


def test_a_rule_by_distance_needs_distances():
    with pytest.raises(ValidationError, match=r"max_min_distance_to_central_molecule needs distances \(Å\)"):
        ClustersSettings(selection_rule="max_min_distance_to_central_molecule")
