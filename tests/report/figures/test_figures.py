import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from aims_pax.report.figures import calibration, failures, learning, observables, timeline, uncertainty
from aims_pax.report.figures.parity import parity_figure
from aims_pax.report.figures.style import NAMES

DRAWN = {
    learning.learning_figure: {"learning_forces", "learning_energies", "convergence"},
    calibration.calibration_figure: {"honesty_during", "honesty_delivered"},
    parity_figure: {"parity_energy", "parity_forces", "parity_stress"},
    observables.observables_figure: {"label_energies", "distances"},
    timeline.timeline_figure: {"timeline"},
    failures.failures_figure: {"failures"},
}


@pytest.mark.parametrize("draw", DRAWN, ids=lambda f: f.__name__)
def test_a_real_run_gives_every_figure(run, draw):
    found = draw(run)
    assert {p.name for p in found} == DRAWN[draw]
    for p in [q for q in found for q in (q, q.below) if q is not None]:
        ET.fromstring(p.svg)
        assert not set(re.findall(r"#[0-9a-f]{6}\b", p.svg)) & set(NAMES), "colours must follow the theme"
        assert p.table
        lengths = {len(column) for column in p.table.values()}
        assert len(lengths) == 1, p.name


def test_each_trajectory_has_its_panel_and_all_numbers_are_kept(run):
    panels, table = uncertainty.uncertainty_figure(run)
    assert [p.name for p in panels] == [f"uncertainty_{i:03d}" for i in range(4)]
    assert len(table["step"]) == sum(len(t.steps) for t in run.trajectories)
    assert sum(table["labelled"]) == sum(int(t.labelled.sum()) for t in run.trajectories)


def test_dots_of_test_frames_are_named_where_there_are_some(run):
    drawn = {(str(t.index), str(t.steps[k])) for t in run.trajectories for k in t.drawn}
    frames = [s.info for s in run.structures if s.id in run.splits["test"]]
    assert drawn == {(info["trajectory"], info["step"]) for info in frames}
    assert len(drawn) == 3
    assert uncertainty.DRAWN in uncertainty.uncertainty_legend(run)
    assert uncertainty.DRAWN not in uncertainty.uncertainty_legend(
        run, [replace(t, drawn=()) for t in run.trajectories]
    )


def test_a_picture_of_the_uncertainty_explains_itself(run, monkeypatch):
    """On the page axis and legend stand once for all of them; a PNG stands alone."""
    from aims_pax.report.figures import style

    drawn = []

    def png(figure, title, legend):
        drawn.append((figure.axes[0].get_xlabel(), [words for _, words in legend]))
        return b"png"

    monkeypatch.setattr(style, "png_of", png)
    (one, *_), _ = uncertainty.uncertainty_figure(run, png=True)
    assert drawn[0][0] == "MD step"
    assert "threshold" in drawn[0][1]
    assert "MD step" not in one.svg
    assert one.legend == ()
