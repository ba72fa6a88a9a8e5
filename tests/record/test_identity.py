"""Changed settings on restart: shown, applied or refused."""

import copy

import pytest

from aims_pax.errors import RestartError
from aims_pax.record.identity import compare

SETTINGS = {
    "aimsPAX": {
        "ACTIVE_LEARNING": {"ensemble_size": 4, "max_MD_steps": 100.0, "initial_models": None},
        "MD": {"temperature": 300.0},
        "CLUSTER": {"max_workers": 2},
    },
    "mace": {"GENERAL": {"name_exp": "x", "seed": 1}, "ARCHITECTURE": {"r_max": 5.0}},
}


def changed(path, value):
    result = copy.deepcopy(SETTINGS)
    inner = result
    *tables, key = path.split(".")
    for table in tables:
        inner = inner[table]
    inner[key] = value
    return result


@pytest.fixture
def begun(folder):
    compare(folder, SETTINGS, "abc", {"water": "1"})
    return folder


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("aimsPAX.ACTIVE_LEARNING.max_MD_steps", 500.0),
        ("aimsPAX.MD.temperature", 500.0),
        ("aimsPAX.CLUSTER.max_workers", 8),
    ],
)
def test_harmless_changes_are_shown_and_apply(begun, caplog, path, value):
    with caplog.at_level("INFO"):
        compare(begun, changed(path, value), "abc", {"water": "1"})
    assert path in caplog.text
    assert f"→ {value}" in caplog.text
    caplog.clear()
    with caplog.at_level("INFO"):
        compare(begun, changed(path, value), "abc", {"water": "1"})
    assert caplog.text == ""


def test_of_a_list_of_tables_the_key_that_changed_is_shown(folder, caplog):
    def samplers(temperature):
        return changed("aimsPAX.SAMPLERS", [{"kind": "md"}, {"kind": "phonons", "temperature": temperature}])

    compare(folder, samplers(300.0), "abc", {})
    with caplog.at_level("INFO"):
        compare(folder, samplers(500.0), "abc", {})
    assert [r.getMessage() for r in caplog.records] == [
        "changed since the last run: aimsPAX.SAMPLERS.1.temperature: 300.0 → 500.0"
    ]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("mace.ARCHITECTURE.r_max", 6.0),
        ("mace.GENERAL.seed", 2),
        ("mace.GENERAL.name_exp", "y"),
        ("aimsPAX.ACTIVE_LEARNING.ensemble_size", 3),
        ("aimsPAX.ACTIVE_LEARNING.initial_models", ["a.model"]),
    ],
)
def test_what_would_mix_data_is_refused_with_the_way_out_and_nothing_is_written(begun, path, value):
    before = (begun.restart / "settings.json").read_text()
    with pytest.raises(RestartError, match=rf"{path}.*\n.*empty folder"):
        compare(begun, changed(path, value), "abc", {"water": "1"})
    assert (begun.restart / "settings.json").read_text() == before


def test_another_reference_method_is_refused(begun):
    with pytest.raises(RestartError, match="reference method"):
        compare(begun, SETTINGS, "def", {"water": "1"})


def test_another_structure_under_an_old_name_is_refused_an_added_one_is_not(begun):
    with pytest.raises(RestartError, match="geometry water"):
        compare(begun, SETTINGS, "abc", {"water": "2"})
    compare(begun, SETTINGS, "abc", {"water": "1", "methane": "5"})
    with pytest.raises(RestartError, match="geometry methane"):
        compare(begun, SETTINGS, "abc", {"water": "1", "methane": "6"})


def test_a_damaged_or_newer_record_says_what_to_do(begun):
    path = begun.restart / "settings.json"
    path.write_text("{")
    with pytest.raises(RestartError, match="remove it"):
        compare(begun, SETTINGS, "abc", {})
    path.write_text('{"format": 9}')
    with pytest.raises(RestartError, match="newer aims-PAX"):
        compare(begun, SETTINGS, "abc", {})
