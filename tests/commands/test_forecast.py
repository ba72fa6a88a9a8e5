"""The forecast of time and cost: what follows from its numbers, and what it does not pretend to know."""

import ase.io
import numpy as np
import pytest

from aims_pax.commands.forecast import forecast, reference_slots, stored_timings, write_forecast
from aims_pax.commands.plan import plan
from aims_pax.commands.plan_text import plan_lines
from aims_pax.commands.timings import Timings
from aims_pax.settings import read_settings
from aims_pax.settings.geometries import read_geometries
from tests.projects import write_project
from tests.worlds import rattled, water

TIMES = Timings(2.0, 3, 0.01, 0.005, 3, 1.0, {}, 100)


def ahead(folder, timings=TIMES, **changes):
    settings = read_settings(write_project(folder, changes))
    systems = read_geometries(settings)
    return forecast(plan(folder), settings, systems, timings), settings, systems


def test_ranges_are_ordered_and_the_whole_is_about_the_sum_of_its_stages(tmp_path):
    found, *_ = ahead(tmp_path)
    for span in (*found["stages_s"].values(), found["wall_s"], found["labels"], found["reference_s"]):
        assert span == sorted(span)
    middle = sum(s[1] for s in found["stages_s"].values())
    assert found["wall_s"][1] == pytest.approx(middle + 6, rel=0.25)
    assert found["wall_s"][2] > 1.1 * found["wall_s"][0]
    assert ahead(tmp_path)[0]["wall_s"] == found["wall_s"], "the draws are those of the seed"


def test_labels_of_twice_the_time_take_twice_as_long(tmp_path):
    one, *_ = ahead(tmp_path)
    two, *_ = ahead(tmp_path, Timings(4.0, 3, 0.01, 0.005, 3, 1.0, {}, 100))
    assert two["reference_s"] == pytest.approx(2 * np.array(one["reference_s"]), rel=1e-3)
    assert two["wall_s"][1] > one["wall_s"][1]


def test_copies_for_training_make_training_longer_and_ask_for_no_label(tmp_path):
    few, *_ = ahead(tmp_path)
    own = {"AUGMENTATION": {"kind": "gpr", "copies": 6, "min_labels": 2, "until_labels": 2000}}
    many, *_ = ahead(tmp_path, **own)
    assert many["labels"] == few["labels"]
    stage = "converge"
    assert 2 < many["stages_s"][stage][1] / few["stages_s"][stage][1] < 7
    said = "\n".join(plan_lines(plan(tmp_path)))
    assert "an epoch may cost up to 7 times as much while a member has 2 to 2000 training structures" in said


def test_longer_windows_mean_more_dynamics_for_as_many_labels(tmp_path):
    slow = Timings(0.001, 3, 0.00001, 0.05, 3, 1.0, {}, 100)  # nothing but MD costs anything
    seconds = []
    for window in (200, 1000):
        keys = {"max_labels": 30, "max_MD_steps": float("inf"), "window_steps": window}
        found, *_ = ahead(tmp_path / str(window), slow, ACTIVE_LEARNING=keys)
        assert found["labels"] == pytest.approx([36, 36, 36], rel=0.3)
        seconds.append(found["stages_s"]["explore"][1])
    assert seconds[1] == pytest.approx(5 * seconds[0], rel=0.05)


def test_labels_lie_within_the_plan(tmp_path):
    found, *_ = ahead(tmp_path, ACTIVE_LEARNING={"max_labels": 9, "max_MD_steps": 1_000_000})
    low, high = plan(tmp_path)["reference_calls"]
    assert low <= found["labels"][0] <= found["labels"][2] <= high


def test_a_run_without_a_limit_has_no_forecast_of_its_end_but_one_of_its_beginning(tmp_path):
    found, *_ = ahead(tmp_path, ACTIVE_LEARNING={"max_MD_steps": float("inf")})
    assert found["stages_s"]["initial"] is not None
    assert found["stages_s"]["explore"] is None
    assert found["wall_s"] is None
    assert found["labels"] is None


def test_without_the_time_of_a_label_only_the_numbers_are_known(tmp_path):
    found, *_ = ahead(tmp_path, Timings(None, 3, 0.01, 0.005, 3, 1.0, {}, 100))
    assert found["wall_s"] is None
    assert found["reference_s"] is None
    assert found["labels"] is not None


def test_stored_times_are_used_only_for_the_settings_they_were_measured_with(tmp_path):
    found, settings, systems = ahead(tmp_path)
    write_forecast(tmp_path / "logs", found)
    assert stored_timings(tmp_path / "logs", settings, systems) == TIMES
    assert plan(tmp_path)["forecast"]["wall_s"] == found["wall_s"]
    write_project(tmp_path, {"ACTIVE_LEARNING": {"max_MD_steps": 600}})
    assert plan(tmp_path)["forecast"]["wall_s"][1] > found["wall_s"][1], "limits are no matter of the times"
    write_project(tmp_path, mace={"ARCHITECTURE": {"num_channels": 8}})
    assert plan(tmp_path)["forecast"] is None
    other = read_settings(tmp_path)
    assert stored_timings(tmp_path / "logs", other, systems) is None


def test_cores_of_a_reference_calculation_come_from_the_launch_command(tmp_path):
    settings = read_settings(write_project(tmp_path))
    assert reference_slots(settings) == 1
    cluster = settings.cluster.model_copy(update={"launch_str": "srun -n 64 aims.x"})
    from dataclasses import replace

    assert reference_slots(replace(settings, cluster=cluster)) == 64
    header = "#SBATCH --nodes=2\n#SBATCH --ntasks-per-node=72"
    job = {"type": "slurm", "launch_str": "srun aims.x", "slurm_str": header}
    cluster = settings.cluster.model_copy(update=job)
    assert reference_slots(replace(settings, cluster=cluster)) == 144


def test_epochs_before_exploration_take_time(tmp_path):
    slow = Timings(0.001, 3, 1.0, 0.00001, 3, 1.0, {}, 100)  # nothing but training costs anything
    seconds = []
    for epochs in (0, 100):
        keys = {"epochs_before_exploration": epochs}
        found, *_ = ahead(tmp_path / str(epochs), slow, ACTIVE_LEARNING=keys)
        seconds.append(np.array(found["stages_s"]["explore"]))
    n = plan(tmp_path / "100")["active_learning"]["n_train"][1]
    more = seconds[1] - seconds[0]
    assert 0.3 * 1.2 * 100 * n < more[0] < more[2] < 3 * 1.2 * 100 * n
    assert "(at most 100 of them before exploration begins)" in "\n".join(plan_lines(plan(tmp_path / "100")))


def test_a_given_set_is_trained_on_to_the_end(tmp_path):
    seconds = []
    for n in (10, 80):
        folder = tmp_path / str(n)
        folder.mkdir()
        given = [f.to_atoms() for f in rattled(water(), n)]
        for atoms in given:
            atoms.info["REF_energy"], atoms.arrays["REF_forces"] = -1.0, np.zeros((3, 3))
        ase.io.write(folder / "given.xyz", given, format="extxyz")
        keys = {"initial_train_dataset": "given.xyz", "max_labels": 5, "epochs_before_exploration": 20}
        found, *_ = ahead(folder, INITIAL_DATASET_GENERATION=None, ACTIVE_LEARNING=keys)
        seconds.append([found["stages_s"][stage][1] for stage in ("explore", "converge")])
    few, many = np.array(seconds)
    assert (many > 3 * few).all()
