"""Times of training and MD, measured on tiny models."""

import numpy as np
import pytest

from aims_pax.commands.timings import _random_labels, measure_timings
from aims_pax.settings import read_settings
from aims_pax.settings.geometries import read_geometries
from tests.projects import write_project
from tests.worlds import crystal, water


def project(folder, **changes):
    kind = {"MODEL": {"kind": "tests.models.linear_model:COMMITTEE"}}
    return read_settings(write_project(folder, {**kind, **changes}))


def test_training_and_md_are_timed_and_labels_are_taken_over(tmp_path):
    settings = project(tmp_path)
    found = measure_timings(
        settings, read_geometries(settings), {"REFERENCE": 3.5, "SAMPLERS.0.potential": 0.1}
    )
    assert (found.label, found.label_atoms, found.sampling) == (3.5, 3, {"SAMPLERS.0.potential": 0.1})
    assert 0 < found.training < 5
    assert 0 < found.md_step < 5
    assert (found.trajectories, found.md_steps_timed, found.missing) == (3, 100, "")


def test_without_a_label_its_time_is_unknown(tmp_path):
    settings = project(tmp_path)
    assert measure_timings(settings, read_geometries(settings), {}).label is None


def test_weights_that_are_not_here_are_not_fetched(tmp_path, monkeypatch):
    from tests.models.linear_model import COMMITTEE

    monkeypatch.setattr(type(COMMITTEE), "beginning", lambda self, settings: "large-model")
    settings = project(tmp_path)
    found = measure_timings(settings, read_geometries(settings), {"REFERENCE": 1.0})
    assert found.training is None
    assert found.missing == "the models begin from weights that are not on this machine yet"


def test_random_labels_are_of_all_systems_and_always_the_same(tmp_path):
    settings = read_settings(write_project(tmp_path, systems={"water": water(), "copper": crystal()}))
    systems = read_geometries(settings)
    data = _random_labels(systems, 7)
    assert {f.origin["system"] for f in data} == {"water", "copper"}
    assert sum(len(f.frame) for f in data) <= 800
    assert [f.id for f in data] == [f.id for f in _random_labels(systems, 7)]
    assert all(np.isfinite(f.label.forces).all() for f in data)
    assert data[0].label.stress is None or data[0].frame.periodic


def test_a_big_structure_is_trained_on_twice_at_least(tmp_path, monkeypatch):
    from aims_pax.commands import timings

    monkeypatch.setattr(timings, "ATOMS", 1)
    settings = project(tmp_path)
    assert len(_random_labels(read_geometries(settings), 7)) == 2
    assert measure_timings(settings, read_geometries(settings), {}).training == pytest.approx(0, abs=5)
