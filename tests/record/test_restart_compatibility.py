"""Changed settings on restart: shown, applied or refused."""

import copy
import json

import pytest

from aims_pax.errors import RestartError
from aims_pax.frames import Frame
from aims_pax.record.restart_compatibility import as_begun, compare_with_last_run, remember_settings
from aims_pax.systems import System

SETTINGS = {
    "aimsPAX": {
        "ACTIVE_LEARNING": {"ensemble_size": 4, "max_MD_steps": 100.0, "initial_models": None},
        "MD": {"temperature": 300.0},
        "CLUSTER": {"max_workers": 2},
    },
    "mace": {"GENERAL": {"name_exp": "x", "seed": 1}, "ARCHITECTURE": {"r_max": 5.0}},
}

XTB = {"factory": "tblite.ase:TBLite"}


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
    compare_with_last_run(folder, SETTINGS, "abc", {"water": "1"})
    folder.write_text(folder.data / "splits.jsonl", '["0", "train", 0]\n')
    return folder


def test_the_files_to_begin_with_may_change_until_they_are_taken_in(folder):
    key = "aimsPAX.ACTIVE_LEARNING.initial_models"
    compare_with_last_run(folder, SETTINGS, "abc", {})
    compare_with_last_run(folder, changed(key, ["a.model"]), "abc", {})
    folder.write_text(folder.restart / "explore" / "state-000001.npy", "")
    with pytest.raises(RestartError, match="the run began with the old files"):
        compare_with_last_run(folder, changed(key, ["b.model"]), "abc", {})


def test_before_any_data_the_other_differences_are_refused_all_the_same(folder):
    compare_with_last_run(folder, SETTINGS, "abc", {})
    folder.write_text(folder.data / "splits.jsonl", "")
    with pytest.raises(RestartError, match="members are named after their seeds"):
        compare_with_last_run(folder, changed("mace.GENERAL.seed", 2), "abc", {})


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
        compare_with_last_run(begun, changed(path, value), "abc", {"water": "1"})
    assert path in caplog.text
    assert f"→ {value}" in caplog.text
    caplog.clear()
    with caplog.at_level("INFO"):
        compare_with_last_run(begun, changed(path, value), "abc", {"water": "1"})
    assert caplog.text == ""


def test_of_a_list_of_tables_the_key_that_changed_is_shown(folder, caplog):
    def samplers(temperature):
        return changed("aimsPAX.SAMPLERS", [{"kind": "md"}, {"kind": "phonons", "temperature": temperature}])

    compare_with_last_run(folder, samplers(300.0), "abc", {})
    with caplog.at_level("INFO"):
        compare_with_last_run(folder, samplers(500.0), "abc", {})
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
        compare_with_last_run(begun, changed(path, value), "abc", {"water": "1"})
    assert (begun.restart / "settings.json").read_text() == before


def test_another_reference_method_is_refused(begun):
    with pytest.raises(RestartError, match="reference method: abc → def"):
        compare_with_last_run(begun, SETTINGS, "def", {"water": "1"})


def described(folder, method, **description):
    path = folder.data / "labels" / method / "method.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"method": method, **description}))


def refusal(folder, settings, method):
    with pytest.raises(RestartError) as refused:
        compare_with_last_run(folder, settings, method, {"water": "1"})
    return str(refused.value)


def test_another_method_is_refused_key_by_key(begun):
    described(begun, "abc", factory="m:f", kwargs={"method": "GFN1-xTB"}, source="1")
    described(begun, "def", factory="m:f", kwargs={"method": "GFN2-xTB", "charge": 1}, source="2")
    (begun.data / "labelled.xyz").touch()
    said = refusal(begun, SETTINGS, "def")
    assert "  REFERENCE.kwargs.method: GFN1-xTB → GFN2-xTB: labels of two reference methods" in said
    assert "  REFERENCE.kwargs.charge: not set → 1: " in said
    assert "  the module of REFERENCE.factory: changed contents: " in said
    assert "m:f" not in said
    assert "abc" not in said
    assert "label this data again with the new method: aims-PAX-recalc data/labelled.xyz" in said


def test_another_control_in_is_refused_with_its_keywords(begun):
    described(begun, "abc", control=[["xc", "pbe"], ["k_grid", 1, 1, 1], ["output", "a"], ["output", "b"]])
    described(begun, "def", control=[["xc", "pbe0"], ["k_grid", 1, 1, 1], ["output", "a"], ["output", "c"]])
    said = refusal(begun, SETTINGS, "def")
    assert "control.in: xc: pbe → pbe0" in said
    assert "control.in: output: a | b → a | c" in said
    assert "k_grid" not in said


def test_without_the_descriptions_the_settings_tell_the_method(folder):
    def reference(method):
        return changed("aimsPAX.REFERENCE", {"kwargs": {"method": method}, "retries": 2})

    compare_with_last_run(folder, reference("one"), "abc", {"water": "1"})
    said = refusal(folder, reference("two"), "def")
    assert "  REFERENCE.kwargs.method: one → two: " in said
    assert "retries" not in said


def test_only_another_method_is_mended_by_labelling_again(begun):
    assert "label this data again" not in refusal(begun, changed("mace.ARCHITECTURE.r_max", 6.0), "abc")


def test_another_structure_under_an_old_name_is_refused_an_added_one_is_not(begun):
    with pytest.raises(RestartError, match="geometry water"):
        compare_with_last_run(begun, SETTINGS, "abc", {"water": "2"})
    compare_with_last_run(begun, SETTINGS, "abc", {"water": "1", "methane": "5"})
    with pytest.raises(RestartError, match="geometry methane"):
        compare_with_last_run(begun, SETTINGS, "abc", {"water": "1", "methane": "6"})


def test_a_damaged_or_newer_record_says_what_to_do(begun):
    path = begun.restart / "settings.json"
    path.write_text("{")
    with pytest.raises(RestartError, match="remove it"):
        compare_with_last_run(begun, SETTINGS, "abc", {})
    path.write_text('{"format": 9}')
    with pytest.raises(RestartError, match="newer aims-PAX"):
        compare_with_last_run(begun, SETTINGS, "abc", {})


def test_a_run_of_a_version_that_lost_masses_and_zero_moments_goes_on_with_its_structures(folder, caplog):
    """Their ids are in its labels, dataset and journal."""
    positions = [[0, 0, 0], [0, 0, 1.2]]
    old = Frame([8, 8], positions, moments=[2, 0])
    new = Frame([8, 8], positions, moments=[2, 0], zero_moments=[False, True], masses=[18, 16])
    compare_with_last_run(folder, SETTINGS, "abc", {"o2": old.id, "other": "1"})
    (system, fresh) = as_begun(folder, (System("o2", new), System("fresh", new)))
    assert system.frame == old
    assert fresh.frame == new
    assert "initial moments of zero and masses" in caplog.text
    compare_with_last_run(folder, SETTINGS, "abc", {"o2": system.frame.id})
    (moved,) = as_begun(folder, (System("o2", new.moved(new.positions + 1)),))
    with pytest.raises(RestartError, match="structure under this name has changed"):
        compare_with_last_run(folder, SETTINGS, "abc", {"o2": moved.frame.id})


def test_files_of_a_calculator_that_an_earlier_version_did_not_record_are_taken_as_they_are(begun):
    described(begun, "abc", kwargs={"model": "a.pt"}, source=None)
    described(begun, "def", kwargs={"model": "a.pt"}, source=None, contents={"a.pt": "123"})
    compare_with_last_run(begun, SETTINGS, "def", {"water": "1"})
    described(begun, "ghi", kwargs={"model": "a.pt"}, source=None, contents={"a.pt": "456"})
    said = refusal(begun, SETTINGS, "ghi")
    assert "a.pt, which the reference is built from: changed contents" in said


def test_labels_of_charged_structures_that_an_earlier_version_computed_as_neutral_are_not_gone_on_with(begun):
    described(begun, "abc", kwargs={}, source=None)
    described(begun, "def", kwargs={}, source=None, electrons={"charge": "charge", "spin": "multiplicity"})
    assert "REFERENCE.electrons.charge: not set → charge" in refusal(begun, SETTINGS, "def")


@pytest.mark.parametrize(
    ("path", "before", "after"),
    [
        ("mace.ARCHITECTURE.atomic_energies", None, {1: -13.6, 8: -2043.2}),
        ("mace.ARCHITECTURE.atomic_energies", "reference", {1: -13.6, 8: -2043.2}),
        ("mace.ARCHITECTURE.atomic_energies", {1: -13.6}, {1: -13.6, 8: -2043.2}),
        ("aimsPAX.ACTIVE_LEARNING.seeds_tags_dict", None, {"a": 1, "b": 2}),
        ("aimsPAX.ACTIVE_LEARNING.initial_train_dataset", "a.xyz", {"a": "a.xyz"}),
        ("aimsPAX.MODEL", {"kind": "gp", "kwargs": {}}, {"kind": "gp", "kwargs": {"noise": 0.1}}),
        ("aimsPAX.PRETRAINING", {"potential": XTB}, {"potential": "so3lr"}),
        ("aimsPAX.PRETRAINING", {"potential": "so3lr"}, {"potential": XTB}),
        ("aimsPAX.PRETRAINING", {"potential": XTB}, {"potential": XTB | {"kwargs": {"method": "GFN2-xTB"}}}),
        ("mace.FOUNDATION", {"model": XTB | {"kwargs": {}}}, {"model": XTB | {"kwargs": {"size": "small"}}}),
    ],
)
def test_a_table_that_was_not_there_or_had_other_keys_is_a_change(folder, path, before, after):
    compare_with_last_run(folder, changed(path, before), "abc", {"water": "1"})
    folder.write_text(folder.data / "splits.jsonl", '["0", "train", 0]\n')
    compare_with_last_run(folder, changed(path, before), "abc", {"water": "1"})
    assert f"  {path}" in refusal(folder, changed(path, after), "abc")


def test_pre_training_that_is_added_to_a_begun_run_or_taken_away_is_refused(begun):
    section = changed("aimsPAX.PRETRAINING", {"n_frames": 100, "max_epochs": 50})
    assert "aimsPAX.PRETRAINING.n_frames: none → 100: " in refusal(begun, section, "abc")
    (begun.restart / "settings.json").unlink()
    compare_with_last_run(begun, section, "abc", {"water": "1"})
    assert "aimsPAX.PRETRAINING.n_frames: 100 → none: " in refusal(begun, SETTINGS, "abc")


def test_a_geometry_with_another_element_is_refused_once_there_are_data(folder):
    compare_with_last_run(folder, SETTINGS, "abc", {"water": "1"})  # by a version that did not record them
    compare_with_last_run(folder, SETTINGS | {"elements": "H O"}, "abc", {"water": "1"})
    compare_with_last_run(folder, SETTINGS | {"elements": "H C O"}, "abc", {"water": "1", "methane": "2"})
    folder.write_text(folder.data / "splits.jsonl", '["0", "train", 0]\n')
    said = refusal(folder, SETTINGS | {"elements": "H C N O"}, "abc")
    assert "  elements: H C O → H C N O: the models are made for the elements of the geometries" in said


def test_another_kind_of_model_is_refused_also_where_none_was_written(folder):
    compare_with_last_run(folder, SETTINGS, "abc", {})  # by a version that knew MACE alone
    other = copy.deepcopy(SETTINGS)
    other["aimsPAX"]["MODEL"] = {"kind": "gp", "kwargs": {}}
    with pytest.raises(RestartError, match=r"MODEL\.kind: mace → gp: .* belong to models of another kind"):
        compare_with_last_run(folder, other, "abc", {})
    other["aimsPAX"]["MODEL"]["kind"] = "mace"
    compare_with_last_run(folder, other, "abc", {})


def test_the_settings_of_a_label_have_the_name_they_had_before_there_were_kinds(folder):
    whole = copy.deepcopy(SETTINGS)
    whole["aimsPAX"]["MODEL"] = {"kind": "mace", "kwargs": {}}
    assert remember_settings(folder, whole) == remember_settings(folder, SETTINGS)
    whole["aimsPAX"]["MODEL"]["kind"] = "gp"
    assert remember_settings(folder, whole) != remember_settings(folder, SETTINGS)
