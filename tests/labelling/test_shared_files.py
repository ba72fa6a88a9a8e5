"""A calculator whose files in the working folder are shared by labels that are computed at the same time."""

import logging
from pathlib import Path

import numpy as np
import pytest

from aims_pax.frames import Label
from aims_pax.labelling import Labeller
from aims_pax.labelling.executors.inline import InlineExecutor
from aims_pax.labelling.shared_files import files_here, shared_files_warning
from tests import worlds
from tests.labelling.labellers import Scripted


class Writing(Scripted):
    """Writes a file of its own name beside the settings."""

    quick = False

    def label(self, frame):
        Path("job.inp").write_text(frame.id)
        return super().label(frame)


class Several(InlineExecutor):
    capacity = 2


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("reference", "executor", "times"),
    [(Writing, Several, 1), (Writing, InlineExecutor, 0), (Scripted, Several, 0)],
)
def test_files_of_several_workers_in_one_folder_are_warned_of_once(
    tmp_path, caplog, reference, executor, times
):
    frames = worlds.rattled(worlds.water(), 2)
    answers = [Label(-1.0, np.zeros((3, 3))) for _ in frames]
    with (
        caplog.at_level(logging.WARNING),
        Labeller(reference(answers), tmp_path / "data", executor()) as labels,
    ):
        for frame in frames:
            labels.submit(frame).result()
    assert caplog.text.count("a label has written job.inp into the working folder") == times


def test_files_are_known_by_name_and_time(tmp_path):
    (tmp_path / "a").write_text("1")
    (tmp_path / "folder").mkdir()
    assert list(files_here()) == ["a"]
    assert shared_files_warning("dcab").startswith("REFERENCE: a label has written a, b, c into")
