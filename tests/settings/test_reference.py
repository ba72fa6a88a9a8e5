"""REFERENCE: what its keys take."""

import pytest
from pydantic import ValidationError

from aims_pax.settings.reference import ReferenceSettings


def test_a_reference_that_names_a_factory_is_a_calculator():
    assert ReferenceSettings(factory="a:b").type == "calculator"
    assert ReferenceSettings().type == "aims"
    assert ReferenceSettings(type="aims", factory="a:b").type == "aims"


@pytest.mark.parametrize("word", ["xc", "occupation_type", "include_spin_orbit", "relax_geometry"])
def test_a_retry_with_a_keyword_that_changes_the_converged_label_is_refused(word):
    assert ReferenceSettings(retries=[{"charge_mix_param": 0.02}]).retries == ({"charge_mix_param": 0.02},)
    with pytest.raises(ValidationError, match=f"{word} defines the method"):
        ReferenceSettings(retries=[{"charge_mix_param": 0.02}, {word: "x"}])
