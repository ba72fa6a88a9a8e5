"""What active learning begins with."""

from types import SimpleNamespace

import numpy as np
from ase.build import molecule

from aims_pax.core import active_learning as stage
from aims_pax.core.rules import BELIEVED, ExploreRules
from aims_pax.core.work import RunTraining, Trained
from aims_pax.dataset import Dataset
from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.stages.active_learning import _sizes, fair_or_all
from aims_pax.systems import System

RULES = ExploreRules(
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


def test_a_system_whose_trajectories_are_all_hot_or_biased_is_judged_by_them():
    names = ["a", "b", "a", "b"]
    assert fair_or_all(names, [False, False, True, False]) == (1, 2, 3)
    assert fair_or_all(names, [True, False, True, True]) == (0, 2, 3)
    assert fair_or_all(names, [False] * 4) == (0, 1, 2, 3)
