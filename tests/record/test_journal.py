"""The journal: append-only lines that bring events back."""

import math

from aims_pax.core.work import Advanced, RunMD
from aims_pax.record.checkpoint import from_plain
from aims_pax.record.journal import Journal, spread

EVENT = Advanced(RunMD(0, 0, 25, 1), 25, "abc", (0.1, math.inf), None)


def test_events_come_back_as_they_were(folder):
    journal = Journal(folder)
    journal.write("explore", "Advanced", EVENT)
    journal.write("initial", "Other", {"a": 1})
    (entry,) = journal.read("explore")
    assert from_plain(Advanced, entry["content"]) == EVENT
    assert [line["format"] for line in journal.read()] == [2, 2]


def test_a_torn_line_is_passed_over(folder, caplog):
    journal = Journal(folder)
    journal.write("explore", "Advanced", EVENT)
    with open(journal.path, "a") as file:
        file.write('{"time": 3, "sta')
    assert len(list(journal.read())) == 1
    assert "incomplete and was skipped" in caplog.text


def test_a_look_at_a_thousand_atoms_takes_no_kilobytes(folder):
    """`ensemble_sd` has a value for each atom; what decisions go by are the largest, the mean and their number."""
    values = tuple(0.1 + 0.4 * math.sin(k) ** 2 for k in range(1000))
    journal = Journal(folder)
    journal.write("explore", "Advanced", Advanced(RunMD(0, 0, 25, 1), 25, "abc", values, None))
    assert journal.path.stat().st_size < 300
    (entry,) = journal.read("explore")
    largest, mean, n = spread(entry["content"]["uncertainty"])
    assert (largest, n) == (max(values), 1000)
    assert mean == math.fsum(values) / 1000
    assert spread(list(values)) == (largest, mean, n)  # an older journal


def test_uncertainties_that_are_not_finite_stay_so(folder):
    journal = Journal(folder)
    journal.write(
        "explore", "Advanced", Advanced(RunMD(0, 0, 25, 1), 25, "abc", (0.1,) * 50 + (math.inf,), None)
    )
    (entry,) = journal.read("explore")
    largest, _, n = spread(entry["content"]["uncertainty"])
    assert math.isnan(largest)
    assert n == 51
    assert math.isnan(spread([0.1, math.nan])[0])
