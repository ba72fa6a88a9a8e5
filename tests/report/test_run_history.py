"""The content of a journal as values."""

import json

import numpy as np

from aims_pax.report.journal_reader import JournalParser
from aims_pax.report.run_history import FrameOrigin, RunHistory
from tests.report.folders import advanced


def history(*entries):
    parser = JournalParser(RunHistory())
    parser.read_lines([json.dumps(e) for e in entries])
    return parser.history


def test_each_trajectory_has_its_own_checks_in_their_order():
    found = history(
        advanced(1, 1, 0, 10, 0.3, 0.2, threshold=0.5, decision="certain"),
        advanced(2, 0, 0, 10, 0.1),
        advanced(3, 1, 10, 20, 0.7, threshold=0.5, decision="uncertain"),
        advanced(4, 1, 20, 25, 0.4, decision=""),  # moved, but nothing was compared
        advanced(5, 2, 0, 3, fault="too hot"),
    ).series()
    assert sorted(found) == [0, 1, 2]
    one = found[1]
    assert (one.step, one.steps.tolist(), one.uncertainty.tolist()) == (25, [10, 20], [0.3, 0.7])
    assert one.decisions == ["certain", "uncertain"]
    assert one.frames == ["f1s10", "f1s20"]
    np.testing.assert_array_equal(one.times, [1, 3])
    assert (found[2].steps.tolist(), found[2].faults) == ([], [(3, "too hot")])


def test_where_a_frame_was_made_is_told_for_what_still_counts():
    story = history(
        advanced(1, 0, 0, 10, 0.1),
        advanced(2, 0, 10, 20, 0.9),
        advanced(9, 0, 10, 20, 0.2),  # killed after step 10, and done again
        advanced(10, 7, 0, 10, 0.2),
        {"time": 0, "stage": "initial", "kind": "Sampled", "content": {"frames": [["copper", "abc"]]}},
    )
    origins = story.frame_origins({"f0s10", "f0s20", "f7s10", "abc", "nobody"}, ("water",))
    assert origins == {
        "f0s10": FrameOrigin("explore", "water", 1),
        "f0s20": FrameOrigin("explore", "water", 9),
        "f7s10": FrameOrigin("explore", "", 10),  # of a trajectory that the settings have no longer
        "abc": FrameOrigin("initial", "copper", 0),
    }
    assert story.frame_origins({"abc"}, ("water",)) == {"abc": FrameOrigin("initial", "copper", 0)}


def test_an_empty_journal_has_no_checks():
    assert RunHistory().series() == {}
    assert RunHistory().frame_origins({"a"}, ()) == {}
