"""ACTIVE_LEARNING: what its keys take."""

import pytest
from pydantic import ValidationError

from aims_pax.settings.active_learning import ActiveLearningSettings


def test_one_initial_model_need_not_be_a_list():
    assert ActiveLearningSettings(num_trajectories=1, initial_models="a.model").initial_models == ("a.model",)


def test_datasets_are_a_path_or_a_map_from_member_to_path():
    s = ActiveLearningSettings(
        num_trajectories=1, initial_train_dataset="a.xyz", initial_valid_dataset={1: "b.xyz"}
    )
    assert (s.initial_train_dataset, s.initial_valid_dataset) == ("a.xyz", {"1": "b.xyz"})


def test_seeds_are_a_table_of_different_numbers():
    assert ActiveLearningSettings(num_trajectories=1, seeds_tags_dict={0: 5}).seeds_tags_dict == {"0": 5}
    for wrong in ({}, [1, 2], {"a": 1.5}, {"a": 1, "b": 1}):
        with pytest.raises(ValidationError):
            ActiveLearningSettings(num_trajectories=1, seeds_tags_dict=wrong)


def test_a_threshold_below_zero_is_impossible():
    with pytest.raises(ValidationError, match="expected at least -1"):
        ActiveLearningSettings(num_trajectories=1, c_x=-1.5)
    assert dict(ActiveLearningSettings(num_trajectories=1, c_x=-0.95).oddities())


def test_an_accuracy_in_mev_is_recognised():
    odd = dict(ActiveLearningSettings(num_trajectories=1, desired_acc=20).oddities())
    assert odd["desired_acc"].endswith("aims-PAX takes eV/Å, did you mean 0.02 (20 meV/Å)?")
