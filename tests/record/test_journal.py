"""The journal: append-only lines that bring events back."""

import math

from aims_pax.core.work import Advance, Advanced
from aims_pax.record.checkpoint import from_plain
from aims_pax.record.journal import Journal

EVENT = Advanced(Advance(0, 0, 25, 1), 25, "abc", (0.1, math.inf), None)


def test_events_come_back_as_they_were(folder):
    journal = Journal(folder)
    journal.write("explore", "Advanced", EVENT)
    journal.write("initial", "Other", {"a": 1})
    (entry,) = journal.read("explore")
    assert from_plain(Advanced, entry["content"]) == EVENT


def test_a_torn_line_is_passed_over(folder, caplog):
    journal = Journal(folder)
    journal.write("explore", "Advanced", EVENT)
    with open(journal.path, "a") as file:
        file.write('{"time": 3, "sta')
    assert len(list(journal.read())) == 1
    assert "passed over" in caplog.text
