"""Members that learn from free labels first: where these labels are, and where they are not."""

import csv
import json

import numpy as np
import pytest

from aims_pax.dataset import read_extxyz
from aims_pax.settings import dump, read_settings
from aims_pax.settings.pretraining import PretrainingSettings
from tests.projects import command, write_project

TEACHER = '''
from ase.calculators.emt import EMT

class Teacher(EMT):
    """EMT with another zero of energy and weaker forces."""
    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        for name in ("energy", "free_energy"):
            self.results[name] = 0.8 * self.results[name] - 7.0 * len(self.atoms)
        self.results["forces"] = 0.8 * self.results["forces"]
'''
FREE = {"potential": {"factory": "teacher:Teacher"}, "n_frames": 30, "skip_step": 5, "max_epochs": 5}
SHORT = {"INITIAL_DATASET_GENERATION": {"max_initial_epochs": 2}, "ACTIVE_LEARNING": {"max_MD_steps": 10}}


def project(folder, **changes):
    write_project(folder, {"PRETRAINING": {**FREE, **changes}, "MISC": {"report": True}, **SHORT})
    (folder / "teacher.py").write_text(TEACHER)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = project(tmp_path_factory.mktemp("free"))
    done = command(folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def test_free_labels_are_never_among_those_of_the_reference(run):
    folder, _ = run
    free = list(read_extxyz(folder / "data/pretraining/labelled.xyz"))
    assert len(free) == 30
    assert {one.origin["source"] for one in free} == {"pre-training"}
    paid = list(read_extxyz(folder / "data/labelled.xyz"))
    assert {one.origin["source"] for one in paid} == {"reference"}
    assert {one.id for one in free}.isdisjoint({one.id for one in paid})
    stored = [p for p in folder.glob("data/labels/*/*.json") if p.name != "method.json"]
    assert {p.stem for p in stored} == {one.id for one in paid}


def test_a_free_label_is_that_of_the_cheap_potential(run, monkeypatch):
    folder, _ = run
    monkeypatch.syspath_prepend(str(folder))
    from teacher import Teacher

    for one in list(read_extxyz(folder / "data/pretraining/labelled.xyz"))[:3]:
        atoms = one.frame.to_atoms()
        atoms.calc = Teacher()
        assert one.label.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
        np.testing.assert_allclose(one.label.forces, atoms.get_forces(), atol=1e-6)


def test_counts_and_card_keep_free_and_paid_labels_apart(run):
    folder, said = run
    n = len(list(read_extxyz(folder / "data/labelled.xyz")))
    assert f"{n} labels:" in said
    assert "30 structures with free labels from teacher:Teacher()" in said
    card = next((folder / "results").glob("*.md")).read_text()
    assert "| pre-trained on | 30 structures with free labels from teacher:Teacher() |" in card


def test_the_first_epoch_on_the_reference_begins_with_what_was_learnt(run):
    """The zero of energy differs by 42 eV; it is fitted before the first epoch, so the loss does not jump."""
    folder, _ = run
    with open(next((folder / "losses").glob("*.csv")), encoding="utf-8") as file:
        rows = [(row["stage"], float(row["train_loss"])) for row in csv.DictReader(file)]
    free = [loss for stage, loss in rows if stage == "pretrain"]
    first = next(loss for stage, loss in rows if stage == "initial")
    assert len(free) == 10 / 2
    assert first < free[0]


def test_the_learning_rate_afterwards_is_small_unless_it_is_written(tmp_path):
    settings = read_settings(project(tmp_path / "a"))
    assert (settings.mace.training.lr, settings.pretraining.lr) == (0.002, 0.01)
    write_project(tmp_path / "b", {"PRETRAINING": FREE}, {"TRAINING": {"lr": 0.03}})
    assert read_settings(tmp_path / "b").mace.training.lr == 0.03


def test_the_settings_can_be_written_and_read_again(tmp_path):
    folder = project(
        tmp_path,
        samplers=[{"kind": "rattle_tree", "temperature": 300, "filters": ["sanity"]}, {"kind": "md"}],
    )
    settings = read_settings(folder)
    assert [s.kind for s in settings.pretraining.sources] == ["rattle_tree", "md"]
    assert {s.potential["factory"] for s in settings.pretraining.sources} == {"teacher:Teacher"}
    import yaml

    both = yaml.safe_load(dump(settings))
    for name, section in (("aimsPAX", both["aimsPAX"]), ("mace", both["mace"])):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(section, sort_keys=False))
    assert read_settings(folder).pretraining == settings.pretraining


def test_labels_of_the_reference_are_refused_as_free(tmp_path):
    folder = project(tmp_path, samplers=[{"kind": "aimd"}])
    done = command("check", folder=folder)
    assert done.returncode == 2
    assert "PRETRAINING.samplers.0: aimd makes structures with the reference" in done.stdout + done.stderr


def test_a_changed_pretraining_is_refused_in_a_begun_folder(run):
    folder, _ = run
    text = (folder / "aimsPAX.yaml").read_text()
    (folder / "aimsPAX.yaml").write_text(text.replace("n_frames: 30", "n_frames: 40"))
    try:
        done = command(folder=folder)
    finally:
        (folder / "aimsPAX.yaml").write_text(text)
    assert done.returncode == 1
    assert "PRETRAINING.n_frames" in done.stdout + done.stderr


def test_the_report_shows_pretraining_as_stages_of_its_own(run):
    folder, _ = run
    done = command("status", "--json", folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    now = json.loads(done.stdout)
    assert now["labels"]["done"] == len(list(read_extxyz(folder / "data/labelled.xyz")))


def test_the_structures_come_from_four_trajectories_of_all_geometries_together(run):
    folder, _ = run
    free = list(read_extxyz(folder / "data/pretraining/labelled.xyz"))
    assert {one.origin["trajectory"] for one in free} == {0, 1, 2, 3}


@pytest.mark.parametrize(("systems", "each"), [(1, 4), (2, 2), (3, 1), (9, 1)])
def test_trajectories_are_shared_out_among_the_geometries_and_repeated_at_each_temperature(systems, each):
    asked = PretrainingSettings(potential={"factory": "a:B"}, temperature=[300, 500])
    sources = asked.sources_of(systems)
    assert [(s.temperature, s.num_trajectories) for s in sources] == [(300, each), (500, each)]


def test_half_of_the_structures_are_hotter_than_the_run_unless_temperatures_are_set():
    free = {"potential": {"factory": "ase.calculators.emt:EMT"}}
    cold, hot = PretrainingSettings(**free).sources_of(1)
    assert (cold.temperature, cold.temperature_factor) == (None, 1.0)
    assert (hot.temperature, hot.temperature_factor) == (None, 1.5)
    (only,) = PretrainingSettings(**free, temperature=400).sources_of(1)
    assert (only.temperature, only.temperature_factor) == (400, 1.0)
