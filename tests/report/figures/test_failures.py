from dataclasses import replace

import matplotlib.axes

from aims_pax.report.figures.failures import failures_figure
from aims_pax.report.run_record import ReferenceCall


def failed(run, *outcomes):
    return replace(
        run, calls=tuple(ReferenceCall(str(k), "s", "explore", o, 0, 1) for k, o in enumerate(outcomes))
    )


def test_failures_are_counted_by_class_the_most_frequent_on_top(run, monkeypatch):
    bars, real = [], matplotlib.axes.Axes.barh
    monkeypatch.setattr(
        matplotlib.axes.Axes,
        "barh",
        lambda self, y, w, **more: bars.append((y, w)) or real(self, y, w, **more),
    )
    (drawn,) = failures_figure(failed(run, "Crashed", "labelled", "NotConverged", "pending", "NotConverged"))
    assert drawn.table == {"class": ["Crashed", "NotConverged"], "failures": [1, 2]}
    assert bars == [(["Crashed", "NotConverged"], [1, 2])]  # bars are drawn from below
    assert "NotConverged" in drawn.svg


def test_without_failures_there_is_no_figure(run):
    assert failures_figure(failed(run, "labelled", "pending")) == []
