"""INITIAL_DATASET_GENERATION: what its keys take."""

import pytest
from pydantic import ValidationError

from aims_pax.settings.initial_dataset import FactorySettings, InitialDatasetSettings


def test_foundational_is_the_old_name_of_mace_mp0():
    s = InitialDatasetSettings(n_points_per_sampling_step_idg=1, initial_sampling="foundational")
    assert s.initial_sampling == "mace-mp0"


def test_keyword_arguments_may_be_left_out_or_empty():
    assert FactorySettings(factory="a:b", kwargs=None).kwargs == {}
    with pytest.raises(ValidationError, match="expected a table"):
        FactorySettings(factory="a:b", kwargs=[1])
