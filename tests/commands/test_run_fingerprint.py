"""A run that delivered is not done again unless something is other than it was."""

import json
import os
from pathlib import Path

import pytest

from aims_pax.commands import run_fingerprint
from aims_pax.commands.run_fingerprint import fingerprint_inputs, is_up_to_date, save_fingerprint
from aims_pax.record.lock import Lock
from aims_pax.settings import read_settings
from tests.projects import write_project

OWN = {"REFERENCE": {"factory": "mine.made:make"}, "MISC": {"report": True}}


@pytest.fixture
def folder(tmp_path):
    """What a run leaves behind, in files that nobody reads here."""
    write_project(tmp_path, OWN)
    for name in (
        "mine/made.py",
        "helper.py",
        "data/splits.jsonl",
        "data/labelled.xyz",
        "restart/explore/state-000001.npy",
        "results/a.model",
        "results/committee/b.model",
        "model/a.model",
        "report.html",
        "logs/active_learning.log",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    settings = read_settings(tmp_path)
    save_fingerprint(settings, fingerprint_inputs(settings))
    return tmp_path


def same(folder):
    return is_up_to_date(read_settings(folder))


def later(path, text="y"):
    """Write a file anew, and let the clock have moved, however coarse the file system's is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 10**9))


def test_nothing_changed_is_nothing_to_do(folder):
    assert same(folder)


@pytest.mark.parametrize("index", ["@0", "@:"])
def test_a_file_of_which_an_index_chooses_structures_counts(tmp_path, index):
    write_project(tmp_path, {"MISC": {"path_to_geometry": f"geometries/water.xyz{index}"}})
    settings = read_settings(tmp_path)
    save_fingerprint(settings, fingerprint_inputs(settings))
    assert same(tmp_path)
    later(tmp_path / "geometries" / "water.xyz")
    assert not same(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["logs/active_learning.log", "results/mine.txt", "export/a.pt", "report.html", "restart/journal.jsonl"],
)
def test_what_others_write_beside_changes_nothing(folder, name):
    later(folder / name)
    assert same(folder)


@pytest.mark.parametrize(
    "name",
    [
        "geometries/water.xyz",
        "geometries/new.xyz",
        "mine/made.py",
        "mine/more.py",
        "helper.py",
        "data/splits.jsonl",
        "data/labelled.xyz",
        "restart/explore/state-000001.npy",
        "restart/explore/state-000002.npy",
        "results/a.model",
        "results/committee/b.model",
        "model/a.model",
    ],
)
def test_other_inputs_snapshots_data_or_results_are_something_to_do(folder, name):
    later(folder / name)
    assert not same(folder)


@pytest.mark.parametrize(
    "name",
    [
        "results/a.model",
        "model/a.model",
        "restart/explore/state-000001.npy",
        "report.html",
        "data/splits.jsonl",
        "data/labelled.xyz",
    ],
)
def test_what_is_missing_is_something_to_do(folder, name):
    (folder / name).unlink()
    assert not same(folder)


@pytest.mark.parametrize(
    ("project", "mace", "as_before"),
    [
        ({}, {}, True),
        ({"ACTIVE_LEARNING": {"max_MD_steps": 60.0}}, {}, True),
        ({"ACTIVE_LEARNING": {"max_MD_steps": 61}}, {}, False),
        ({}, {"TRAINING": {"lr": 0.5}}, False),
        ({"MISC": {}}, {}, False),
    ],
)
def test_other_settings_are_something_to_do_and_other_words_for_the_same_are_not(
    folder, project, mace, as_before
):
    geometry = folder / "geometries" / "water.xyz"
    time = geometry.stat().st_mtime_ns
    write_project(folder, {**OWN, **project}, mace)
    os.utime(geometry, ns=(time, time))
    assert same(folder) == as_before


def test_another_version_is_something_to_do(folder, monkeypatch):
    monkeypatch.setattr(run_fingerprint, "__version__", "99")
    assert not same(folder)


def test_a_folder_somebody_works_in_is_left_to_the_lock(folder):
    with Lock(folder / "restart" / "lock").held():
        assert not same(folder)
    assert same(folder)


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 2}', '{"format": 1}'])
def test_a_memory_that_cannot_be_read_is_something_to_do(folder, text):
    (folder / "restart" / run_fingerprint.FILE).write_text(text)
    assert not same(folder)


def test_what_changed_while_it_ran_is_something_to_do(folder):
    settings = read_settings(folder)
    before = fingerprint_inputs(settings)
    later(folder / "geometries" / "water.xyz")
    save_fingerprint(settings, before)
    assert not same(folder)


def test_files_the_settings_name_are_inputs_and_the_run_s_own_folders_are_not(tmp_path):
    for name in ("control.in", "species/01_H_default", "training.xyz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    aims = {"type": "aims", "factory": None}
    changes = {
        "REFERENCE": aims,
        "INITIAL_DATASET_GENERATION": {"species_dir": "species"},
        "ACTIVE_LEARNING": {"species_dir": "species"},
        "CLUSTER": {"calc_dir": "calc", "launch_str": "aims.x " + 300 * "long"},
        "MISC": {"path_to_control": "control.in", "test_set": "training.xyz", "dataset_dir": "."},
    }
    inputs = fingerprint_inputs(read_settings(write_project(tmp_path, changes)))["inputs"]
    assert {Path(name).name for name in inputs} == {
        "control.in", "01_H_default", "training.xyz", "water.xyz",
    }  # fmt: skip
    json.dumps(inputs)
