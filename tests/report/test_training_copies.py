"""What the files of a run say about copies in the training of its members."""

import json
from types import SimpleNamespace

from aims_pax.report.training_copies import copies_line, read_copies_used

ENTRY = {
    "member": "tiny_1", "labels": 12, "copies": 40, "wanted": 48, "loo_force_mae": 0.0123, "validation_force_mae": 0.05,
    "refused": {"uncertain force": 8}, "process": "abc", "reason": "",
}  # fmt: skip


def written(folder, *entries, tail=""):
    path = folder / "augmentation" / "used.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(e) + "\n" for e in entries) + tail)
    return read_copies_used(folder)


def test_the_last_entry_of_each_member_counts_also_while_a_line_is_being_written(tmp_path):
    other = {**ENTRY, "member": "tiny_2", "copies": 0}
    found = written(tmp_path, other, {**ENTRY, "copies": 3}, ENTRY, tail='{"member": "ti')
    assert [(c.member, c.copies) for c in found] == [("tiny_1", 40), ("tiny_2", 0)]
    assert found[0].refused == {"uncertain force": 8}


def test_one_sentence_says_how_many_copies_by_which_process_and_what_was_refused(tmp_path):
    line = copies_line(SimpleNamespace(copies=written(tmp_path, ENTRY)))
    for words in (
        "40 perturbed copies of 12 structures",
        "surrogate:abc",
        "12.3 meV/Å",
        "50.0",
        "uncertain force 8",
    ):
        assert words in line


def test_a_closed_gate_is_said_and_a_run_without_the_section_says_nothing(tmp_path):
    entry = {**ENTRY, "copies": 0, "reason": "all were refused"}
    closed = copies_line(SimpleNamespace(copies=written(tmp_path, entry)))
    assert "No surrogate copies in the last training: all were refused (leave-one-out" in closed
    assert copies_line(SimpleNamespace(copies=read_copies_used(tmp_path / "none"))) == ""


def test_damaged_entries_are_no_error(tmp_path):
    (found,) = written(tmp_path, {"member": "m", "labels": "many", "refused": 3})
    assert (found.labels, found.copies, found.refused) == (0, 0, {})
