"""Whole runs with a baseline: what they leave, what refuses it, and what a kill changes (nothing)."""

import json
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

from aims_pax import calculator, read_extxyz
from aims_pax.potential import calculate
from tests.cheap_baseline import Cheap
from tests.projects import command, write_project

CHEAP = Path(__file__).with_name("cheap_baseline.py")
BASELINE = {"factory": "cheap_baseline:Cheap", "kwargs": {"scale": 0.8}}


def project(folder, changes=None, mace=None, baseline=BASELINE):
    both = {
        "REFERENCE": {"baseline": baseline},
        "ACTIVE_LEARNING": {"max_MD_steps": 40, "n_test": 2},
    }
    write_project(folder, both, mace)
    settings = yaml.safe_load((folder / "aimsPAX.yaml").read_text())
    for section, keys in (changes or {}).items():
        settings.setdefault(section, {}).update(keys)
    (folder / "aimsPAX.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    shutil.copy(CHEAP, folder)
    return folder


def well(done):
    assert done.returncode == 0, done.stderr + done.stdout
    return " ".join(done.stdout.split())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = project(tmp_path_factory.mktemp("delta"), {"MISC": {"report": True}})
    return folder, well(command(folder=folder))


def model_of(folder):
    (path,) = (folder / "results").glob("*.delta.model")
    return path


def test_what_is_delivered_says_that_it_is_a_difference_and_both_together_say_what_the_run_said(finished):
    folder, said = finished
    model = model_of(folder)
    assert f"done: {model.name}" in said
    assert model.with_name(model.name.replace(".model", ".json")).is_file()
    assert len(list((folder / "results" / "committee").glob("*.delta.model"))) == 1
    calc = calculator(folder)
    with np.load(folder / "results" / "predictions.npz") as stored:
        frames = {
            f.id: f
            for name in ("training", "validation", "test")
            for f in read_extxyz(folder / f"results/{name}.xyz")
        }
        start = 0
        for k, frame_id in enumerate(stored["frame_id"]):
            labelled = frames[str(frame_id)]
            atoms = slice(start, start := start + len(labelled.frame))
            label = calculate(labelled.frame, calc)
            assert stored["true_energy"][k] == labelled.label.energy
            assert label.energy == pytest.approx(stored["energy"][k], abs=2e-5)
            assert label.forces == pytest.approx(stored["forces"][atoms], abs=2e-5)
            assert calc.results["forces_spread"] == pytest.approx(stored["atomic_sd"][atoms], abs=2e-5)
        error = np.abs(stored["forces"] - stored["true_forces"]).mean()
        assert error < 0.25 * np.abs(stored["true_forces"]).mean(), "the baseline alone has 0.2"


def test_everything_that_is_stored_has_the_labels_of_the_reference(finished):
    from ase.calculators.emt import EMT

    folder, _ = finished
    for name in ("results/training.xyz", "data/labelled.xyz"):
        for f in read_extxyz(folder / name):
            assert f.label.energy == pytest.approx(calculate(f.frame, EMT()).energy, abs=1e-9)
    stored = {p.stem for p in (folder / "data" / "baseline" / "labels").glob("*/*.json")} - {"method"}
    assert {f.id for f in read_extxyz(folder / "data" / "labelled.xyz")} <= stored


def test_test_adds_the_baseline_and_export_refuses_with_what_to_do(finished):
    folder, _ = finished
    model = model_of(folder)
    said = well(command("test", f"results/{model.name}", "results/test.xyz", "-o", "t.npz", folder=folder))
    assert "F meV/Å" in said
    with np.load(folder / "t.npz") as stored:
        assert stored["energy"] == pytest.approx(stored["true_energy"], abs=0.2)
    done = command("export", "--format", "lammps", folder=folder)
    assert done.returncode == 2
    refused = " ".join(done.stderr.split())
    assert "holds only the difference to the baseline cheap_baseline:Cheap(scale=0.8)" in refused
    assert 'aims_pax.calculator("results")' in refused
    assert "Traceback" not in done.stderr


def test_the_card_plan_and_settings_say_it(finished):
    folder, _ = finished
    (card,) = (folder / "results").glob("*.md")
    text = card.read_text()
    assert "A Δ-learning MACE force field" in text
    assert "the difference to a baseline, cheap_baseline:Cheap(scale=0.8)" in text
    assert "reference − baseline" in text
    assert "MACECalculator" not in text
    said = well(command("plan", folder=folder))
    assert "baseline cheap_baseline:Cheap(scale=0.8): no reference calls; evaluations for labels" in said
    assert "in MD of active learning at most 120" in said
    assert json.loads((folder / "results" / "models.json").read_text())["models"][model_of(folder).name][
        "baseline"
    ]


def test_a_finished_run_has_nothing_to_do(finished):
    assert "this run is complete and nothing has changed since" in well(command(folder=finished[0]))


@pytest.mark.parametrize(
    "other",
    [None, {"factory": "cheap_baseline:Cheap", "kwargs": {"scale": 0.7}}, "edited"],
    ids=["removed", "scale", "edited"],
)
def test_another_baseline_in_the_same_folder_is_refused(finished, tmp_path, other):
    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder)
    if other == "edited":
        (folder / "cheap_baseline.py").write_text(CHEAP.read_text() + "\n# edited\n")
    else:
        settings = yaml.safe_load((folder / "aimsPAX.yaml").read_text())
        settings["REFERENCE"]["baseline"] = other
        (folder / "aimsPAX.yaml").write_text(yaml.safe_dump(settings))
    for words in ((), ("check",)):
        done = command(*words, folder=folder)
        assert done.returncode in (1, 2)
        said = " ".join(done.stderr.split())
        assert "baseline: cheap_baseline:Cheap(scale=0.8) (" in said
        assert "the weights in restart/ have learnt the difference to the old baseline" in said


def test_the_labels_serve_a_run_without_baseline_and_none_is_computed_again(finished, tmp_path):
    folder = project(tmp_path / "plain", baseline=None)
    shutil.copytree(finished[0] / "data" / "labels", folder / "data" / "labels")
    settings = yaml.safe_load((folder / "aimsPAX.yaml").read_text())
    del settings["INITIAL_DATASET_GENERATION"]
    settings["ACTIVE_LEARNING"] |= {
        "initial_train_dataset": "given.xyz",
        "max_MD_steps": 5,
        "n_test": 0,
        "valid_ratio": 0.3,
    }
    (folder / "aimsPAX.yaml").write_text(yaml.safe_dump(settings))
    shutil.copy(finished[0] / "results" / "training.xyz", folder / "given.xyz")
    said = well(command(folder=folder, name="aims-PAX-al"))
    assert "0 calculated since this start" in said or "; 0 calculated" in said
    assert list((folder / "results").glob("*.delta.*")) == []


@pytest.mark.slow
@pytest.mark.parametrize("where", ["labelling"])
def test_killed_and_begun_again_it_ends_as_if_nothing_had_been(tmp_path, where):
    folder, other = (project(tmp_path / name) for name in "ab")
    code = "import sys; sys.argv = ['aims-PAX']; from aims_pax.cli import main; main()"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CHEAP": str(tmp_path / "calls.log")}
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=folder, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert any(where in line for line in process.stdout)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    for path in (folder / "data" / "baseline" / "labels").glob("*/*.json"):
        json.loads(path.read_text())  # nothing is left half
    well(command(folder=folder))
    well(command(folder=other))
    for name in ("training.xyz", "validation.xyz", model_of(other).name):
        assert (folder / "results" / name).read_bytes() == (other / "results" / name).read_bytes()


def test_a_structure_on_which_it_fails_is_not_paid_for_and_the_run_continues(tmp_path):
    folder = project(tmp_path, baseline={"factory": "cheap_baseline:Failing", "kwargs": {"reach": 1.2}})
    assert "done: " in well(command(folder=folder))
    assert "REFERENCE.baseline fails on H2O" in (folder / "data" / "quarantine.xyz").read_text()
    labelled = list(read_extxyz(folder / "data" / "labelled.xyz"))
    paid = {p.stem for p in (folder / "data" / "labels").glob("*/*.json")} - {"method"}
    assert paid == {f.id for f in labelled}, "every label that was paid for is in the dataset"
    assert max(f.frame.to_atoms().get_distance(0, 1) for f in labelled) < 1.2


@pytest.mark.parametrize(
    ("baseline", "mace", "expected"),
    [
        ({"factory": "no_module:X"}, {}, "cannot import no_module"),
        ({"factory": "cheap_baseline:Cheep"}, {}, "nearest: Cheap"),
        ({"factory": "cheap_baseline:Cheap", "kwarg": {}}, {}, "unknown key kwarg"),
        ("smal", {}, "'smal' is neither a"),
        ({"factory": "cheap_baseline:Failing", "kwargs": {"reach": 0.5}}, {}, "REFERENCE.baseline fails on H2O"),
        (
            BASELINE, {"ARCHITECTURE": {"atomic_energies": {"H": -1.0, "O": -2.0}}},
            "are subtracted, and cheap_baseline:Cheap(scale=0.8) gives none of",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("words", [(), ("check",)])
def test_what_cannot_be_a_baseline_is_refused_before_anything_is_paid(
    tmp_path, words, baseline, mace, expected
):
    folder = project(tmp_path, mace=mace, baseline=baseline)
    if mace:
        text = (folder / "cheap_baseline.py").read_text()
        refuse = "        if len(atoms) == 1:\n            raise ValueError(1)\n        super().calculate("
        (folder / "cheap_baseline.py").write_text(text.replace("        super().calculate(", refuse, 1))
    done = command(*words, folder=folder)
    assert done.returncode in (1, 2), done.stdout
    assert expected in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (folder / "data" / "labels").exists()


def test_a_baseline_without_stress_is_refused_where_the_models_learn_it(tmp_path):
    from tests.worlds import crystal

    folder = tmp_path
    write_project(
        folder,
        {"REFERENCE": {"baseline": {"factory": "cheap_baseline:Stressless"}}},
        {"GENERAL": {"compute_stress": True}},
        {"copper": crystal()},
    )
    shutil.copy(CHEAP, folder)
    done = command("check", folder=folder)
    assert done.returncode in (1, 2)
    assert "cheap_baseline:Stressless() gives no stress, which GENERAL.compute_stress" in " ".join(
        done.stderr.split()
    )


def test_models_of_another_baseline_or_of_none_are_no_beginning(finished, tmp_path):
    model = model_of(finished[0])
    names = [model, next((finished[0] / "results" / "committee").glob("*.delta.model"))]
    for baseline, expected in (
        (None, "holds only the difference to a baseline; set REFERENCE.baseline"),
        ({"factory": "cheap_baseline:Cheap"}, "is the difference to cheap_baseline:Cheap(scale=0.8)"),
    ):
        folder = project(tmp_path / str(baseline is None), baseline=baseline)
        settings = yaml.safe_load((folder / "aimsPAX.yaml").read_text())
        del settings["INITIAL_DATASET_GENERATION"]
        settings["ACTIVE_LEARNING"]["initial_models"] = [str(n) for n in names]
        (folder / "aimsPAX.yaml").write_text(yaml.safe_dump(settings))
        done = command("check", folder=folder)
        assert done.returncode == 2
        assert expected in " ".join(done.stderr.split())


@pytest.mark.slow
def test_members_train_and_trajectories_move_in_other_processes(tmp_path):
    cluster = {
        "executor": "threads",
        "max_workers": 1,
        "training": {"workers": 1},
        "dynamics": {"workers": 2},
    }
    said = well(
        command(folder=project(tmp_path, {"CLUSTER": cluster, "ACTIVE_LEARNING": {"max_MD_steps": 10}}))
    )
    assert "molecular dynamics in 2 processes" in said
    assert "training in 1 process in parallel with the dynamics" in said
    calc = calculator(tmp_path)
    frames = list(read_extxyz(tmp_path / "results" / "training.xyz"))
    error = np.mean([np.abs(calculate(f.frame, calc).forces - f.label.forces).mean() for f in frames])
    assert error < 0.3 * np.mean([np.abs(f.label.forces).mean() for f in frames])


def test_free_labels_are_learnt_as_differences_to_the_baseline_too(tmp_path):
    teacher = {"factory": "cheap_baseline:Cheap", "kwargs": {"scale": 0.95}}
    free = {"potential": teacher, "n_frames": 20, "skip_step": 5, "max_epochs": 3}
    folder = project(tmp_path, {"PRETRAINING": free, "ACTIVE_LEARNING": {"max_MD_steps": 10}})
    said = well(command(folder=folder))
    assert "pre-training: 20 structures with free labels" in said
    (free_label,) = list(read_extxyz(folder / "data/pretraining/labelled.xyz"))[:1]
    assert free_label.label.energy == pytest.approx(
        calculate(free_label.frame, Cheap(scale=0.95)).energy, abs=1e-6
    )
    # rms of the forces that the first member learns
    scale = float(re.search(r"scale (\S+) eV", said).group(1))
    forces = np.concatenate([f.label.forces for f in read_extxyz(folder / "data/pretraining/labelled.xyz")])
    assert scale == pytest.approx(0.15 / 0.95 * np.sqrt((forces**2).mean()), rel=0.2)
    assert "member 0 · epochs used up after 3 epochs" in said
    assert "raise PRETRAINING.max_epochs for more" in said
