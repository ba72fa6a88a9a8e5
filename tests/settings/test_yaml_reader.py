"""Settings files are read strictly, and whatever is wrong with them is a SettingsError with a line."""

import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from aims_pax.errors import SettingsError
from aims_pax.settings.yaml_reader import plain_word, read_document


def document(folder, text):
    (folder / "a.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_document(folder / "a.yaml", "a.yaml")


def error(folder, text):
    with pytest.raises(SettingsError) as caught:
        document(folder, text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("1e-3", 1e-3),
        ("5.e-07", 5e-7),
        (".5", 0.5),
        ("6.24e-7", 6.24e-7),
        ("+3", 3),
        ("010", 10),
        ("1_000", 1000),
        ("0.", 0.0),
        ("yes", True),
        ("off", False),
        ("True", True),
        ("None", None),
        ("~", None),
        ("1:30", "1:30"),
        ("2025-01-01", "2025-01-01"),
        ("16x0e", "16x0e"),
        ("e5", "e5"),
        ("silu", "silu"),
    ],
)
def test_plain_words_mean_what_a_physicist_means(word, value):
    assert plain_word(word) == value
    assert type(plain_word(word)) is type(value)


@pytest.mark.parametrize(
    "word", ["np.inf", "inf", ".inf", ".Inf", "+.inf", "numpy.inf", "math.inf", "Infinity"]
)
def test_every_spelling_of_infinity_is_infinity(word):
    assert plain_word(word) == math.inf
    assert plain_word(f"-{word.lstrip('+')}") == -math.inf


def test_quotes_make_text(tmp_path):
    assert document(tmp_path, "a: '1e-3'\nb: \"yes\"\nc: !!str 5").data == {"a": "1e-3", "b": "yes", "c": "5"}


def test_every_key_remembers_its_line(tmp_path):
    lines = document(tmp_path, "A:\n  b: 1\n\n  c:\n    - x\n    - y: 2\n").lines
    assert (lines[("A",)], lines[("A", "b")], lines[("A", "c")], lines[("A", "c", 1, "y")]) == (1, 2, 4, 6)


def test_a_place_the_file_lacks_has_the_line_of_the_table_around_it(tmp_path):
    read = document(tmp_path, "A:\n  b: 1\nC:\n  d: 2\n")
    assert read.line(("C", "missing")) == 3
    assert read.line(("E",)) == 0


def test_a_key_written_twice_is_an_error_with_both_lines(tmp_path):
    assert (
        error(tmp_path, "A:\n  b: 1\n  b: 2\n") == "a.yaml:3: A.b: written twice (first in line 2); keep one"
    )


def test_a_syntax_error_has_its_line_and_shows_it(tmp_path):
    assert error(tmp_path, "A:\n\tb: 1\n") == "a.yaml:2: a tab; YAML needs spaces for indentation\n    →b: 1"


def test_a_second_document_is_refused(tmp_path):
    assert "a second document" in error(tmp_path, "A: 1\n---\nB: 2\n")


def test_text_that_is_not_utf8_is_refused_with_its_line(tmp_path):
    assert error(tmp_path, "A: 1\nB: ä\n".encode("latin-1")).startswith("a.yaml:2: not UTF-8 text")


def test_a_byte_order_mark_and_windows_line_ends_are_harmless(tmp_path):
    read = document(tmp_path, b"\xef\xbb\xbfA: 1\r\nB: 2\r\n")
    assert read.data == {"A": 1, "B": 2}
    assert read.lines[("B",)] == 2


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "~\n"])
def test_an_empty_file_is_refused(tmp_path, text):
    assert "the file is empty" in error(tmp_path, text) or "expected sections" in error(tmp_path, text)


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words\n", "3\n"])
def test_anything_but_sections_at_the_top_is_refused(tmp_path, text):
    assert "expected sections such as MISC: at the top level" in error(tmp_path, text)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(SettingsError, match="no such file"):
        read_document(tmp_path / "none.yaml", "none.yaml")
    with pytest.raises(SettingsError, match="cannot be read"):
        read_document(tmp_path, "folder")


@pytest.mark.parametrize(
    "text",
    [
        "A: !!python/object/apply:os.system ['touch OWNED']\n",
        "A: !!python/name:os.system ''\n",
        "A: !!python/object/new:os.system [touch OWNED]\n",
        "A: !mine 3\n",
        "A: !!binary aGk=\n",
    ],
)
def test_no_tag_is_executed(tmp_path, text, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "is not allowed in settings" in error(tmp_path, text)
    assert not (tmp_path / "OWNED").exists()


def test_a_table_that_holds_itself_is_refused(tmp_path):
    assert "refers to itself" in error(tmp_path, "A: &a\n  b: *a\n")


def test_an_alias_bomb_is_refused(tmp_path):
    rows = ["A0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"A{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    assert "this is not a settings file" in error(tmp_path, "\n".join(rows))


def test_bottomless_nesting_is_refused(tmp_path):
    assert "nested too deeply" in error(tmp_path, "A: " + "[" * 20_000)


def test_anchors_and_merge_keys_work(tmp_path):
    data = document(tmp_path, "A: &a\n  x: 1\n  y: 2\nB:\n  <<: *a\n  y: 3\n").data
    assert data["B"] == {"x": 1, "y": 3}


YAML_LIKE = st.text(alphabet=st.sampled_from("aA0159.:-+# \n\t[]{},&*!|>'\"%@`~<?e\x00ä\u2028"), max_size=60)


@given(st.one_of(st.binary(max_size=80), YAML_LIKE.map(str.encode), st.text(max_size=60).map(str.encode)))
def test_whatever_the_bytes_are_only_a_settings_error_comes(tmp_path_factory, content):
    try:
        said = document(tmp_path_factory.getbasetemp(), content).data
    except SettingsError as refused:
        said = str(refused)
    assert isinstance(said, dict) or said.startswith("a.yaml")


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=20))


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8).filter(lambda k: k != "<<"), st.lists(SCALARS), min_size=1
    )
)
def test_what_is_dumped_reads_back(tmp_path_factory, data):
    from aims_pax.settings.settings import as_yaml

    text = as_yaml(data)
    assert document(tmp_path_factory.getbasetemp(), text).data == data
    assert yaml.safe_load(text) == data  # any other YAML reader agrees
