"""What the record of a run counts."""

import json
from dataclasses import replace

from aims_pax.report.load_run import load_run
from aims_pax.report.run_record import ReferenceCall, Span
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


def test_a_setting_is_found_by_the_end_of_its_key_and_none_counts_as_not_set(run):
    settings = {
        "aimsPAX.MD.temperature": "300.0",
        "aimsPAX.MD.my_temperature": "7",
        "mace.GENERAL.name_exp": "None",
    }
    chosen = replace(run, settings=settings)
    assert chosen.setting("MD.temperature") == chosen.setting("temperature") == "300.0"
    assert chosen.setting("GENERAL.name_exp", "x") == "x"
    assert chosen.setting("MD.pressure") == ""


def test_calls_are_counted_by_how_they_ended(run):
    def call(outcome, ended=5.0):
        return ReferenceCall("f", "s", "explore", outcome, asked=10.0, answered=20.0, ended=ended)

    chosen = replace(
        run, calls=(call("labelled", 15.0), call("labelled", 8.0), call("pending"), call("Crashed"))
    )
    assert (chosen.labelled, chosen.pending, chosen.reused, chosen.failures) == (2, 1, 1, {"Crashed": 1})


def test_the_time_of_an_activity_is_the_sum_of_its_spans(run):
    spans = (Span("moving", 0, 2), Span("training", 2, 3), Span("moving", 3, 7.5))
    assert replace(run, spans=spans).shares() == {"moving": 6.5, "training": 1}


def test_sources_count_each_frame_once_and_the_reference_comes_first(run):
    ids = [s.id for s in run.structures[:4]]
    structures = tuple(
        replace(s, info={**s.info, "source": "given:a.xyz#0"}) if s.id == ids[0] else s
        for s in run.structures
    )
    both = {"train": dict.fromkeys(ids[:3]), "valid": dict.fromkeys(ids[2:]), "test": {}}
    assert list(replace(run, structures=structures, splits=both).sources().items()) == [
        ("reference", 3),
        ("a.xyz", 1),
    ]
