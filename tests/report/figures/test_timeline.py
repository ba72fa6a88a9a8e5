import numpy as np

from aims_pax.report.figures import timeline
from aims_pax.report.load_run import load_run
from tests.report.folders import advanced, made_up


def test_overlap_is_the_integral_of_what_runs_at_once():
    edges = np.array([0.0, 1, 2, 4])
    spans = [(0.5, 1.5), (0.75, 3.0), (-5.0, 0.25), (10.0, 11.0)]
    np.testing.assert_allclose(timeline._overlap(edges, spans), [0.5 + 0.25 + 0.25, 0.5 + 1.0, 0.5])


def test_shares_of_the_timeline_never_exceed_the_device(run):
    table = timeline.timeline_figure(run)[0].table
    total = sum(np.asarray(table[k]) for k in ("moving", "training", "sampling", "waiting"))
    assert (total <= 1 + 1e-9).all()
    assert total.mean() > 0.5


def test_gaps_of_the_timeline_are_named(tmp_path):
    begun = {"time": 60, "stage": "run", "kind": "begun", "content": {}}
    going = {"time": 65, "stage": "explore", "kind": "going", "content": {}}
    entries = [
        advanced(0, 0, 0, 10, 0.1),
        advanced(30, 0, 10, 20, 0.1),
        begun,
        going,
        advanced(90, 0, 20, 30, 0.1),
    ]
    (panel,) = timeline.timeline_figure(load_run(made_up(tmp_path, entries)))
    assert "dynamics 92 % · starting 8 %" in panel.note
    assert "blank: starting 5 s, stopped in between 30 s" in panel.note
