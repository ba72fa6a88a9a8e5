"""The numbers of the stages, as the settings give them."""

import math

import pytest

from aims_pax.core.rules import ActiveLearningRules, InitialRules
from aims_pax.settings.active_learning import ActiveLearningSettings
from aims_pax.settings.initial_dataset import InitialDatasetSettings


def explore(trajectories=4, seed=1, **changes):
    given = {"desired_acc": 0.05, "num_trajectories": trajectories} | changes
    return ActiveLearningRules.read(ActiveLearningSettings(**given), trajectories, seed)


def test_the_accuracy_of_the_initial_dataset_is_scaled():
    keys = {"n_points_per_sampling_step_idg": 5, "max_initial_epochs": 7, "ensemble_size": 3}
    settings = InitialDatasetSettings(desired_acc=0.04, desired_acc_scale_idg=2.5, **keys)
    rules = InitialRules.read(settings, ["a", "b"])
    assert rules.desired_acc == pytest.approx(0.1)
    assert (rules.members, rules.systems, rules.n_points, rules.max_epochs) == (3, ("a", "b"), 5, 7)
    hash(rules)


def test_limits_that_are_not_set_are_infinite_and_none_is_no_limit():
    rules = explore()
    assert (rules.max_labels, rules.max_train, rules.freeze_at) == (math.inf,) * 3
    assert explore(max_labels=17).max_labels == 17
    assert (rules.n_test, rules.test_due, rules.test_trajectory) == (0, (), ())
    hash(rules)


@pytest.mark.parametrize(
    ("keys", "per_atom", "per_system"),
    [
        ({}, False, False),
        ({"uncertainty_type": "ensemble_sd"}, True, False),
        ({"threshold": "per_system"}, False, True),
    ],
)
def test_words_of_the_settings_become_decisions(keys, per_atom, per_system):
    rules = explore(**keys)
    assert (rules.per_atom, rules.per_system) == (per_atom, per_system)


def test_an_analysis_that_is_off_has_no_interval():
    assert explore(analysis=False, analysis_skip=30).analysis_skip == 0
    assert explore(analysis=True, analysis_skip=30).analysis_skip == 30


def test_each_test_frame_is_due_in_its_own_part_of_the_run_wherever_the_seed_puts_it():
    rules, other = explore(n_test=20), explore(n_test=20, seed=2)
    assert all(k / 20 <= due < (k + 1) / 20 for k, due in enumerate(rules.test_due))
    assert set(rules.test_trajectory) <= set(range(4))
    assert len(set(rules.test_trajectory)) == 4
    assert rules == explore(n_test=20)
    assert rules.test_due != other.test_due


def test_test_frames_wait_longer_where_a_trajectory_begins_at_the_geometry():
    settings = ActiveLearningSettings(num_trajectories=2)
    steps = [
        ActiveLearningRules.read(settings, 2, 1, 0.5, thermal).equilibration for thermal in (True, False)
    ]
    assert steps == [400, 2000]


@pytest.mark.parametrize(
    ("keys", "timestep", "steps"),
    [
        ({}, 0.5, 1000),
        ({}, 1.0, 500),
        ({}, 3.0, 250),
        ({"skip_step_mlff": 200}, 1.0, 2000),
        ({"window_steps": 30}, 0.5, 30),
    ],
)
def test_a_window_lasts_half_a_picosecond_and_at_least_ten_looks(keys, timestep, steps):
    settings = ActiveLearningSettings(num_trajectories=2, **keys)
    assert ActiveLearningRules.read(settings, 2, 1, timestep).window == steps
