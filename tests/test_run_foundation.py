"""A foreign .model file and 30 labelled frames become a fine-tuned committee: check, plan, run, restart, delivery."""

import json
import shutil

import ase.io
import numpy as np
import pytest
import torch

from aims_pax.frames import LabelledFrame
from aims_pax.labelling.references.ase_calculator import CalculatorReference
from aims_pax.models.base import MemberData
from aims_pax.models.mace.build import read_model
from aims_pax.models.mace.mace_import import quiet
from tests.models.mace.published import published
from tests.models.mace.tiny import ensemble
from tests.projects import command, write_project
from tests.worlds import EMT, ethanol, rattled, water

REFERENCE = CalculatorReference(EMT["factory"], {})


def labelled(frame, n, seed):
    return [LabelledFrame(f, REFERENCE.label(f)) for f in rattled(frame, n, seed=seed)]


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A model of H, C, O and Cu that has learnt a little about ethanol, as a file from elsewhere."""
    path = tmp_path_factory.mktemp("foreign") / "foreign.model"
    made = ensemble([1], elements=(1, 6, 8, 29), default_dtype="float32")
    made.train([MemberData(labelled(ethanol(), 20, 0), labelled(ethanol(), 4, 1))], 10)
    made.save(0, path)
    return path


def project(folder, foreign, changes=None, **foundation):
    changes = {"INITIAL_DATASET_GENERATION": None, "ACTIVE_LEARNING": {}} | (changes or {})
    changes["ACTIVE_LEARNING"] = {"n_test": 3, "max_MD_steps": 30} | changes["ACTIVE_LEARNING"]
    changes["ACTIVE_LEARNING"]["initial_train_dataset"] = "train.xyz"
    mace = {"ARCHITECTURE": None, "FOUNDATION": {"model": "foreign.model", **foundation}}
    write_project(folder, changes, mace)
    shutil.copy(foreign, folder / "foreign.model")
    ase.io.write(folder / "train.xyz", [f.to_atoms() for f in labelled(water(), 30, 2)], format="extxyz")
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory, foreign):
    folder = project(tmp_path_factory.mktemp("fine"), foreign, {"MISC": {"report": True}})
    done = command(folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, " ".join(done.stdout.split())


def test_it_is_trained_explores_and_says_where_it_began(finished):
    folder, said = finished
    assert "members begin from the foundation model foreign.model, head Default: elements H O" in said
    assert "recipe naive: lr 0.002" in said
    assert "atomic energies from the foundation model, corrected by least squares on its residuals" in said
    (model,) = (folder / "results").glob("*.model")
    delivered = read_model(model, "cpu", None)
    assert delivered.atomic_numbers.tolist() == [1, 8]
    entries = json.loads((folder / "results" / "models.json").read_text())["models"]
    assert (
        entries[model.name]["begun_from"]
        == "foreign.model (FOUNDATION, recipe naive, 8 channels, max_L 1, r_max 3.5 Å)"
    )
    card = (folder / "results" / f"{model.stem}.md").read_text()
    assert (
        "| begun from | foreign.model (FOUNDATION, recipe naive, 8 channels, max_L 1, r_max 3.5 Å) |" in card
    )
    assert "corrected by least squares on its residuals" in card
    assert "TRAINING.lr" not in card  # nobody wrote it; it is that of the recipe
    settings = json.loads((folder / "restart" / "settings.json").read_text())["settings"]
    assert settings["mace.TRAINING.ema_decay"] == "0.999"
    assert settings["mace.FOUNDATION.recipe"] == "naive"


def test_the_delivered_file_is_read_by_maces_calculator_and_by_export(finished):
    from mace.calculators import MACECalculator

    folder, _ = finished
    (model,) = (folder / "results").glob("*.model")
    with quiet():
        calculator = MACECalculator(model_paths=str(model), device="cpu", default_dtype="float32")
        atoms = water().to_atoms()
        atoms.calc = calculator
        assert np.isfinite(atoms.get_forces()).all()
    done = command("export", "--format", "torchscript", folder=folder)
    assert done.returncode == 0, done.stderr


def test_check_and_plan_say_what_the_models_begin_from(foreign, tmp_path):
    folder = project(tmp_path, foreign)
    done = command("check", folder=folder)
    assert done.returncode == 0, done.stderr
    done = command("plan", folder=folder)
    assert done.returncode == 0, done.stderr
    begun = "foreign.model (FOUNDATION, recipe naive, 8 channels, max_L 1, r_max 3.5 Å)"
    assert f"models begin from {begun}: no reference call" in done.stdout
    assert "neighbours" in done.stdout  # within the cutoff of the model


def test_the_same_command_continues_and_another_beginning_is_refused(finished, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "again")
    text = (folder / "aimsPAX.yaml").read_text()
    (folder / "aimsPAX.yaml").write_text(text.replace("max_MD_steps: 30", "max_MD_steps: 45"))
    done = command(folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "with the present settings it continues" in " ".join(done.stdout.split())
    mace = (folder / "mace.yaml").read_text()
    for changed, words in (
        (
            mace.replace("FOUNDATION:", "FOUNDATION:\n  recipe: frozen"),
            "mace.FOUNDATION.recipe: naive → frozen",
        ),
        (
            mace.replace("FOUNDATION:\n  model: foreign.model\n", ""),
            "mace.FOUNDATION.model: foreign.model → none",
        ),
    ):
        assert changed != mace
        (folder / "mace.yaml").write_text(changed)
        done = command("check", folder=folder)
        assert done.returncode == 2, done.stderr
        assert words in " ".join(done.stderr.split())
    (folder / "mace.yaml").write_text(mace)
    with quiet():
        torch.save(published(dtype=torch.float32, seed=5), folder / "foreign.model")
    done = command(folder=folder)
    assert done.returncode == 1
    assert "contents.foreign.model: " in " ".join((done.stdout + done.stderr).split())


@pytest.mark.parametrize(
    ("foundation", "words"),
    [
        (
            {"model": "missing.model"},
            "FOUNDATION.model: 'missing.model' is neither a model file nor one of",
        ),
        ({"model": "medium-mpa"}, "nearest: medium-mpa-0"),
        ({"model": "polar-1-m"}, "reads the total charge and spin"),
        ({"model": "foreign.model", "head": "pbe"}, "foreign.model has no head 'pbe'; it has Default"),
        ({"model": "own:make"}, "cannot import own"),
        ({"model": "foreign.model", "recipe": "replay", "replay_data": "no.xyz"}, "no.xyz: no such file"),
    ],
)
def test_check_refuses_what_a_run_would_refuse(foundation, words, foreign, tmp_path):
    done = command("check", folder=project(tmp_path, foreign, **foundation))
    assert done.returncode == 2
    assert words in " ".join(done.stderr.split())


def test_check_refuses_elements_and_keys_that_the_model_does_not_have(foreign, tmp_path):
    folder = project(tmp_path, foreign)
    with quiet():
        torch.save(published(atomic_numbers=[1, 6, 7, 9, 29], dtype=torch.float32), folder / "foreign.model")
    (folder / "mace.yaml").write_text((folder / "mace.yaml").read_text() + "ARCHITECTURE:\n  r_max: 5.5\n")
    done = command("check", folder=folder)
    assert (done.returncode, "foreign.model does not know O" in done.stderr) == (2, True)
    with quiet():
        torch.save(published(dtype=torch.float32), folder / "foreign.model")
    done = command("check", folder=folder)
    assert (done.returncode, "ARCHITECTURE.r_max: 5.5 in mace.yaml, 4.5 in foreign.model" in done.stderr) == (
        2,
        True,
    )


def test_check_says_when_a_network_is_needed(foreign, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    folder = project(tmp_path / "run", foreign, model="off-small")
    done = command("check", folder=folder)
    assert done.returncode == 0, done.stderr
    assert "off-small is not in MACE's cache: it will be downloaded when the run begins" in done.stderr
