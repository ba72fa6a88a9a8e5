"""Whole runs through the command line: initial dataset → active learning → convergence → results."""

import csv
import re
import shutil
import signal
import subprocess
import sys
import time

import ase.io
import numpy as np
import pytest

from aims_pax.dataset import read_extxyz
from tests.projects import command, write_project
from tests.sweeps import thinned
from tests.worlds import LENNARD_JONES, cluster, crystal, slab, water


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One undisturbed run that everybody looks at."""
    folder = write_project(
        tmp_path_factory.mktemp("run"),
        {
            "ACTIVE_LEARNING": {
                "n_test": 2,
                "analysis": True,
                "analysis_skip": 20,
                "margin": 0.0,
                "max_convergence_epochs": 12,
            },
            "INITIAL_DATASET_GENERATION": {"analysis": True},
            "MISC": {"save_trajectories": 10, "report": True},
        },
    )
    done = command(folder=folder)
    assert done.returncode == 0, done.stderr + done.stdout
    return folder, done


def test_it_ends_well_and_says_where_the_results_are(finished):
    folder, done = finished
    assert "done: tiny_" in done.stdout
    assert str(folder / "results") in done.stdout.replace("\n", "")
    assert done.stderr == ""


def test_a_complete_run_names_the_limit_that_ended_it(tmp_path):
    learning = {"max_labels": 1, "converge_al": False}
    folder = write_project(tmp_path, {"ACTIVE_LEARNING": learning})
    assert command(folder=folder).returncode == 0
    said = command(folder=folder).stdout.replace("\n", " ")
    assert "To continue, raise ACTIVE_LEARNING.max_labels;" in said
    assert "max_MD_steps" not in said


def test_run_again_it_does_nothing_until_something_has_changed(finished, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder)

    def again(name="aims-PAX"):
        done = command(folder=folder, name=name)
        assert done.returncode == 0, done.stderr
        return "this run is complete and nothing has changed since" in done.stdout.replace("\n", " ")

    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert again()
    assert again("aims-PAX-al")
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    (model,) = (folder / "results").glob("*.model")
    content = model.read_bytes()
    model.unlink()
    assert not again(), "a result that is missing is made again"
    assert model.read_bytes() == content
    assert again()


def test_the_delivered_model_is_loadable_and_the_rest_of_the_committee_is_kept_apart(finished):
    from mace.calculators import MACECalculator

    folder, _ = finished
    (model,) = (folder / "results").glob("*.model")
    assert re.fullmatch(r"tiny_\d+\.model", model.name)
    (other,) = (folder / "results" / "committee").glob("*.model")
    assert other.name != model.name
    assert "not converged" in (folder / "results" / "committee" / "not_converged.txt").read_text()
    atoms = ase.io.read(folder / "geometries" / "water.xyz")
    atoms.calc = MACECalculator(model_paths=str(model), device="cpu", default_dtype="float32")
    assert np.isfinite(atoms.get_forces()).all()


def test_the_delivered_weights_are_those_of_the_best_validation_not_of_the_last_epoch(finished):
    from aims_pax.models import evaluate
    from aims_pax.models.mace import foundation

    folder, _ = finished
    (model,) = (folder / "results").glob("*.model")
    with open(folder / "losses" / f"{model.stem}.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["stage"] == "converge"]
    best = min(rows, key=lambda row: float(row["force_mae_eV_A"]))
    potential = foundation.load_foundation_model(str(model), "cpu", "float32", folder)
    table = evaluate.evaluate_potential(potential, list(read_extxyz(folder / "results" / "validation.xyz")))
    assert table.force_mae == pytest.approx(float(best["force_mae_eV_A"]), rel=2e-3)


def test_every_file_a_user_expects_is_there(finished):
    folder, _ = finished
    names = sorted(p.stem for p in (folder / "model").glob("*.model"))
    assert len(names) == 2
    for path in ("logs/initial_dataset.log", "logs/active_learning.log", "restart/journal.jsonl"):
        assert (folder / path).stat().st_size > 0
    for name in names:
        for stage in ("initial", "final"):
            for split in ("training", "validation"):
                assert list(read_extxyz(folder / "data" / stage / split / f"{name}.xyz"))
        assert (folder / "losses" / f"{name}.csv").exists()
        assert (folder / "checkpoints" / f"{name}.npy").exists()
    assert list((folder / "restart").rglob("*.npy"))
    for name in ("training", "validation", "test"):
        assert list(read_extxyz(folder / "results" / f"{name}.xyz"))
    (model,) = (folder / "results").glob("*.model")
    for path in (f"results/{model.stem}.md", "results/predictions.npz", "results/atomic_energies.json"):
        assert (folder / path).stat().st_size > 0
    assert "<svg" in (folder / "report.html").read_text()
    assert len(list((folder / "report").glob("*.png"))) > 5
    assert len((folder / "trajectories" / "observables_0.csv").read_text().splitlines()) > 5
    assert (folder / "analysis" / "predicted.jsonl").read_text().count("\n") > 2


def test_every_label_in_the_results_is_the_reference_s(finished):
    from ase.calculators.emt import EMT

    folder, _ = finished
    for name in ("training", "validation", "test"):
        for labelled in read_extxyz(folder / "results" / f"{name}.xyz"):
            atoms = labelled.frame.to_atoms()
            atoms.calc = EMT()
            assert labelled.label.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
            assert labelled.label.forces == pytest.approx(atoms.get_forces(), abs=1e-7)


def test_members_begin_with_slices_of_their_own_and_share_what_active_learning_adds(finished):
    folder, _ = finished
    initial = [{f.id for f in read_extxyz(p)} for p in sorted((folder / "data/initial/training").iterdir())]
    final = [{f.id for f in read_extxyz(p)} for p in sorted((folder / "data/final/training").iterdir())]
    assert not initial[0] & initial[1]
    assert final[0] - initial[0] == final[1] - initial[1] != set()


def test_test_frames_are_in_no_other_set(finished):
    folder, _ = finished
    sets = {
        n: {f.id for f in read_extxyz(folder / f"results/{n}.xyz")}
        for n in ("training", "validation", "test")
    }
    assert len(sets["test"]) == 2
    assert not sets["test"] & (sets["training"] | sets["validation"])
    assert not sets["training"] & sets["validation"]


def test_the_restart_holds_no_pickle(finished):
    folder, _ = finished
    for path in (folder / "restart").rglob("*.npy"):
        np.load(path, allow_pickle=False)


def test_trajectories_run_on_streams_of_their_own(finished):
    folder, _ = finished
    files = sorted((folder / "trajectories").glob("*.xyz"))
    assert len(files) == 3
    ends = [ase.io.read(f, index=0).positions for f in files]
    assert np.abs(ends[0] - ends[1]).max() > 1e-3
    steps = [a.info["step"] for a in ase.io.read(files[0], index=":")]
    assert steps == sorted(set(steps))


def test_analysis_compares_prediction_and_truth_every_analysis_skip_steps(finished):
    folder, _ = finished
    with open(folder / "analysis" / "analysis.csv") as file:
        rows = list(csv.DictReader(file))
    assert {int(float(r["step"])) for r in rows} == {20, 40, 60}
    assert len(rows) == 9
    with np.load(next((folder / "analysis").glob("trajectory_000/*.npz"))) as stored:
        error = stored["predicted_forces"].mean(axis=0) - stored["true_forces"]
        assert stored["force_mae"] == pytest.approx(np.abs(error).mean())
    with np.load(folder / "analysis" / "initial_losses.npz") as losses:
        assert losses["ensemble_losses"].shape == (2, len(losses["epoch"]))


def test_a_finished_run_says_so_and_does_nothing(finished):
    folder, _ = finished
    before = {p: p.read_bytes() for p in (folder / "results").rglob("*.model")}
    labels = sum(1 for _ in (folder / "data" / "labels").rglob("*.json"))
    again = command(folder=folder)
    assert again.returncode == 0
    assert "complete" in again.stdout
    assert sum(1 for _ in (folder / "data" / "labels").rglob("*.json")) == labels
    assert before.keys() == {p: 0 for p in (folder / "results").rglob("*.model")}.keys()


def test_the_two_halves_can_be_run_one_after_the_other(tmp_path):
    folder = write_project(tmp_path)
    too_early = command(folder=folder, name="aims-PAX-al")
    assert too_early.returncode == 2
    assert "aims-PAX-initial-ds" in too_early.stderr
    first = command(folder=folder, name="aims-PAX-initial-ds")
    assert first.returncode == 0, first.stderr
    assert not (folder / "results").exists()
    second = command(folder=folder, name="aims-PAX-al")
    assert second.returncode == 0, second.stderr
    assert list((folder / "results").glob("*.model"))


def test_a_crystal_a_molecule_and_a_slab_with_fixed_atoms_in_one_run(tmp_path):
    systems = {"copper": crystal("Cu"), "slab": slab("Al"), "water": water()}
    folder = write_project(tmp_path, {"ACTIVE_LEARNING": {"max_MD_steps": 40}}, systems=systems)
    done = command(folder=folder)
    assert done.returncode == 0, done.stderr
    start = slab("Al")
    fixed = start.fixed.all(axis=1)
    seen = set()
    for labelled in read_extxyz(folder / "results" / "training.xyz"):
        seen.add(labelled.origin["system"])
        if labelled.origin["system"] == "slab":
            assert np.array_equal(labelled.frame.positions[fixed], start.positions[fixed])
            assert np.abs(labelled.frame.positions[~fixed] - start.positions[~fixed]).max() > 0
            assert np.abs(labelled.label.forces[fixed]).max() > 0, (
                "labels are raw forces, also on fixed atoms"
            )
    assert seen == set(systems)


def test_ab_initio_md_samples_with_the_reference_and_pays_each_step_once(tmp_path):
    folder = write_project(
        tmp_path, {"INITIAL_DATASET_GENERATION": {"initial_sampling": "aimd", "initial_calculator": None}}
    )
    done = command(folder=folder, name="aims-PAX-initial-ds")
    assert done.returncode == 0, done.stderr


def test_active_learning_begins_from_the_user_s_own_data(tmp_path, finished):
    source, _ = finished
    for name in ("training", "validation"):
        text = (source / "results" / f"{name}.xyz").read_text().replace("REF_", "my_")
        tmp_path.joinpath(f"{name}.xyz").write_text(text)
    folder = write_project(
        tmp_path,
        {
            "INITIAL_DATASET_GENERATION": None,
            "ACTIVE_LEARNING": {
                "initial_train_dataset": "training.xyz",
                "initial_valid_dataset": "validation.xyz",
            },
            "MISC": {"energy_key": "my_energy", "forces_key": "my_forces", "stress_key": "my_stress"},
        },
    )
    done = command(folder=folder, name="aims-PAX-al")
    assert done.returncode == 0, done.stderr
    given = {f.id for f in read_extxyz(source / "results" / "training.xyz")}
    assert given < {f.id for f in read_extxyz(folder / "results" / "training.xyz")}


def test_active_learning_begins_from_the_user_s_own_models(tmp_path, finished):
    source, _ = finished
    models = [str(p) for p in sorted((source / "model").glob("*.model"))]
    folder = write_project(
        tmp_path, {"INITIAL_DATASET_GENERATION": None, "ACTIVE_LEARNING": {"initial_models": models}}
    )
    done = command(folder=folder, name="aims-PAX-al")
    assert done.returncode == 0, done.stderr


def interrupted(folder, until, number=signal.SIGINT, name="aims-PAX"):
    """Start a run, send a signal when the log says `until`; returns the exit code."""
    code = f"import sys; sys.argv[0] = {name!r}; from aims_pax.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    output = []
    for line in process.stdout:
        output.append(line)
        if until in line:
            time.sleep(0.2)
            process.send_signal(number)
            break
    output.append(process.communicate()[0])
    return process.returncode, "".join(output)


@pytest.mark.parametrize(
    "instants", thinned([["labelling"], ["training visit 2", "labelling", "convergence: "]], 2), ids=len
)
def test_ctrl_c_loses_nothing_and_the_result_is_that_of_an_undisturbed_run(tmp_path, instants):
    changes = {
        "INITIAL_DATASET_GENERATION": {"max_initial_epochs": 12},
        "ACTIVE_LEARNING": {
            "max_MD_steps": 100, "max_convergence_epochs": 40, "convergence_patience": 40, "final_training": "fresh",
        },
    }  # fmt: skip
    folder, other = write_project(tmp_path / "a", changes), write_project(tmp_path / "b", changes)
    for until in instants:
        code, output = interrupted(folder, until)
        assert code == 3, output
        assert "run the same command again" in output
    final = command(folder=folder)
    assert final.returncode == 0, final.stderr
    undisturbed = command(folder=other)
    assert undisturbed.returncode == 0, undisturbed.stderr
    for name in ("training.xyz", "validation.xyz"):
        assert (folder / "results" / name).read_text() == (other / "results" / name).read_text()
    import torch

    (a,), (b,) = ((f / "results").glob("*.model") for f in (folder, other))
    assert a.name == b.name
    one, two = (torch.load(p, weights_only=False).state_dict() for p in (a, b))
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_sigterm_asks_to_be_run_again(tmp_path):
    folder = write_project(tmp_path, {"ACTIVE_LEARNING": {"max_MD_steps": 2000}})
    code, output = interrupted(folder, "labelling", signal.SIGTERM)
    assert code == 75, output


def test_mistakes_are_one_clear_message_and_exit_code_2(tmp_path):
    folder = write_project(tmp_path, {"MD": {"tempreature": 300}})
    done = command(folder=folder)
    assert done.returncode == 2
    assert "temperature" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reference_that_is_not_installed_stops_before_anything_is_paid(tmp_path):
    folder = write_project(tmp_path, {"REFERENCE": {"factory": "not_there.at_all:Calculator"}})
    done = command(folder=folder)
    assert done.returncode in (1, 2)
    assert "not_there" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reference_that_always_fails_stops_with_the_reason(tmp_path):
    folder = write_project(tmp_path, {"REFERENCE": {"factory": "broken:Broken"}})
    (folder / "broken.py").write_text(
        "from ase.calculators.calculator import Calculator\n"
        "class Broken(Calculator):\n"
        "    implemented_properties = ['energy', 'forces']\n"
        "    def calculate(self, *args):\n"
        "        raise RuntimeError('licence expired')\n"
    )
    done = command(folder=folder)
    assert done.returncode == 1
    assert "licence expired" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("executor", thinned(["htex", "threads"], 2))
def test_lennard_jones_through_threads_and_processes(tmp_path, executor):
    folder = write_project(
        tmp_path,
        {
            "REFERENCE": LENNARD_JONES,
            "CLUSTER": {"executor": executor, "max_workers": 2, "training": {"workers": 0}},
            "INITIAL_DATASET_GENERATION": {"initial_calculator": LENNARD_JONES | {"type": None}},
            "ACTIVE_LEARNING": {"max_MD_steps": 20},
            "MD": {"temperature": 30},
        },
        systems={"argon": cluster()},
    )
    done = command(folder=folder)
    assert done.returncode == 0, done.stderr
    assert not (folder / "runinfo").exists()


@pytest.mark.parametrize(
    ("changes", "mace", "system", "word"),
    [
        ({}, {"MISC": {"device": "cuda"}}, None, "torch finds no GPU"),
        ({}, {}, "overlap", "geometry overlap"),
    ],
)
def test_what_can_be_known_before_anything_is_paid_is_a_settings_error(tmp_path, changes, mace, system, word):
    import torch

    if "device" in mace.get("MISC", {}) and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    start = water()
    systems = {system: start.moved(start.positions * 0.1)} if system else None
    folder = write_project(tmp_path, changes, mace, systems)
    done = command(folder=folder)
    assert done.returncode == 2, done.stderr
    assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_without_validation_data_a_share_of_the_given_structures_is_set_aside(tmp_path, finished):
    source, _ = finished
    pool = (source / "results" / "training.xyz").read_text()
    (tmp_path / "mine.xyz").write_text(pool)
    folder = write_project(
        tmp_path,
        {
            "INITIAL_DATASET_GENERATION": None,
            "ACTIVE_LEARNING": {"initial_train_dataset": "mine.xyz", "valid_ratio": 0.25, "max_MD_steps": 5},
        },
    )
    done = command(folder=folder, name="aims-PAX-al")
    assert done.returncode == 0, done.stderr
    n = len(list(read_extxyz(tmp_path / "mine.xyz")))
    aside = len(list(read_extxyz(folder / "results" / "validation.xyz")))
    assert abs(aside - n / 4) <= 2, "active learning itself labels at most a handful of frames in five steps"


def test_given_data_without_an_element_of_the_geometry_is_refused(tmp_path, finished):
    source, _ = finished
    (tmp_path / "mine.xyz").write_text((source / "results" / "training.xyz").read_text())
    folder = write_project(
        tmp_path,
        {"INITIAL_DATASET_GENERATION": None, "ACTIVE_LEARNING": {"initial_train_dataset": "mine.xyz"}},
        systems={"copper": crystal("Cu")},
    )
    done = command(folder=folder, name="aims-PAX-al")
    assert done.returncode == 2
    assert "Cu" in done.stderr


def test_a_refused_file_leaves_nothing_behind_and_a_good_one_may_take_its_place(tmp_path, finished):
    source, _ = finished
    good = (source / "results" / "training.xyz").read_text()
    (tmp_path / "good.xyz").write_text(good)
    (tmp_path / "bad.xyz").write_text(
        good + good.replace("REF_energy=", "REF_energy=nan was=").replace("frame_id", "old")
    )

    def begun(name):
        changes = {"initial_train_dataset": name, "max_MD_steps": 5, "max_convergence_epochs": 1}
        write_project(tmp_path, {"INITIAL_DATASET_GENERATION": None, "ACTIVE_LEARNING": changes})
        return command(folder=tmp_path, name="aims-PAX-al")

    refused = begun("bad.xyz")
    number = good.count("REF_energy=") + 1
    assert refused.returncode == 2
    assert f"bad.xyz, structure {number} (counted from 1): the energy is NaN" in refused.stderr
    assert not (tmp_path / "data" / "labelled.xyz").exists()
    done = begun("good.xyz")
    assert done.returncode == 0, done.stderr
    again = begun("bad.xyz")
    assert again.returncode != 0
    assert "the run began with the old files" in again.stderr


def test_a_test_set_that_cannot_be_used_is_said_before_anything_is_paid(tmp_path):
    (tmp_path / "mine.xyz").write_text("3\nREF_energy=-1\nO 0 0 0\n")
    done = command(folder=write_project(tmp_path, {"MISC": {"test_set": "mine.xyz"}}))
    assert done.returncode == 2
    assert (
        "mine.xyz, structure 1 (counted from 1): the file is incomplete: it ends after 1 of 3 atoms"
        in done.stderr
    )
    assert not (tmp_path / "data" / "labels").exists() or not any(
        (tmp_path / "data" / "labels").rglob("*.npy")
    )


def test_another_reference_method_in_the_same_folder_is_refused_and_a_raised_limit_goes_on(tmp_path):
    changes = {"ACTIVE_LEARNING": {"max_MD_steps": 10, "max_convergence_epochs": 2}}
    folder = write_project(tmp_path, changes)
    assert command(folder=folder).returncode == 0
    write_project(tmp_path, {**changes, "REFERENCE": {"kwargs": {"asap_cutoff": True}}})
    refused = command(folder=folder)
    assert refused.returncode != 0
    assert "REFERENCE.kwargs.asap_cutoff: not set → True: labels of two reference methods" in refused.stderr
    write_project(tmp_path, {"ACTIVE_LEARNING": {**changes["ACTIVE_LEARNING"], "num_trajectories": 2}})
    fewer = command(folder=folder)
    assert fewer.returncode == 1
    assert "ACTIVE_LEARNING.num_trajectories: 3 → 2: " in fewer.stderr
    assert "changed since the last run" not in fewer.stdout
    more = {"max_MD_steps": 30, "max_convergence_epochs": 2, "num_trajectories": 4}
    write_project(tmp_path, {"ACTIVE_LEARNING": more})
    extended = command(folder=folder)
    assert extended.returncode == 0, extended.stderr
    assert "max_MD_steps: 10 → 30" in extended.stdout
    assert "it continues" in extended.stdout


def lines_of(folder):
    return (folder / "logs" / "active_learning.log").read_text()


def test_single_members_may_drive_and_visits_may_see_a_part_and_the_temperature_may_rise(tmp_path):
    folder = write_project(
        tmp_path,
        {
            "ACTIVE_LEARNING": {
                "md_force": "member",
                "replay_strategy": "random_subset",
                "train_subset_size": 4,
                "valid_subset_size": 10,
                "max_MD_steps": 40,
            },
            "MD": {"temperature": [200, 500]},
        },
    )
    done = command(folder=folder)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "max_MD_steps: every trajectory took 40 steps" in lines_of(folder)


def test_a_crystal_under_pressure_moves_its_cell_and_is_labelled_with_stress(tmp_path):
    folder = write_project(
        tmp_path,
        {
            "MD": {"stat_ensemble": "NPT", "barostat": "Berendsen", "pressure_au": 6.24e-7},
            "ACTIVE_LEARNING": {"max_MD_steps": 20, "num_trajectories": 2, "uncert_not_crossed_limit": 5},
            "MISC": {"save_trajectories": 5},
        },
        {"GENERAL": {"compute_stress": True}, "TRAINING": {"stress_weight": 1000.0}},
        systems={"copper": crystal()},
    )
    done = command(folder=folder)
    assert done.returncode == 0, done.stderr + done.stdout
    frames = list(read_extxyz(folder / "results" / "training.xyz"))
    volumes = {round(float(np.linalg.det(f.frame.cell)), 6) for f in frames}
    assert len(volumes) > 3
    assert all(f.label.stress is not None for f in frames)


def test_members_train_and_trajectories_move_in_processes_of_their_own(tmp_path):
    folder = write_project(
        tmp_path,
        {
            "CLUSTER": {
                "executor": "threads", "max_workers": 1, "training": {"workers": 2}, "dynamics": {"workers": 2},
            },
            "ACTIVE_LEARNING": {"max_MD_steps": 40},
        },
    )  # fmt: skip
    done = command(folder=folder)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "training in 2 processes in parallel with the dynamics" in done.stdout
    assert "molecular dynamics in 2 processes" in done.stdout
    assert "max_MD_steps" in lines_of(folder)
    (model,) = (folder / "results").glob("*.model")
    assert command(folder=folder).returncode == 0  # complete: nothing to do
