"""What the record of a run counts."""

import json

from aims_pax.report.load_run import load_run
from tests.report.folders import advanced, answered, made_up


def test_data_counts_are_those_of_the_bookkeeping(folder):
    sets = {}
    for line in (folder / "data/splits.jsonl").read_text().splitlines():
        frame, split, _ = json.loads(line)
        sets.setdefault(split, set()).add(frame)
    counts = load_run(folder).counts()
    assert set(counts) == {"copper", "water"}
    assert {s: sum(row.get(s, 0) for row in counts.values()) for s in sets} == {
        s: len(f) for s, f in sets.items()
    }


def test_failures_are_counted_by_class_until_they_are_answered(tmp_path):
    run = load_run(made_up(tmp_path / "run", [
        advanced(1, 0, 0, 10, 0.1), answered(2, "f0s10", "NotConverged", "hard"), answered(3, "x", "Crashed", "bang"),
        answered(4, "x"),
    ]))  # fmt: skip
    assert run.failures == {"NotConverged": 1}
    assert run.labelled == 1
