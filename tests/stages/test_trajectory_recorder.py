"""What is written down along a trajectory."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from aims_pax.frames import Frame, Label
from aims_pax.md import MDState
from aims_pax.md.propagate import MDOutcome
from aims_pax.potential import Evaluation
from aims_pax.record.folder import RunFolder
from aims_pax.stages.trajectory_recorder import TrajectoryRecorder, shortest_distance
from tests.worlds import crystal, water


@pytest.fixture
def folder(tmp_path):
    return RunFolder(
        SimpleNamespace(
            folder=tmp_path,
            path=lambda p: tmp_path / p,
            misc=SimpleNamespace(dataset_dir="data", log_dir="logs"),
            model=SimpleNamespace(checkpoints_dir="c", loss_dir="l", model_dir="m"),
        )
    )


def moved(frame, step):
    state = MDState.start(frame, 300.0, 7, step)
    return MDOutcome(state, Evaluation(np.array([-1.0, -3.0]), np.zeros((2, len(frame), 3))))


def test_a_line_a_look_and_steps_taken_again_are_not_written_twice(folder):
    frame = water()
    observer = TrajectoryRecorder(folder, 2)
    for step in (10, 20):
        observer.record(1, moved(frame, step), frame)
    again = TrajectoryRecorder(folder, 2)
    again.record(1, moved(frame, 20), frame)
    again.record(1, moved(frame, 30), frame)
    lines = (folder.trajectories / "observables_1.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["step", "10", "20", "30"]
    _, temperature, energy, distance, volume = lines[1].split(",")
    assert float(temperature) == pytest.approx(moved(frame, 10).state.temperature)
    assert (float(energy), volume) == (-2.0, "")
    assert float(distance) == pytest.approx(shortest_distance(frame))
    assert not (folder.trajectories / "observables_0.csv").exists()


def test_a_torn_last_line_is_not_taken_for_a_step(folder):
    folder.append_text(folder.trajectories / "observables_0.csv", "step,t,e,s,v\n10,1,2,3,\n2000")
    assert TrajectoryRecorder(folder, 1).written == [10]


def test_the_shortest_distance_sees_images_and_a_lone_atom_has_none():
    tight = Frame([29], [[0, 0, 0]], [[2.2, 0, 0], [0, 9, 0], [0, 0, 9]], [True] * 3)
    assert shortest_distance(tight) == pytest.approx(2.2)
    assert np.isnan(shortest_distance(Frame([1], [[0, 0, 0]])))
    x = crystal().positions
    assert shortest_distance(crystal()) <= np.linalg.norm(x[1] - x[0]) + 1e-9


def test_prediction_and_answer_stand_side_by_side(folder):
    forces = np.array([[0.1, 0, 0], [0, 0, 0], [0, -0.3, 0.0]])
    TrajectoryRecorder(folder, 1).record_error("abc", 0, 20, 5, 0.07, forces, Label(0.0, np.zeros((3, 3))))
    row = json.loads((folder.analysis / "predicted.jsonl").read_text())
    assert row["force_mae"] == pytest.approx(0.4 / 9)
    assert row["max_force_error"] == pytest.approx(0.3)
    assert (row["frame"], row["n_train"], row["uncertainty"]) == ("abc", 5, 0.07)


def test_a_slab_without_a_third_lattice_vector_has_a_shortest_distance():
    vectors = [[2.5, 0, 0], [0, 2.6, 0], [0, 0, 0]]
    slab = Frame([29, 29], [[0, 0, 0], [1.2, 1.3, 40.0]], vectors, [True, True, False])
    assert shortest_distance(slab) == pytest.approx(2.5)
    wire = Frame(
        [29, 29], [[0, 0, 0], [0, 2.1, 0]], [[0, 0, 0], [0, 0, 0], [0, 0, 2.4]], [False, False, True]
    )
    assert shortest_distance(wire) == pytest.approx(2.1)
