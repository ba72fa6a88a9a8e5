"""The end of a run: what is delivered."""

import hashlib
import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest

from aims_pax.commands import results
from aims_pax.commands.results import deliver, read_test_set, save_models
from aims_pax.dataset import Dataset, read_extxyz, write_extxyz
from aims_pax.engine.run_context import RunContext
from aims_pax.errors import SettingsError
from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.labelling.references.ase_calculator import CalculatorReference
from aims_pax.models.base import MemberData
from aims_pax.models.kinds import kind_of_run
from aims_pax.record.arrays import unpack_arrays
from aims_pax.record.delivery_progress import REPORT, step_under_way
from aims_pax.record.folder import RunFolder
from aims_pax.report.load_run import load_run
from aims_pax.settings import read_settings
from tests.projects import write_project
from tests.report.folders import made_up
from tests.worlds import rattled, water

EMT = CalculatorReference("ase.calculators.emt:EMT")
DATA = [LabelledFrame(f, EMT.label(f), {"system": "water"}) for f in rattled(water(), 8, seed=5)]


@pytest.fixture
def run(tmp_path):
    """The open objects of a run of two small models that learned six structures, with one each to validate and test."""

    def make(**misc):
        changes = {"MODEL": {"kind": "tests.models.linear_model:COMMITTEE"}, "MISC": misc}
        folder = write_project(tmp_path, changes)
        settings = read_settings(folder)
        if not (folder / "restart").exists():
            made_up(folder)
        ensemble = kind_of_run(settings).build(settings, (1, 2), (1, 8))
        dataset = Dataset(tmp_path / "data")
        for k, labelled in enumerate(DATA):
            dataset.add(labelled, "train" if k < 6 else "valid" if k < 7 else "test")
        ensemble.train({m: MemberData(DATA[:6], DATA[6:7]) for m in (0, 1)}, 1)
        nothing = SimpleNamespace()
        return RunContext(
            settings=settings, folder=RunFolder(settings), dataset=dataset, ensemble=ensemble, systems=(),
            labeller=SimpleNamespace(calls=SimpleNamespace(finished=7)), journal=nothing, watch=nothing,
            display=nothing, reporter=nothing,
        )  # fmt: skip

    return make


def test_the_chosen_model_is_delivered_with_its_data_and_the_others_beside(run, caplog):
    caplog.set_level(logging.INFO)
    story = run(report=False)
    deliver(story, [1])
    results = story.folder.results
    one, other = (f"{m.name}.linear.npz" for m in story.ensemble.members)
    assert {p.name for p in results.iterdir()} == {
        other, "committee", "models.json", "predictions.npz", "training.xyz", "validation.xyz", "test.xyz",
    }  # fmt: skip
    assert {p.name for p in (results / "committee").iterdir()} == {one, "not_converged.txt"}
    recorded = json.loads((results / "models.json").read_text())["models"]
    for name in (other, f"committee/{one}"):
        assert recorded[name]["sha256"] == hashlib.sha256((results / name).read_bytes()).hexdigest()
        assert recorded[name]["title"] == "linear"
    files = {p.stem: len(list(read_extxyz(p))) for p in results.glob("*.xyz")}
    assert files == {"training": 6, "validation": 1, "test": 1}
    with np.load(results / "predictions.npz") as stored:
        assert stored["split"].tolist() == ["train"] * 6 + ["valid", "test"]
        alone = story.ensemble.potential([1]).labels([DATA[7].frame])[0]
        assert stored["energy"][7] == pytest.approx(alone.energy)
        members = [story.ensemble.potential([m]).labels([DATA[7].frame])[0].energy for m in (0, 1)]
        assert stored["energy_sd"][7] == pytest.approx(np.std(members))
    assert f"done: {other} and the final datasets are in {results}" in caplog.text
    assert "7 calculated since this start" in caplog.text


def test_a_delivery_is_under_way_until_its_report_is_written(run, monkeypatch):
    story = run(report=False)
    deliver(story, [0])
    assert step_under_way(story.folder.restart) == ""
    monkeypatch.setattr(results, "_report", lambda run: 1 / 0)
    story = run(report=True, md_test=0)
    with pytest.raises(ZeroDivisionError):
        deliver(story, [0])
    assert step_under_way(story.folder.restart) == REPORT


def test_isolated_atoms_count_in_no_error(run, caplog):
    caplog.set_level(logging.INFO)
    story = run(report=False)
    for number, split in ((8, "train"), (1, "valid")):
        atom = Frame(np.array([number]), np.zeros((1, 3)))
        story.dataset.add(LabelledFrame(atom, Label(-1000.0, np.zeros((1, 3))), {"system": "atom"}), split)
    deliver(story, [0])
    assert "2 isolated atoms only set the zero of energy; they are left out of the errors" in caplog.text
    assert "validation (1 frames)" in caplog.text
    with np.load(story.folder.results / "predictions.npz") as stored:
        assert stored["split"].tolist() == ["train"] * 6 + ["valid", "test"]
    assert len(list(read_extxyz(story.folder.results / "validation.xyz"))) == 2


def test_all_members_chosen_leave_no_committee(run):
    story = run(report=False)
    deliver(story, [0, 1])
    assert not (story.folder.results / "committee").exists()
    assert len(list(story.folder.results.glob("*.linear.npz"))) == 2


def test_a_member_that_is_no_longer_the_best_does_not_stay_among_the_delivered_models(run):
    story = run(report=False)
    results = story.folder.results
    first, second = (f"{m.name}.linear.npz" for m in story.ensemble.members)
    deliver(story, [0])
    (results / first).with_suffix(".md").write_text("card")
    (results / "of_the_user.model").write_text("x")
    deliver(story, [1])
    present = {
        str(p.relative_to(results)) for p in results.rglob("*") if p.suffix in (".npz", ".model", ".md")
    }
    assert present == {second, f"committee/{first}", "of_the_user.model", "predictions.npz"}
    assert load_run(story.folder.root, brief=True).results == (second,)


def test_a_test_set_that_was_trained_on_is_warned_about(run, tmp_path, caplog):
    write_extxyz(tmp_path / "mine.xyz", DATA[5:7])
    story = run(report=False, test_set="mine.xyz")
    deliver(story, [0])
    assert "mine.xyz: 1 of its 2 structures are the same as in results/training.xyz" in caplog.text
    with np.load(story.folder.results / "predictions.npz") as stored:
        assert stored["split"].tolist()[-2:] == ["test set"] * 2


def test_a_test_set_of_elements_the_models_do_not_know_is_refused(run, tmp_path):
    story = run(report=False)
    assert read_test_set(story.settings, story.ensemble) == []
    write_extxyz(tmp_path / "mine.xyz", DATA[:1])
    story = run(report=False, test_set="mine.xyz")
    assert [f.id for f in read_test_set(story.settings, story.ensemble)] == [DATA[0].id]
    story.ensemble.elements = (1, 6)
    with pytest.raises(SettingsError, match=r"mine\.xyz.*O"):
        read_test_set(story.settings, story.ensemble)


def test_at_the_end_of_a_stage_every_member_is_saved_with_its_state(run):
    story = run(report=False)
    save_models(story)
    for m, member in enumerate(story.ensemble.members):
        with np.load(story.folder.model / f"{member.name}.linear.npz") as stored:
            np.testing.assert_array_equal(stored["weights"], member.weights)
        arrays, remarks = unpack_arrays((story.folder.checkpoints / f"{member.name}.npy").read_bytes())
        assert remarks["name"] == member.name
        np.testing.assert_array_equal(arrays["weights"], story.ensemble.member_arrays(m)["weights"])
