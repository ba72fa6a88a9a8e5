"""What our errors and verdicts advise is done, and works."""

import json
import shutil

import pytest

from aims_pax.report.load_run import load_run
from aims_pax.report.run_verdict import run_verdict
from aims_pax.report.tolerant_readers import snapshot
from tests.projects import command, write_project

BASE = {"ACTIVE_LEARNING": {"max_MD_steps": 30, "max_convergence_epochs": 2, "convergence_patience": 50}}
BROKEN = """
import os
from ase.calculators.emt import EMT as Real
class EMT(Real):
    def calculate(self, *args, **kwargs):
        if not os.path.exists("mended"):
            from aims_pax.errors import NotConverged
            raise NotConverged("no convergence")
        super().calculate(*args, **kwargs)
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = write_project(tmp_path_factory.mktemp("run"), BASE)
    done = command(folder=folder)
    assert done.returncode == 0, done.stderr
    return folder


def said(done):
    return " ".join((done.stdout + done.stderr).split())


def test_raise_max_convergence_epochs_and_run_the_same_command(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "run")
    assert "raise ACTIVE_LEARNING.max_convergence_epochs" in run_verdict(load_run(folder)).text
    write_project(folder, {"ACTIVE_LEARNING": {**BASE["ACTIVE_LEARNING"], "max_convergence_epochs": 5}})
    done = command(folder=folder)
    assert done.returncode == 0, done.stderr
    assert [p["epochs"] for p in snapshot(folder / "restart/converge")[0]["members"]] == [5]
    assert "best epoch" in run_verdict(load_run(folder)).text


def test_raise_the_limit_of_dynamics_and_run_the_same_command(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "run")
    goal = {**BASE["ACTIVE_LEARNING"], "desired_acc": 1e-5}
    write_project(folder, {"ACTIVE_LEARNING": goal})
    assert command(folder=folder).returncode == 0
    assert "raise ACTIVE_LEARNING.max_MD_steps" in run_verdict(load_run(folder)).text
    write_project(folder, {"ACTIVE_LEARNING": {**goal, "max_MD_steps": 45}})
    assert command(folder=folder).returncode == 0
    assert [t.step for t in load_run(folder).trajectories] == [45] * 3


def test_remove_settings_json_to_continue_with_the_present_settings(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "run")
    (folder / "restart" / "settings.json").write_text("{")
    (folder / "restart" / "delivered.json").unlink()
    refused = command(folder=folder)
    assert refused.returncode == 1
    assert "remove it to continue with the present settings" in said(refused)
    (folder / "restart" / "settings.json").unlink()
    done = command(folder=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "restart" / "settings.json").read_text())["format"] == 1


def test_an_initial_dataset_that_could_not_be_made_begins_again_once_its_cause_is_gone(tmp_path):
    folder = write_project(tmp_path, {**BASE, "REFERENCE": {"factory": "broken:EMT"}})
    (folder / "broken.py").write_text(BROKEN)
    failed = command(folder=folder)
    assert failed.returncode == 1
    (folder / "mended").touch()
    if "remove" in said(failed):
        assert f"remove {folder / 'restart' / 'initial'}, run again" in said(failed)
        shutil.rmtree(folder / "restart" / "initial")
    done = command(folder=folder)
    assert done.returncode == 0, done.stderr


def test_the_way_out_of_a_refused_change_names_a_file_that_is_there(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "run")
    for name in ("results/training.xyz", "data/labelled.xyz"):
        write_project(folder, {**BASE, "REFERENCE": {"kwargs": {"asap_cutoff": True}}})
        refused = command(folder=folder)
        assert refused.returncode == 1
        assert f"initial_train_dataset can read {name} of this one" in said(refused)
        assert f"aims-PAX-recalc {name}" in said(refused)
        assert (folder / name).is_file()
        shutil.rmtree(folder / "results", ignore_errors=True)
    new = write_project(
        tmp_path / "new",
        {"INITIAL_DATASET_GENERATION": None,
         "ACTIVE_LEARNING": {**BASE["ACTIVE_LEARNING"], "initial_train_dataset": str(folder / "data/labelled.xyz")}},
    )  # fmt: skip
    done = command(folder=new, name="aims-PAX-al")
    assert done.returncode == 0, done.stderr
    run = load_run(new)
    assert len(run.given) == len(load_run(folder).structures)
    (card,) = (new / "results").glob("*.md") if (new / "report.html").exists() else (None,)
    assert card is None
