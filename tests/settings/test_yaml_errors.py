"""Mistakes of people who write YAML by hand, each with its line and in plain words."""

import pytest
import yaml

from aims_pax.settings.yaml_errors import explain_yaml_error


def said(text):
    with pytest.raises(yaml.MarkedYAMLError) as error:
        yaml.compose(text, Loader=yaml.SafeLoader)
    return explain_yaml_error(error.value, text)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("MD:\n  a: 1\n  \tb: 2\n", 3, "a tab; YAML needs spaces"),
        ("MD:\n  timestep:0.5\n  temperature: 300\n", 2, "no space after the colon"),
        ("MD:\n  temperature: 300\n  timestep:0.5\n", 3, "no space after the colon"),
        ("MD:\n  timestep 0.5\n  temperature: 300\n", 2, "no colon; expected key: value"),
        ("MD:\n  timestep 0.5\n  # a word\n  temperature: 300\n", 2, "no colon; expected key: value"),
        ("MD:\n  temperature: 300\n  timestep 0.5\nMISC:\n  a: 1\n", 3, "no colon; expected key: value"),
        ("MD\n  timestep: 3\n", 1, "no colon; expected key: value"),
        ("MD:\n  timestep: 0.5\n    temperature: 300\n", 3, "indented deeper than line 2, which already has a value"),
        ("MD:\n    a: 0.5\n  b: 300\n", 3, "4 spaces before line 2, 2 before this one; all keys of one table"),
        ("MISC:\n  a: 1\n MD:\n  b: 2\n", 3, "2 spaces before line 2, 1 before this one"),
        ("C:\n  launch_str: srun: aims.x\n", 2, "a second colon in one line; put the value in quotes"),
        ("MISC:\n  a: 'geometry\n  b: 3\nC: 2\n", 2, "a quote is opened here but never closed"),
        ("MD:\n  t: [300, 400\n  b: 3\n", 2, "[ is opened here but never closed"),
        ("R:\n  kwargs: {method: x\nMD:\n  a: 3\n", 2, "{ is opened here but never closed"),
        ("MD: [", 1, "[ or { is opened but never closed"),
        ("MISC:\n  a: @home\n", 2, "a value cannot begin with @; put the value in quotes"),
        ("MISC:\n  a: *.xyz\n", 2, "a value cannot begin with *"),
        ("MISC:\n  a: *xyz\n", 2, "a value cannot begin with *"),
        ("A:\n  - b: 1\n  c: 2\n", 3, "a list entry (-) and key: value cannot be mixed; compare with line 2"),
    ],
)  # fmt: skip
def test_the_line_that_is_to_be_mended_is_named_and_shown(text, line, words):
    found, told = said(text)
    assert found == line
    assert told.startswith(words)
    assert told.endswith("\n    " + text.split("\n")[line - 1].replace("\t", "→"))


def test_a_long_line_is_cut():
    _, told = said("a: b: " + 500 * "c")
    assert len(told.splitlines()[1]) < 110
