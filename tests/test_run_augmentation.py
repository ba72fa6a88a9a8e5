"""Whole runs with `AUGMENTATION`: copies train the members and are counted nowhere as labels."""

import json

import pytest

from aims_pax.dataset import read_extxyz
from aims_pax.report.load_run import load_run
from tests.projects import command, write_project

pytest.importorskip("featomic")
COPIES = {"kind": "gpr", "copies": 3, "gate": 1.0}


def ended(folder, code=0, *words):
    done = command(*words, folder=folder)
    assert done.returncode == code, done.stdout + done.stderr
    return " ".join((done.stdout + done.stderr).split())


def tiny(folder, **changes):
    steps = {"max_MD_steps": 10, "n_test": 1, "num_trajectories": 2, "max_convergence_epochs": 2}
    return write_project(
        folder, {"AUGMENTATION": COPIES, "ACTIVE_LEARNING": steps, "MISC": {"report": True}, **changes}
    )


def test_copies_train_the_members_and_are_in_no_count_no_set_and_no_store(tmp_path):
    folder = tmp_path
    said = ended(tiny(folder))
    used = [json.loads(line) for line in (folder / "data/augmentation/used.jsonl").read_text().splitlines()]
    assert max(entry["copies"] for entry in used) >= 10
    assert "augmentation: tiny_" in said
    files = [*(folder / "results").glob("*.xyz"), folder / "data/labelled.xyz"]
    for path in files:
        assert all("provenance" not in x.origin for x in read_extxyz(path)), path
    run = load_run(folder)
    frames = {frame for split in run.splits.values() for frame in split}
    stored = {p.stem for p in (folder / "data/labels").glob("*/*.json")} - {"method"}
    assert frames <= stored
    assert len(stored) == len(run.structures) == run.labelled
    assert all(v.n_train <= len(run.splits["train"]) for v in run.visits)
    (card,) = (folder / "results").glob("*.md")
    text = " ".join(card.read_text().split())
    assert "perturbed copies of" in text
    assert "surrogate:" in text
    assert "perturbed copies of" in (folder / "report.html").read_text()


def test_a_model_that_cannot_learn_from_copies_is_refused_by_check_and_run(tmp_path):
    own = {"ensemble_size": 1}
    folder = tiny(tmp_path, MODEL="gp", INITIAL_DATASET_GENERATION=own, ACTIVE_LEARNING=own)
    text = "Gaussian process models do not learn from copies"
    assert text in ended(folder, 2)
    assert text in ended(folder, 2, "check")


def test_limits_that_leave_no_copies_are_refused(tmp_path):
    folder = tiny(tmp_path, AUGMENTATION={"kind": "gpr", "min_labels": 20, "until_labels": 10})
    assert "AUGMENTATION.until_labels: 10 is less than min_labels 20" in ended(folder, 2, "check")
