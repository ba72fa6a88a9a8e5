"""aimsPAX.yaml: the shapes that keys of the project take."""

import pytest
from pydantic import ValidationError

from aims_pax.settings.project import (
    ActiveLearningSettings,
    FactorySettings,
    InitialDatasetSettings,
    MiscSettings,
    ReferenceSettings,
)


def test_foundational_is_the_old_name_of_mace_mp0():
    s = InitialDatasetSettings(n_points_per_sampling_step_idg=1, initial_sampling="foundational")
    assert s.initial_sampling == "mace-mp0"


@pytest.mark.parametrize("files", ["a.xyz", ["a.xyz", "b.xyz"]])
def test_geometries_are_a_path_or_a_list(files):
    kept = MiscSettings(path_to_geometry=files).path_to_geometry
    assert kept == (files if isinstance(files, str) else tuple(files))
    with pytest.raises(ValidationError, match="expected at least one"):
        MiscSettings(path_to_geometry=[])


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


def test_a_reference_that_names_a_factory_is_a_calculator():
    assert ReferenceSettings(factory="a:b").type == "calculator"
    assert ReferenceSettings().type == "aims"
    assert ReferenceSettings(type="aims", factory="a:b").type == "aims"


def test_keyword_arguments_may_be_left_out_or_empty():
    assert FactorySettings(factory="a:b", kwargs=None).kwargs == {}
    with pytest.raises(ValidationError, match="expected a table"):
        FactorySettings(factory="a:b", kwargs=[1])


@pytest.mark.parametrize("word", ["xc", "occupation_type", "include_spin_orbit", "relax_geometry"])
def test_a_retry_with_a_keyword_that_changes_the_converged_label_is_refused(word):
    assert ReferenceSettings(retries=[{"charge_mix_param": 0.02}]).retries == ({"charge_mix_param": 0.02},)
    with pytest.raises(ValidationError, match=f"{word} defines the method"):
        ReferenceSettings(retries=[{"charge_mix_param": 0.02}, {word: "x"}])
