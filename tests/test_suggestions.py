import pytest

from aims_pax.suggestions import nearest, no_such


@pytest.mark.parametrize(
    ("word", "found"), [("tempreture", "temperature"), ("TIMESTEP", "timestep"), ("zzz", None), ("", None)]
)
def test_the_nearest_word_is_found_in_any_case(word, found):
    assert nearest(word, ["temperature", "timestep"]) == found


def test_the_known_word_is_given_as_it_is_written():
    assert nearest("MAX_md_step", ["max_MD_steps", "max_labels"]) == "max_MD_steps"
    assert nearest(3, ["3a"]) == "3a"
    assert nearest("a", []) is None


def test_the_nearest_file_or_folder_is_named_but_none_of_the_other_kind(tmp_path):
    (tmp_path / "aimsPAX.yaml").write_text("")
    (tmp_path / ".aimsPX.yaml").write_text("")
    (tmp_path / "geometries").mkdir()
    assert no_such(tmp_path / "aimsPX.yaml") == f"no such file; nearest: {tmp_path / 'aimsPAX.yaml'}"
    assert no_such(tmp_path / "geometry", "folder") == f"no such folder; nearest: {tmp_path / 'geometries'}"
    assert no_such(tmp_path / "geometries.xyz") == "no such file"
    assert no_such(tmp_path / "aimsPAX.yam", "folder") == "no such folder"
    assert no_such(tmp_path / "geometries") == "a folder; expected a file"
    assert no_such(tmp_path / "aimsPAX.yaml", "folder") == "a file; expected a folder"


def test_where_there_is_no_folder_there_is_nothing_near(tmp_path):
    assert no_such(tmp_path / "none" / "aimsPAX.yaml") == "no such file"
