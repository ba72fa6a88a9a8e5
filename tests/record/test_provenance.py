"""The settings that something was made with."""

import math

from aims_pax.record.provenance import LONG, NAMED, changes, flat_settings, provenance_refusal


def test_nested_settings_become_keys_with_their_values_as_text():
    flat = flat_settings(
        {"MD": {"timestep": 0.5, "systems": {"a": {"T": 300}}}, "limit": math.inf, "none": None, "empty": {},
         "list": [], "mixed": [{"a": 1}, 2], 7: "number",
         "SAMPLERS": [{"kind": "md"}, {"kind": "own", "of": (1, 2)}]}
    )  # fmt: skip
    assert flat == {
        "MD.timestep": "0.5", "MD.systems.a.T": "300", "SAMPLERS.0.kind": "md", "SAMPLERS.1.kind": "own",
        "SAMPLERS.1.of": "[1, 2]", "limit": "inf", "none": "None", "empty": "{}", "list": "[]",
        "mixed": "[{'a': 1}, 2]", "7": "number",
    }  # fmt: skip


def test_changes_are_told_in_the_order_of_the_old_keys_and_new_ones_come_last():
    old, new = {"a": "1", "b": "2", "gone": "x"}, {"new": "y", "b": "2", "a": "3"}
    assert changes(old, new) == ["a: 1 → 3", "gone: x → not set", "new: not set → y"]
    assert changes(old, dict(old)) == []


def test_long_values_are_cut():
    (line,) = changes({"a": "x" * LONG}, {"a": "y" * (LONG + 1)})
    assert line == f"a: {'x' * LONG} → {'y' * LONG}…"


def test_a_refusal_names_the_first_changes_and_counts_the_rest():
    def refusal(n):
        return provenance_refusal("a.xyz", [f"key {k}" for k in range(n)], "name another file")

    assert refusal(1) == "a.xyz was made with other settings:\n  key 0\nUndo the change; or name another file"
    assert "more" not in refusal(NAMED)
    assert refusal(NAMED + 3).splitlines()[-3:] == [
        f"  key {NAMED - 1}", "  … and 3 more", "Undo the change; or name another file"
    ]  # fmt: skip
