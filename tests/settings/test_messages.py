"""One wrong key, in words."""

from __future__ import annotations

import doctest

import pytest
from pydantic import ValidationError

from aims_pax.samplers.filter_kinds.equilibration import EquilibrationSettings
from aims_pax.settings import messages
from aims_pax.settings.messages import in_words
from aims_pax.settings.samplers import FilterSettings


def said(model, raw, elsewhere=""):
    with pytest.raises(ValidationError) as caught:
        model.model_validate(raw)
    (detail,) = caught.value.errors(include_url=False)
    return in_words(detail, model, elsewhere)


def test_an_unknown_key_names_the_nearest_or_all_or_who_has_it():
    assert said(EquilibrationSettings, {"skpi": 3}) == "unknown key; nearest: skip"
    assert said(EquilibrationSettings, {"threshold": 3}) == "unknown key; known: skip"
    there = said(EquilibrationSettings, {"threshold": 3}, "it is a key of duplicates")
    assert there == "unknown key here; it is a key of duplicates"


def test_a_missing_key_says_what_it_is_for_and_a_wrong_value_what_is_possible():
    assert said(FilterSettings, {"settings": EquilibrationSettings()}).startswith("mandatory. ")
    assert said(EquilibrationSettings, {"skip": -1}).startswith("-1 is not possible; expected")
    assert said(EquilibrationSettings, {"skip": "many"})


def test_its_examples_are_true():
    assert doctest.testmod(messages) == (0, 1)
