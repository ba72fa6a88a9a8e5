import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest

from aims_pax.report.distances import pairs
from aims_pax.report.figures import calibration, failures, learning, observables, timeline, uncertainty
from aims_pax.report.figures.parity import parity_figure
from aims_pax.report.figures.style import NAMES, drawing, envelope, panel, thinned
from aims_pax.report.load_run import load_run
from aims_pax.report.tolerant_readers import StoredStructure
from tests.report.folders import advanced, made_up

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


def test_words_keep_their_digits_and_ids_do_not_repeat():
    with drawing() as (figure, axes):
        axes.plot([0, 1], [0.00123, 0.00456])
        axes.annotate("0.001234 & <x>", (0.5, 0.002))
        one = panel(figure, "one", 'a "title" <b>')
    assert "0.001234 &amp; &lt;x>" in one.svg or "0.001234 &amp; &lt;x&gt;" in one.svg
    assert "&quot;title&quot; &lt;b&gt;" in one.svg
    root = ET.fromstring(one.svg)
    assert root.get("width") is None
    assert 'id="figure' not in one.svg


def test_a_png_is_made_when_asked():
    with drawing() as (figure, axes):
        axes.plot([0, 1])
        assert panel(figure, "one", "title", [("#0072b2", "line")], png=True).png.startswith(b"\x89PNG")


def test_peaks_survive_thinning():
    y = np.sin(np.arange(100_000) / 900)
    y[54_321] = 7.0
    y[777] = -7.0
    x, kept = envelope(np.arange(100_000), y, 250)
    assert len(x) <= 500
    assert (kept.max(), kept.min()) == (7.0, -7.0)
    assert (np.diff(x) > 0).all()
    k = thinned(1000, 10)
    assert len(k) == 10
    assert (k[0], k[-1]) == (0, 999)


def test_overlap_is_the_integral_of_what_runs_at_once():
    edges = np.array([0.0, 1, 2, 4])
    spans = [(0.5, 1.5), (0.75, 3.0), (-5.0, 0.25), (10.0, 11.0)]
    np.testing.assert_allclose(timeline._overlap(edges, spans), [0.5 + 0.25 + 0.25, 0.5 + 1.0, 0.5])


def test_shares_of_the_timeline_never_exceed_the_device(run):
    table = timeline.timeline_figure(run)[0].table
    total = sum(np.asarray(table[k]) for k in ("moving", "training", "sampling", "waiting"))
    assert (total <= 1 + 1e-9).all()
    assert total.mean() > 0.5


def test_dots_of_test_frames_are_named_where_there_are_some(run):
    drawn = {(str(t.index), str(t.steps[k])) for t in run.trajectories for k in t.tested}
    frames = [s.info for s in run.structures if s.id in run.splits["test"]]
    assert drawn == {(info["trajectory"], info["step"]) for info in frames}
    assert len(drawn) == 3
    assert uncertainty.TESTED in uncertainty.uncertainty_legend(run)
    assert uncertainty.TESTED not in uncertainty.uncertainty_legend(
        run, [replace(t, tested=()) for t in run.trajectories]
    )


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


def test_shortest_distances_see_images_of_a_crystal():
    here = StoredStructure(
        ("H", "O"), np.array([[0.1, 0, 0], [2.9, 0, 0]]), np.eye(3) * 3.0, (True,) * 3, None
    )
    found = pairs(here)
    assert found[1, 8] == pytest.approx(0.2)
    assert found[1, 1] == pytest.approx(3.0)
    alone = StoredStructure(("H", "O"), here.positions, np.zeros((3, 3)), (False,) * 3, None)
    assert pairs(alone) == {(1, 8): pytest.approx(2.8)}


def test_delivered_errors_are_those_of_the_validation_frames(run):
    p = run.predictions
    valid = np.repeat(p["split"] == "valid", p["n_atoms"])
    mae = np.abs(p["forces"] - p["true_forces"])[valid].mean()
    assert learning.delivered_errors(run)[0] == pytest.approx(mae)


def test_errors_of_test_and_validation_frames_are_never_mixed(run):
    """Validation frames decided when to stop."""
    p = run.predictions
    force = next(panel for panel in parity_figure(run) if panel.name == "parity_forces").below
    wrong = 1000 * np.abs(p["forces"] - p["true_forces"])
    for split, name in (("test", "Test"), ("valid", "Validation")):
        mae = wrong[np.repeat(p["split"] == split, p["n_atoms"])].mean()
        assert f"{name}: MAE {mae:.3g}, " in force.note
        kept = np.asarray(force.table["split"]) == split
        assert np.abs(np.asarray(force.table["error_meV/Å"])[kept]).mean() == pytest.approx(mae)


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
