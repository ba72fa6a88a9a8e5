"""Whole tiny runs: no label trains under another method, and every label says where it comes from."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from ase.calculators.emt import EMT

from aims_pax.dataset import read_extxyz, to_extxyz
from tests.projects import command, write_project

DOUBLED = """from ase.calculators.emt import EMT
class Doubled(EMT):
    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        for name in ("energy", "free_energy", "forces"):
            self.results[name] = 2 * self.results[name]
"""
ONE_VISIT = {"n_points_per_sampling_step_idg": 2, "max_initial_epochs": 2}
SHORT = {"max_MD_steps": 10, "max_convergence_epochs": 1, "num_trajectories": 2}


def emt(frame):
    atoms = frame.to_atoms()
    atoms.calc = EMT()
    return atoms.get_potential_energy()


def ended(folder, name="aims-PAX", code=0, *words):
    done = command(*words, folder=folder, name=name)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def labels_in(folder):
    return [p for p in (folder / "data/labels").rglob("*.json") if p.name != "method.json"]


def test_labels_of_another_method_never_train_when_the_restart_was_removed(tmp_path):
    folder = write_project(tmp_path, {"INITIAL_DATASET_GENERATION": ONE_VISIT})
    ended(folder, "aims-PAX-initial-ds")
    before = {f.id: f.label.energy for p in (folder / "data/initial").rglob("*.xyz") for f in read_extxyz(p)}
    shutil.rmtree(folder / "restart")
    (folder / "mine.py").write_text(DOUBLED)
    write_project(
        folder,
        {"INITIAL_DATASET_GENERATION": ONE_VISIT, "REFERENCE": {"factory": "mine:Doubled"}},
    )
    said = ended(folder, "aims-PAX-initial-ds")
    after = {f.id: f for p in (folder / "data/initial").rglob("*.xyz") for f in read_extxyz(p)}
    assert set(before) & set(after), "the same structures are sampled: only then does the test show anything"
    for found in after.values():
        assert found.label.energy == pytest.approx(2 * emt(found.frame), abs=1e-9)
    methods = {p.name for p in (folder / "data/labels").iterdir()}
    assert len(methods) == 2
    assert {f.origin["method"] for f in after.values()} < methods
    assert "entries of an earlier attempt moved to splits.earlier.jsonl" in said


def test_every_label_says_method_settings_and_source(tmp_path):
    folder = write_project(tmp_path, {"INITIAL_DATASET_GENERATION": ONE_VISIT, "ACTIVE_LEARNING": SHORT})
    ended(folder)
    for path in (
        folder / "data/labelled.xyz",
        folder / "results/training.xyz",
        folder / "results/validation.xyz",
    ):
        for found in read_extxyz(path):
            assert found.origin["source"] == "reference"
            assert (folder / "data/labels" / found.origin["method"] / f"{found.id}.json").exists()
            settings = json.loads((folder / "data/settings" / f"{found.origin['settings']}.json").read_text())
            assert settings["aimsPAX.MD.temperature"] == "300.0"
    ended(folder, "aims-PAX-recalc", 0, "results/training.xyz", "-o", "again.xyz")
    sources = [f.origin["source"] for f in read_extxyz(folder / "again.xyz")]
    assert sources == [f"recalc:training.xyz#{k}" for k in range(1, len(sources) + 1)]


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Eight structures labelled by EMT, as somebody else might give them."""
    folder = write_project(
        tmp_path_factory.mktemp("given"),
        {"INITIAL_DATASET_GENERATION": {**ONE_VISIT, "n_points_per_sampling_step_idg": 4}},
    )
    ended(folder, "aims-PAX-initial-ds")
    frames = {f.id: f for p in (folder / "data/initial").rglob("*.xyz") for f in read_extxyz(p)}
    return list(frames.values())


def from_given(tmp_path, given, change=lambda f: f, **misc):
    folder = write_project(
        tmp_path,
        {
            "INITIAL_DATASET_GENERATION": None,
            "ACTIVE_LEARNING": {
                **SHORT,
                "initial_train_dataset": "train.xyz",
                "initial_valid_dataset": "valid.xyz",
            },
            "MISC": misc,
        },
    )
    return with_given(folder, map(change, given))


def with_given(folder, given):
    bare = [replace(f, origin={}) for f in given]
    (folder / "train.xyz").write_text(to_extxyz(bare[:-2]))
    (folder / "valid.xyz").write_text(to_extxyz(bare[-2:]))
    return folder


def test_given_labels_are_counted_as_given_in_files_card_and_log(tmp_path, given):
    folder = from_given(tmp_path, given, report=True)
    said = ended(folder, "aims-PAX-al")
    assert f"given data: train.xyz: {len(given) - 2} structures (train)" in said
    assert "labelled again by the reference: forces differ by" in said
    assert "the energies of the isolated atoms are not determined by the given data: one composition" in said
    sources = [f.origin["source"] for f in read_extxyz(folder / "results/training.xyz")]
    assert [s for s in sources if s.startswith("given:")] == [
        f"given:train.xyz#{k}" for k in range(1, len(given) - 1)
    ]
    (card,) = (folder / "results").glob("*.md")
    text = card.read_text()
    reference = sources.count("reference")
    assert f"| given in train.xyz | {len(given) - 2} |" in text
    assert "| given in valid.xyz | 2 |" in text
    mixed = f"It applies to {reference} of {reference + len(given)} labelled frames"
    assert (mixed if reference else f"All {len(given)} labelled frames were given in files") in text
    assert "Labels in train.xyz and valid.xyz were compared with those of the reference" in text
    assert "whoever gave the data" not in text
    assert "train.xyz against the reference, 4 structures: forces differ by " in text


def test_given_labels_of_another_method_are_refused_before_anything_is_trained(tmp_path, given):
    from dataclasses import replace

    from aims_pax.frames import Label

    def doubled(f):
        return replace(f, label=Label(2 * f.label.energy, 2 * f.label.forces))

    folder = from_given(tmp_path, given, doubled)
    said = ended(folder, "aims-PAX-al", 2)
    assert "These labels are from another method than the reference" in said
    assert "aims-PAX-recalc train.xyz -o NEW.xyz" in said
    assert not list(folder.rglob("*.model"))
    assert (
        (folder / "data/splits.jsonl").read_text() == "" if (folder / "data/splits.jsonl").exists() else True
    )
    assert "another method than the reference" in ended(folder, "aims-PAX", 2, "check", "--try", ".")
    ended(from_given(tmp_path, given, doubled, check_given_data=0), "aims-PAX-al")


def test_without_labels_the_models_learn_the_given_structures_and_later_more(tmp_path, given):
    """`max_labels: 0`, with and without a reference; raised, the same folder goes on with active learning."""
    none = {
        "initial_train_dataset": "train.xyz",
        "initial_valid_dataset": "valid.xyz",
        "max_labels": 0,
        "max_convergence_epochs": 2,
        "ensemble_size": 2,
    }
    changes = {"INITIAL_DATASET_GENERATION": None, "ACTIVE_LEARNING": none, "MISC": {"check_given_data": 0}}
    ours = {**changes, "REFERENCE": {"type": "given", "factory": None, "kwargs": None}}
    without = with_given(write_project(tmp_path / "without", ours), given)
    said = ended(without)
    assert "no active learning (max_labels: 0" in said
    assert "reference calculations" not in said
    assert len(list((without / "results").glob("*.model"))) == 1
    assert not labels_in(without)
    again = ended(without)
    assert "To continue, raise ACTIVE_LEARNING.max_labels" in again
    assert "visit 1" not in again  # nothing is trained again

    folder = with_given(write_project(tmp_path / "later", changes), given)
    assert "no active learning (max_labels: 0" in ended(folder)
    write_project(
        folder, {**changes, "ACTIVE_LEARNING": {**none, "max_labels": 1, "max_MD_steps": 40, "c_x": -1.0}}
    )
    said = ended(folder)
    assert "active learning: 3 trajectories of water" in said
    assert "1 active learning (1 of max_labels 1 asked for)" in said


def test_given_structures_that_fill_the_training_set_are_not_added_to_but_tested(tmp_path, given):
    full = {
        "initial_train_dataset": "train.xyz",
        "initial_valid_dataset": "valid.xyz",
        "max_train_set_size": 1,
        "max_MD_steps": 400,
        "n_test": 1,
        "max_convergence_epochs": 1,
    }
    changes = {"INITIAL_DATASET_GENERATION": None, "ACTIVE_LEARNING": full, "MISC": {"check_given_data": 0}}
    folder = with_given(write_project(tmp_path, changes), given)
    said = ended(folder)
    assert "training points: the trajectories move until all test frames (n_test: 1) are drawn" in said
    assert len(labels_in(folder)) == 1
    trained = {f.id for f in read_extxyz(folder / "train.xyz")}
    assert {f.id for f in read_extxyz(folder / "results/training.xyz")} == trained


def test_two_projects_with_one_dataset_dir_are_refused_with_the_owner(tmp_path):
    shared = str(tmp_path / "shared")
    changes = {"INITIAL_DATASET_GENERATION": ONE_VISIT, "MISC": {"dataset_dir": shared}}
    first, second = (write_project(tmp_path / name, changes) for name in "ab")
    ended(first, "aims-PAX-initial-ds")
    before = {p: p.read_bytes() for p in (tmp_path / "shared").rglob("*") if p.is_file()}
    for said in (ended(second, "aims-PAX-initial-ds", 2), ended(second, "aims-PAX", 2, "check", ".")):
        assert f"MISC.dataset_dir: {shared} belongs to the run in {first}" in said
    assert before == {p: p.read_bytes() for p in (tmp_path / "shared").rglob("*") if p.is_file()}
    assert not np.any([p.suffix == ".model" for p in second.rglob("*")])
