"""One key: its type, its range, and what is said when a value does not fit."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from aims_pax.settings.fields import FieldInfo, Interval, Section, as_limit, as_text, as_whole, key
from aims_pax.settings.md import MDSettings
from aims_pax.settings.settings import MACE, PROJECT

EVERY_SECTION = [*PROJECT.values(), *MACE.values()]


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [("(0, 1]", [0.1, 1], [0, 1.1]), ("[1, inf)", [1, 1e9], [0, math.inf]), ("[1, inf]", [math.inf], [0.5])],
)
def test_an_interval_knows_its_ends(text, inside, outside):
    interval = Interval.read(text)
    assert all(v in interval for v in inside)
    assert not any(v in interval for v in outside)


def test_an_interval_is_told_in_words():
    assert Interval.read("(0, 100]").words("fs") == "more than 0 and at most 100 fs"
    assert Interval.read("[1, inf]").words("") == "at least 1"
    assert Interval.read("[0, inf)").words("eV") == "at least 0 eV"
    assert Interval.read("[0, inf)").words("", finite=True) == "at least 0 and finite"


def test_a_value_out_of_range_names_value_unit_and_expectation():
    with pytest.raises(
        ValidationError, match=r"0 fs is not possible; expected more than 0 and at most 100 fs"
    ):
        MDSettings(stat_ensemble="NVT", timestep=0)


@pytest.mark.parametrize("value", [True, "0.5", None, [1], {"a": 1}, math.nan])
def test_a_number_must_be_a_number(value):
    with pytest.raises(ValidationError, match="expected a number, got"):
        MDSettings(stat_ensemble="NVT", timestep=value)


def test_a_number_in_quotes_is_told_to_lose_them():
    with pytest.raises(ValidationError, match="remove the quotes"):
        MDSettings(stat_ensemble="NVT", timestep="1e-3")


def test_whole_numbers_may_be_written_with_an_exponent_but_not_with_a_fraction():
    assert as_whole(1e4) == 10_000
    assert type(as_whole(1e4)) is int
    for wrong in (1.5, math.inf):
        with pytest.raises(ValueError, match="expected a whole number"):
            as_whole(wrong)


def test_a_limit_is_a_whole_number_or_infinity():
    assert as_limit(math.inf) == math.inf
    assert as_limit(5.0) == 5
    with pytest.raises(ValueError, match="or inf for no limit"):
        as_limit(1.5)


def test_text_may_look_like_a_whole_number_but_not_like_a_truth_value():
    assert as_text(2025) == "2025"
    for wrong in (True, 1.5):
        with pytest.raises(ValueError, match="put it in quotes"):
            as_text(wrong)


def test_an_implausible_value_says_what_was_probably_meant():
    odd = dict(MDSettings(stat_ensemble="NVT", timestep=0.0005).oddities())
    assert odd["timestep"] == (
        "0.0005 fs is 2000 times smaller than usual; aims-PAX takes fs, did you mean 0.5 (0.0005 ps)?"
    )


def test_too_large_is_said_as_well():
    odd = dict(MDSettings(stat_ensemble="NVT", friction=1).oddities())
    assert odd["friction"] == (
        "1 fs⁻¹ is 1000 times larger than usual; aims-PAX takes fs⁻¹, did you mean 0.001 (1 ps⁻¹)?"
    )


def test_defaults_are_never_odd():
    for section in EVERY_SECTION:
        for name, field in section.model_fields.items():
            meaning = section.meaning(name)
            value = field.default
            if isinstance(value, int | float) and meaning.possible is not None:
                assert value in meaning.possible, name
            if isinstance(value, int | float) and not isinstance(value, bool) and value:
                assert meaning.implausible(value) is None, name


def test_every_key_has_prose():
    for section in EVERY_SECTION:
        for name, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{name}"
            assert field.description[0] != " "


def test_plausible_lies_within_possible():
    for section in EVERY_SECTION:
        for name in section.model_fields:
            meaning = section.meaning(name)
            if meaning.plausible and meaning.possible:
                assert meaning.plausible.low >= meaning.possible.low, name
                assert meaning.plausible.high <= meaning.possible.high, name
            if meaning.usual is not None:
                assert meaning.usual in meaning.plausible, name


def test_sections_are_frozen():
    md = MDSettings(stat_ensemble="NVT")
    with pytest.raises(ValidationError, match="frozen"):
        md.timestep = 1.0


class Everything(Section):
    n: float = key(1.0, "A number.", unit="K", possible="[0, 10]", plausible="[1, 5]", usual=2.0)


@given(st.floats(allow_nan=True) | st.integers() | st.text() | st.none() | st.lists(st.integers()))
def test_any_value_is_accepted_within_range_or_refused_with_words(value):
    try:
        section = Everything(n=value)
    except ValidationError:
        return
    assert 0 <= section.n <= 10
    list(section.oddities())


def test_a_meaning_without_a_plausible_range_finds_nothing_odd():
    assert FieldInfo().implausible(1e300) is None
