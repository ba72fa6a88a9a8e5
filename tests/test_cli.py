"""The commands as a user meets them."""

import subprocess
import sys

import pytest
import yaml

from tests.projects import ENTRIES, command, write_project


@pytest.mark.parametrize("name", ENTRIES)
def test_help_and_version_come_without_torch(name, tmp_path):
    for word in ("--help", "--version"):
        done = command(word, folder=tmp_path, name=name)
        assert done.returncode == 0
        assert done.stderr == ""
    assert "0.1.0" in done.stdout
    entry = ENTRIES[name]
    code = (
        f"import sys; sys.argv = [{name!r}, '--help']\nfrom aims_pax.cli import {entry}\n"
        f"try: {entry}()\nexcept SystemExit: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_check_prints_one_yaml_document_and_nothing_else(tmp_path):
    folder = write_project(tmp_path, {"ACTIVE_LEARNING": {"analysis_skip": 7}})
    done = command("check", folder=folder)
    assert done.returncode == 0
    document = yaml.safe_load(done.stdout)
    assert set(document) == {"aimsPAX", "mace"}
    assert document["aimsPAX"]["ACTIVE_LEARNING"]["max_MD_steps"] == 60
    assert document["mace"]["TRAINING"]["weight_decay"] == 5e-7
    assert "analysis_skip" in done.stderr, "a key without effect is said so"
    assert sorted(p.name for p in folder.iterdir()) == ["aimsPAX.yaml", "geometries", "mace.yaml"]


def test_check_tells_all_mistakes_at_once_and_exits_with_2(tmp_path):
    folder = write_project(
        tmp_path,
        {"MD": {"timestep": -1}, "ACTIVE_LEARNING": {"num_trajektories": 3}},
        {"TRAINING": {"lr": "much"}},
    )
    done = command("check", folder=folder)
    assert done.returncode == 2
    assert done.stdout == ""
    for word in ("timestep", "num_trajectories", "TRAINING.lr", "aimsPAX.yaml:", "mace.yaml:"):
        assert word in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["--mace-settings", "m.yaml", "--aimsPAX-settings", "a.yaml", "check"],
        ["check", "--mace_settings", "m.yaml", "--aimsPAX_settings", "a.yaml"],
        ["check", "--model-settings", "m.yaml", "--aimsPAX-settings", "a.yaml"],
    ],
)
def test_other_file_names_are_accepted_in_every_spelling(tmp_path, words):
    folder = write_project(tmp_path)
    (folder / "mace.yaml").rename(folder / "m.yaml")
    (folder / "aimsPAX.yaml").rename(folder / "a.yaml")
    done = command(*words, folder=folder)
    assert done.returncode == 0, done.stderr


def test_missing_files_are_named(tmp_path):
    done = command("check", folder=tmp_path)
    assert done.returncode == 2
    assert "aimsPAX.yaml" in done.stderr
    assert "mace.yaml" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_verb_is_refused_with_the_near_one(tmp_path):
    done = command("chek", folder=tmp_path)
    assert done.returncode == 2
    assert "check" in done.stderr
