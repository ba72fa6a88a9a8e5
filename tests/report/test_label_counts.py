"""Labels and frames, counted in one place."""

from dataclasses import replace

import pytest

from aims_pax.report.label_counts import (
    ACTIVE,
    EARLIER,
    INITIAL,
    LabelCounts,
    by_stage,
    frames_line,
    labels_line,
)
from aims_pax.report.run_record import ReferenceCall


@pytest.fixture
def counted(run):
    """2 + 1 labels of the initial dataset and active learning, 1 failed, 1 under way, 1 of an earlier attempt."""
    outcomes = [("initial", "labelled"), ("initial", "labelled"), ("initial", "Crashed"), ("explore", "labelled"),
                ("explore", "pending"), ("", "labelled")]  # fmt: skip
    calls = tuple(ReferenceCall(str(k), "s", *o, 0.0, 1.0) for k, o in enumerate(outcomes))
    splits = {"train": dict.fromkeys("01"), "valid": {"3": None}}
    return replace(run, calls=calls, splits=splits, given=frozenset(), settings={})


def test_what_was_asked_for_is_labelled_failed_or_pending(counted):
    stages = by_stage(counted)
    assert stages == {
        INITIAL: LabelCounts(2, 1, 0),
        ACTIVE: LabelCounts(1, 0, 1),
        EARLIER: LabelCounts(1, 0, 0),
    }
    assert [n.asked for n in stages.values()] == [3, 2, 1]
    assert set(by_stage(replace(counted, calls=()))) == {INITIAL, ACTIVE}


def test_the_line_of_labels(counted):
    said = "4 labels: 2 initial dataset + 1 active learning + 1 earlier attempts"
    assert labels_line(counted) == f"{said} · 1 failed"
    limited = replace(counted, settings={"aimsPAX.ACTIVE_LEARNING.max_labels": "8"})
    assert labels_line(limited) == f"{said} (2 of max_labels 8 asked for) · 1 failed"
    assert labels_line(replace(counted, calls=counted.calls[:1])) == "1 label: 1 initial dataset"
    assert labels_line(replace(counted, calls=())) == "0 labels"


def test_the_line_of_frames(counted):
    assert frames_line(counted) == "2 training + 1 validation frames (all members together)"
    given = replace(counted, given=frozenset("01"))
    assert frames_line(given) == "2 training + 1 validation frames (all members together; 2 of them given)"
    assert frames_line(replace(counted, splits={})) == ""
