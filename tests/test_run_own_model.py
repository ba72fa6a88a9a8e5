"""A family of models in one file of the user's goes through whole runs: `tests/models/linear_model.py`."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.projects import command, write_project
from tests.sweeps import thinned

SOURCE = Path(__file__).parent / "models" / "linear_model.py"
ONE = {"ensemble_size": 1}


def project(folder, changes=None, kind="linear_model:KIND", members=1, **mace):
    """A folder in which MODEL names the module beside aimsPAX.yaml."""
    own = {"ensemble_size": members}
    both = {
        "MODEL": {"kind": kind, "kwargs": {"ridge": 1e-5}},
        "INITIAL_DATASET_GENERATION": own,
        "ACTIVE_LEARNING": {**own, "max_MD_steps": 40, "n_test": 2},
    }
    write_project(folder, both, {"ARCHITECTURE": None, "TRAINING": None, **mace})
    settings = yaml.safe_load((folder / "aimsPAX.yaml").read_text())
    for section, keys in (changes or {}).items():
        settings.setdefault(section, {}).update(keys)
    (folder / "aimsPAX.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    shutil.copy(SOURCE, folder / "linear_model.py")
    return folder


def well(done):
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout.replace("\n", " ")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = project(tmp_path_factory.mktemp("own"), {"MISC": {"report": True, "save_trajectories": 10}})
    return folder, well(command(folder=folder))


def model_of(folder):
    (path,) = (folder / "results").glob("*.linear.npz")
    return path


def test_one_member_with_a_spread_learns_explores_converges_and_is_delivered(finished):
    folder, said = finished
    model = model_of(folder)
    assert f"done: {model.name}" in said
    assert "spread" in said, "frames were asked for by the model's own uncertainty"
    assert [p.name for p in (folder / "model").glob("*.npz")] == [model.name]
    with np.load(folder / "results" / "predictions.npz") as stored:
        assert (stored["atomic_sd"] > 0).all()
        assert np.isnan(stored["energy_sd"]).all()
        error = np.abs(stored["forces"] - stored["true_forces"])[: len(stored["numbers"])]
        assert error.mean() < 0.5 * np.abs(stored["true_forces"]).mean(), "it has learnt something"


def test_report_and_card_say_what_made_it(finished):
    folder, _ = finished
    assert (folder / "report.html").stat().st_size > 10_000
    (card,) = (folder / "results").glob("*.md")
    text = card.read_text()
    assert "A linear force field made by" in text
    assert "MODEL.kwargs.ridge | 1e-05" in text
    assert "mace-torch" not in text
    assert "ARCHITECTURE" not in text
    assert "MACECalculator" not in text


def test_a_finished_run_has_nothing_to_do(finished):
    folder, _ = finished
    assert "this run is complete and nothing has changed since" in well(command(folder=folder))


def test_the_delivered_file_is_tested_by_the_kind_that_its_run_recorded(finished):
    folder, _ = finished
    model = model_of(folder)
    done = command("test", f"results/{model.name}", "results/test.xyz", folder=folder)
    said = well(done)
    assert "F meV/Å" in said
    assert "spread of the forces on an atom" in said
    assert "MACE" not in said


def test_export_is_refused_in_one_line_that_names_the_family(finished):
    folder, _ = finished
    done = command("export", folder=folder)
    assert done.returncode == 2
    said = " ".join(done.stderr.split())
    assert "linear models cannot be exported as ase: other programs do not read them" in said
    assert "Traceback" not in done.stderr


def test_plan_check_and_status_know_it(finished):
    folder, _ = finished
    said = well(command("plan", folder=folder))
    assert "reference calls in all" in said
    assert "memory, estimated" not in said
    checked = well(command("check", folder=folder))
    assert "kind: linear_model:KIND" in checked
    assert f"results/{model_of(folder).name}" in well(command("status", folder=folder))


def test_another_kind_in_the_same_folder_is_refused(finished, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder)
    settings = yaml.safe_load((folder / "aimsPAX.yaml").read_text())
    del settings["MODEL"]
    for section in ("INITIAL_DATASET_GENERATION", "ACTIVE_LEARNING"):
        settings[section]["ensemble_size"] = 2
    (folder / "aimsPAX.yaml").write_text(yaml.safe_dump(settings))
    done = command(folder=folder)
    assert done.returncode == 1
    said = " ".join(done.stderr.split())
    assert (
        "MODEL.kind: linear_model:KIND → mace: the weights in restart/ belong to models of another kind"
        in said
    )


@pytest.mark.parametrize(
    ("kind", "members", "where"),
    thinned([("linear_model:COMMITTEE", 2, "training visit 2"), ("linear_model:KIND", 1, "labelling")], 2),
)
def test_killed_and_begun_again_it_ends_as_if_nothing_had_been(tmp_path, kind, members, where):
    folder, other = (project(tmp_path / name, kind=kind, members=members) for name in "ab")
    code = "import sys; sys.argv = ['aims-PAX']; from aims_pax.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=folder, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert any(where in line for line in process.stdout)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    well(command(folder=folder))
    well(command(folder=other))
    for name in ("training.xyz", "validation.xyz", model_of(other).name):
        assert (folder / "results" / name).read_bytes() == (other / "results" / name).read_bytes()


@pytest.mark.parametrize(
    ("model", "members", "expected"),
    [
        ({"kind": "macee"}, 2, "MODEL.kind: 'macee' is not a kind of model; nearest: mace"),
        ({"kind": "linear_model:KINDS"}, 2, "MODEL.kind: 'linear_model:KINDS': linear_model has no 'KINDS'"),
        ({"kind": "linear_model:SPAN"}, 2, "MODEL.kind: 'linear_model:SPAN'"),
        ({"kind": "linear_model:LinearModel"}, 2, "expected a ModelKind"),
        ({"kind": "linear_model:COMMITTEE"}, 1, "a single linear model has no uncertainty"),
        ({"kind": "mace"}, 1, "expected at least 2: the uncertainty of MACE models is their disagreement"),
        ({"kind": "mace", "kwargs": {"r_max": 5}}, 2, "MODEL.kwargs: MACE takes none, got r_max"),
        (
            {"kind": "linear_model:KIND", "kwargs": {"rigde": 1}},
            1,
            "MODEL.kwargs.rigde: unknown key; nearest: ridge",
        ),
        ({"kind": "linear_model:KIND", "kwargs": {"ridge": 7}}, 1, "7 is not possible; expected more than 0"),
    ],
)
@pytest.mark.parametrize("words", [(), ("check",)])
def test_what_cannot_be_is_refused_before_anything_is_paid(tmp_path, words, model, members, expected):
    folder = project(tmp_path, members=members)
    settings = yaml.safe_load((folder / "aimsPAX.yaml").read_text())
    (folder / "aimsPAX.yaml").write_text(yaml.safe_dump({**settings, "MODEL": model}))
    done = command(*words, folder=folder)
    assert done.returncode == 2
    assert expected in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (folder / "data" / "labels").exists()


def test_keys_that_only_mace_reads_are_warned_about(tmp_path):
    folder = project(tmp_path, TRAINING={"lr": 0.5}, ARCHITECTURE={"r_max": 4.0}, MISC={"inference": "torch"})
    done = command("check", folder=folder)
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 0, said
    for key in ("TRAINING.lr", "ARCHITECTURE.r_max", "MISC.inference"):
        assert re.search(
            rf"mace\.yaml:\d+: {re.escape(key)}: has no effect: MODEL\.kind is not mace", said
        ), key


def test_constant_pressure_is_refused_where_the_models_give_no_stress(tmp_path):
    folder = project(tmp_path, {"MD": {"stat_ensemble": "NPT"}}, GENERAL={"compute_stress": True})
    done = command("check", folder=folder)
    said = " ".join(done.stderr.split())
    assert done.returncode == 2
    assert "MD.stat_ensemble: NPT needs the stress, which linear models do not compute" in said


def test_processes_and_subsets_that_were_asked_for_in_vain_are_said_so(tmp_path):
    cluster = {
        "executor": "threads",
        "max_workers": 1,
        "training": {"workers": 2},
        "dynamics": {"workers": 2},
    }
    small = {"max_MD_steps": 10, "converge_al": False, "replay_strategy": "random_subset"}
    said = well(command(folder=project(tmp_path, {"CLUSTER": cluster, "ACTIVE_LEARNING": small})))
    for key in ("training", "dynamics"):
        assert said.count(f"CLUSTER.{key} has no effect: linear models") == 1
    assert "replay_strategy random_subset has no effect" in said
