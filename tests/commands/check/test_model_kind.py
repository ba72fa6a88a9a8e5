"""Whether the models can do what the other sections ask for."""

import pytest

from aims_pax.commands.check.model_kind import wrong_model_kind
from tests.settings.folders import MACE, PROJECT, read, with_key

HERE = "tests.models.linear_model"


def wrong(folder, kind, members=2, *keys, project=PROJECT):
    text = with_key(project, "MODEL", f"kind: {kind}", *keys)
    for section in ("INITIAL_DATASET_GENERATION", "ACTIVE_LEARNING"):
        text = with_key(text, section, f"ensemble_size: {members}")
    return list(wrong_model_kind(read(folder, text, MACE + "  compute_stress: True\n")))


def test_a_kind_that_has_what_the_run_needs_is_right(tmp_path):
    assert wrong(tmp_path, "mace") == []
    assert wrong(tmp_path, f"{HERE}:COMMITTEE") == []
    assert wrong(tmp_path, f"{HERE}:KIND", 1) == [], "it has an uncertainty of its own"


def test_one_member_without_an_uncertainty_is_refused(tmp_path):
    ((place, text),) = wrong(tmp_path, f"{HERE}:COMMITTEE", 1)
    assert place == ("ACTIVE_LEARNING", "ensemble_size")
    assert text.startswith("a single linear model has no uncertainty; use at least 2 members")


def test_constant_pressure_needs_the_stress_in_every_table_that_asks_for_it(tmp_path):
    pressure = PROJECT.replace("stat_ensemble: NVT", "stat_ensemble: NPT")
    ((place, text),) = wrong(tmp_path / "one", f"{HERE}:COMMITTEE", project=pressure)
    assert (place, text) == (
        ("MD", "stat_ensemble"), "NPT needs the stress, which linear models do not compute; use NVT"
    )  # fmt: skip
    each = PROJECT.replace("  stat_ensemble: NVT\n", "  a: {stat_ensemble: NPT}\n  b: {stat_ensemble: NVT}\n")
    ((place, _),) = wrong(tmp_path / "two", f"{HERE}:COMMITTEE", project=each)
    assert place == ("MD", "a", "stat_ensemble")


@pytest.mark.parametrize(
    ("kind", "key", "expected"),
    [
        ("macee", "kwargs: {}", (("MODEL", "kind"), "'macee' is not a kind of model; nearest: mace")),
        ("mace", "kwargs: {r_max: 5}", (("MODEL", "kwargs"), "MACE takes none, got r_max")),
        (f"{HERE}:KIND", "kwargs: {rigde: 1}", (("MODEL", "kwargs", "rigde"), "unknown key; nearest: ridge")),
    ],
)
def test_a_mistake_in_the_section_is_told_at_its_key(tmp_path, kind, key, expected):
    ((place, text),) = wrong(tmp_path, kind, 2, key)
    assert place == expected[0]
    assert text.startswith(expected[1])


def test_models_that_cannot_begin_from_files_are_not_given_any(tmp_path):
    for name in ("a.model", "b.model"):
        (tmp_path / name).touch()
    given = PROJECT.replace("ACTIVE_LEARNING:\n", "ACTIVE_LEARNING:\n  initial_models: [a.model, b.model]\n")
    found = wrong(tmp_path, f"{HERE}:COMMITTEE", 2, project=given)
    assert [place for place, _ in found] == [("ACTIVE_LEARNING", "initial_models")]
    assert "linear models cannot begin from files" in found[0][1]
