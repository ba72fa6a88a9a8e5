"""The short MD test at the end of a run: written once for a model, shown in the report, stopped with the run."""

import json
import logging
from types import SimpleNamespace

import pytest

from aims_pax.commands.md_test.at_end_of_run import md_test_at_end
from aims_pax.errors import Abandoned
from aims_pax.record.folder import RunFolder
from aims_pax.settings import read_settings
from tests.commands.md_test.springs import Springs, frames
from tests.projects import write_project
from tests.report.folders import made_up


@pytest.fixture
def run(tmp_path):
    """What the test needs of a run that has delivered a model of springs."""

    def make(stop=lambda: False, **misc):
        folder = write_project(tmp_path, {"MISC": {"md_test": 200, **misc}})
        settings = read_settings(folder)
        if not (folder / "restart").exists():
            made_up(folder)
        (folder / "results").mkdir(exist_ok=True)
        (folder / "results" / "tiny_1.model").write_text("weights")
        data = frames()
        dataset = SimpleNamespace(union=lambda split: data[:5] if split == "train" else data[5:], test=[])
        ensemble = SimpleNamespace(
            members=[SimpleNamespace(name="tiny_1")], potential=lambda members: Springs()
        )
        return SimpleNamespace(
            settings=settings, folder=RunFolder(settings), dataset=dataset, ensemble=ensemble,
            watch=SimpleNamespace(stop=stop),
        )  # fmt: skip

    return make


def test_the_delivered_model_is_tested_once(run, caplog):
    caplog.set_level(logging.INFO)
    story = run()
    md_test_at_end(story, [0])
    path = story.folder.results / "md_test.json"
    found = json.loads(path.read_text())
    assert len(found["trajectories"]) == 8
    assert list(found["models"]) == ["tiny_1.model"]
    assert "MD test (" in caplog.text
    assert "Survived 4 trajectories" in caplog.text
    written = path.stat().st_mtime_ns
    md_test_at_end(story, [0])
    assert path.stat().st_mtime_ns == written, "the same model is not tested again"
    (story.folder.results / "tiny_1.model").write_text("other weights")
    md_test_at_end(story, [0])
    assert path.stat().st_mtime_ns != written


def test_it_can_be_switched_off(run):
    story = run(md_test=0)
    md_test_at_end(story, [0])
    assert not (story.folder.results / "md_test.json").exists()


def test_it_stops_with_the_run(run):
    with pytest.raises(Abandoned):
        md_test_at_end(run(stop=lambda: True), [0])
