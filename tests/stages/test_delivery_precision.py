"""Delivered models are saved and checked as their user will load them."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from aims_pax.frames import Label, LabelledFrame
from aims_pax.models.base import Precision
from aims_pax.stages.delivery_precision import FRAMES, _alike, check_delivery, save_member
from tests.worlds import crystal, rattled, water


def labelled(frame, energy=-1.0):
    return LabelledFrame(frame, Label(energy, np.zeros((len(frame), 3))), {})


WATERS = [labelled(f, -float(k)) for k, f in enumerate(rattled(water(), 12))]
COPPERS = [labelled(f) for f in rattled(crystal(), 3)]


class Delivers:
    """A model that notes what it is asked; its files are off by as many eV as it was given structures."""

    def __init__(self):
        self.delivered, self.frames = [], None

    def deliver(self, member, path, energies):
        self.delivered.append((member, path, list(energies)))

    def check_delivered(self, files, frames):
        self.frames = frames
        return Precision("float32", 0.5, float(len(frames)), "load(...)")


@pytest.fixture
def run(tmp_path):
    folder = SimpleNamespace(
        results=tmp_path / "results", write_text=lambda path, text: path.write_text(text)
    )
    (tmp_path / "results").mkdir()
    dataset = SimpleNamespace(frames={f.id: f for f in (*WATERS, *COPPERS)})
    return SimpleNamespace(ensemble=Delivers(), folder=folder, dataset=dataset)


def test_structures_to_compare_are_a_few_of_one_composition_spread_over_validation_data(run):
    found = _alike({"training": COPPERS, "validation": [*COPPERS, *WATERS], "test": COPPERS})
    assert [f.id for f in found] == [f.id for f in WATERS[::2][:FRAMES]]
    assert [f.id for f in _alike({"validation": [], "test": COPPERS, "training": WATERS})] == [
        f.id for f in COPPERS
    ]
    assert _alike({"validation": []}) == []


def test_a_file_must_resolve_the_energies_of_all_labels(run, tmp_path):
    save_member(run, 1, tmp_path / "results/committee/b.model")
    ((member, path, energies),) = run.ensemble.delivered
    assert (member, path) == (1, tmp_path / "results/committee/b.model")
    assert path.parent.is_dir()
    assert energies == [f.label.energy for f in (*WATERS, *COPPERS)]


def test_the_largest_difference_is_left_for_the_model_card(run):
    files = {0: run.folder.results / "a.model"}
    found = check_delivery(run, files, {"validation": WATERS})
    assert found.difference == FRAMES
    assert json.loads((run.folder.results / "precision.json").read_text()) == {
        "dtype": "float32", "resolution": 0.5, "difference": 5.0, "loader": "load(...)"
    }  # fmt: skip


def test_without_structures_nothing_is_compared(run):
    assert check_delivery(run, {}, {"validation": [], "training": []}) is None
    assert run.ensemble.frames is None
    assert list(run.folder.results.iterdir()) == []
