"""What active learning begins with."""

from types import SimpleNamespace

import numpy as np
from ase.build import molecule

from aims_pax.core import active_learning as stage
from aims_pax.core.rules import BELIEVED, ActiveLearningRules
from aims_pax.core.work import RunTraining, Trained
from aims_pax.dataset import Dataset
from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.stages.active_learning import (
    MEASURED,
    ActiveLearningEnvironment,
    _last_step,
    _sizes,
    new_points,
)
from aims_pax.systems import System

RULES = ActiveLearningRules(
    skip_step=5, c_x=0, valid_ratio=0.1, epochs_per_worker=1, epochs_per_visit=1, desired_acc=0.02
)


def started(names_in_origin):
    """Two isomers with six validation frames each, and active learning about to begin."""
    systems = [System(n, Frame.from_atoms(molecule(n))) for n in ("CH3CH2OH", "CH3OCH3")]
    rng, dataset = np.random.default_rng(0), Dataset()
    for k in range(BELIEVED + 2):
        system = systems[k % 2]
        frame = system.frame.moved(system.frame.positions + rng.normal(scale=0.05, size=(9, 3)))
        origin = {"system": system.name} if names_in_origin else {"system": frame.formula, "stage": "given"}
        dataset.add(LabelledFrame(frame, Label(0.0, np.zeros((9, 3))), origin), "valid")
    run = SimpleNamespace(dataset=dataset, systems=systems, ensemble=SimpleNamespace(members=[0, 1]))
    return _sizes(run)


def test_validation_frames_of_isomers_are_credited_to_their_own_system():
    for names_in_origin in (True, False):
        assert started(names_in_origin) == (0, {"CH3CH2OH": 6, "CH3OCH3": 6})


def test_so_desired_acc_is_believed_with_isomers():
    state = stage.begin(("CH3CH2OH", "CH3OCH3"), RULES, *started(True))
    training = stage.replace(state.trajectories[0], status="training", n_train=0)
    state = stage.replace(state, trajectories=(training, state.trajectories[1]))
    state, _ = stage.step(state, Trained(RunTraining(0, 1), 0, (0.1,), (0.01,)), RULES)
    assert state.stopped == "desired_acc: force MAE 10.0 meV/Å on the validation set"


def test_a_visit_on_a_random_subset_has_every_point_of_a_window():
    def settings(acquisition, per_window):
        return SimpleNamespace(acquisition=acquisition, labels_per_window=per_window)

    assert new_points(settings("window", 12), 4) == 12
    assert new_points(settings("window", 2), 4) == 4
    assert new_points(settings("window", None), 4) == 4
    assert new_points(settings("crossing", 12), 4) == 4


def test_the_step_of_a_line_that_a_crash_has_cut_is_not_read(tmp_path):
    path = tmp_path / "trajectory.xyz"
    assert _last_step(path) == 0
    whole = "1\nProperties=species:S:1:pos:R:3 step=1250 trajectory=0\nH 0 0 0\n"
    for cut in ("", "1\nProperties=species:S:1:pos:R:3 step=12", "1\nProperties=species:S:1:pos:R:3 step="):
        path.write_text(whole + cut)
        assert _last_step(path) == 1250
        path.write_text(whole + cut + "\n" + whole.replace("1250", "1300"))
        assert _last_step(path) == 1300
    path.write_bytes(whole.encode() + "system=Ä".encode()[:-1])
    assert _last_step(path) == 1250


class Committee:
    """Errors are a tenth of the first coordinate, spreads a hundredth."""

    members, has_spread = [0, 1], False

    def __len__(self):
        return 2

    def spreads_and_errors(self, labelled):
        xs = [one.frame.positions[0, 0] for one in labelled]
        return [(np.array([0.0, 0.01 * x]), np.array([[0.1 * x, 0, 0], [0, 0, 0]])) for x in xs]


def measuring(kind="max_atomic_sd", committee=None):
    """Active learning of a dataset of its own."""
    environment = object.__new__(ActiveLearningEnvironment)
    hydrogen = System("H2", Frame([1, 1], [[1.0, 0, 0], [2.0, 0, 0]]))
    environment.kind, environment.system_names = kind, {}
    environment.run = SimpleNamespace(
        dataset=Dataset(), systems=[hydrogen], ensemble=committee or Committee()
    )
    return environment


def hydrogen(x):
    return LabelledFrame(Frame([1, 1], [[x, 0, 0], [x + 1, 0, 0]]), Label(0.0, np.zeros((2, 3))))


def test_the_committee_is_measured_on_the_newest_validation_structures_that_no_member_learns():
    environment = measuring()
    assert environment.measured() == ()
    for k in range(MEASURED + 3):
        environment.run.dataset.add(hydrogen(1.0 + k), "valid")
    environment.run.dataset.add(hydrogen(2.0 + MEASURED), "train", 1)  # one member learns the last but one
    found = environment.measured()
    xs = [1.0 + k for k in (*range(2, MEASURED + 1), MEASURED + 2)]
    assert [m.frame for m in found] == [hydrogen(x).id for x in xs]
    assert [m.error for m in found] == [0.1 * x for x in xs]
    assert [m.spread for m in found] == [0.01 * x for x in xs]
    assert {m.system for m in found} == {"H2"}
    mean = measuring("mean_atomic_sd")
    mean.run.dataset.add(hydrogen(3.0), "valid")
    assert [m.spread for m in mean.measured()] == [0.015]


def test_of_each_system_some_are_measured_however_many_others_have():
    environment = measuring()
    environment.run.systems = [
        *environment.run.systems,
        System("He2", Frame([2, 2], [[1.0, 0, 0], [2.0, 0, 0]])),
    ]
    helium = LabelledFrame(Frame([2, 2], [[1.0, 0, 0], [2.0, 0, 0]]), Label(0.0, np.zeros((2, 3))))
    environment.run.dataset.add(helium, "valid")
    for k in range(2 * MEASURED):
        environment.run.dataset.add(hydrogen(1.0 + k), "valid")
    assert [m.system for m in environment.measured()] == ["He2"] + ["H2"] * (MEASURED // 2)


def test_a_structure_without_error_and_a_model_without_uncertainty_say_nothing():
    environment = measuring()
    environment.run.dataset.add(hydrogen(0.0), "valid")
    assert environment.measured() == ()
    alone = type("Alone", (Committee,), {"__len__": lambda self: 1})()
    environment = measuring(committee=alone)
    environment.run.dataset.add(hydrogen(1.0), "valid")
    assert environment.measured() == ()
