"""Labels for a list of structures."""

import io
import json
import os
from dataclasses import replace
from types import SimpleNamespace

import pytest
from rich.console import Console

from aims_pax.core.work import RunTraining
from aims_pax.errors import Busy, SetupError
from aims_pax.settings import read_settings
from aims_pax.stages.label_list import (
    LabelOnlyEnvironment,
    LabelRequest,
    forget_list,
    label_all,
    open_reference,
)
from tests.projects import write_project
from tests.worlds import rattled, water

FRAMES = rattled(water(), 3)
CROWDED = water().moved(0.1 * water().positions)
WANTED = [LabelRequest(f, f"structure {k}", "water") for k, f in enumerate([*FRAMES, CROWDED, FRAMES[0]])]


@pytest.fixture
def opened(tmp_path):
    def make(**changes):
        settings = read_settings(write_project(tmp_path, changes))
        return open_reference(settings, Console(file=io.StringIO()), "list.log")

    return make


def test_each_structure_is_labelled_once_and_those_that_failed_are_returned(opened, caplog):
    with opened() as context:
        (failure,) = label_all(context, WANTED)
        assert (failure.frame, failure.kind) == (CROWDED.id, "Unphysical")
        assert context.labeller.calls.finished == 3
        assert all(context.labeller.known(f, "water") is not None for f in FRAMES)
        assert label_all(context, WANTED) == (failure,)
        assert context.labeller.calls.finished == 3, "the others come from the store"
        assert not [p for p in context.folder.restart.iterdir() if p.is_dir()], "no name, no snapshots"
        log = (context.folder.logs / "list.log").read_text()
    assert "structure 3 · Unphysical: " in log
    assert not (context.folder.restart / "lock").exists()


def test_failures_are_remembered_by_name_until_the_list_is_forgotten(opened):
    with opened() as context:
        failed = label_all(context, WANTED, "again")
        refused = context.labeller.calls.refused
        assert label_all(context, WANTED, "again") == failed
        assert context.labeller.calls.refused == refused, "not tried again"
        (context.folder.restart / "again" / "mine.txt").touch()
        forget_list(context, "again")
        assert [p.name for p in (context.folder.restart / "again").iterdir()] == ["mine.txt"]
        (context.folder.restart / "again" / "mine.txt").unlink()
        assert label_all(context, WANTED, "again") == failed
        assert context.labeller.calls.refused > refused
        forget_list(context, "again")
        assert not (context.folder.restart / "again").exists()
        forget_list(context, "never")


def test_a_reference_that_does_not_work_ends_it_and_leaves_nothing_to_remember(opened, tmp_path):
    (tmp_path / "dying.py").write_text(
        "from ase.calculators.emt import EMT\nclass Dying(EMT):\n    def calculate(self, *args):\n"
        "        raise RuntimeError('it died')\n"
    )
    frames = rattled(water(), 8, seed=3)
    with opened(REFERENCE={"factory": "dying:Dying"}) as context:
        with pytest.raises(SetupError, match="no reference calculation has worked"):
            label_all(context, [LabelRequest(f, "x", "water") for f in frames], "again")
        assert not (context.folder.restart / "again").exists()


def test_the_folder_is_locked_meanwhile_and_only_warnings_about_labels_are_told(tmp_path):
    settings = replace(
        read_settings(write_project(tmp_path)),
        warnings=("MD.timestep: odd", "CLUSTER.max_workers: odd", "MISC.x: odd"),
    )
    with open_reference(settings, Console(file=io.StringIO()), "list.log"):
        assert json.loads((tmp_path / "restart" / "lock").read_text())["pid"] == os.getpid()
        other = open_reference(settings, Console(file=io.StringIO()), "other.log")
        with pytest.raises(Busy, match="another aims-PAX works in this folder"), other:
            pass
    log = (tmp_path / "logs" / "list.log").read_text()
    assert "CLUSTER.max_workers: odd" in log
    assert "MISC.x: odd" in log
    assert "MD.timestep" not in log


def test_no_frames_are_no_work(opened):
    with opened() as context:
        assert label_all(context, [], "none") == ()


def test_the_mean_time_counts_labels_from_the_store_too_and_training_has_no_meaning():
    calls = SimpleNamespace(seconds=12.0, finished=2, reused=3, failed={"Crashed": 1})
    context = SimpleNamespace(labeller=SimpleNamespace(capacity=1, calls=calls))
    made = LabelOnlyEnvironment(context, {}, None)
    assert made.label_seconds() == 2.0
    calls.finished, calls.reused, calls.failed = 0, 0, {}
    assert made.label_seconds() == 1.0
    for wrong in (
        lambda: made.turn([RunTraining(0, 1)], bool),
        lambda: made.apply("x"),
        lambda: made.begin_training("x"),
    ):
        with pytest.raises(TypeError, match="has no meaning in a recalculation"):
            wrong()
    made.commit(None)
    assert made.restore() is None
