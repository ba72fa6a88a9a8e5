"""The forecast in words, and against what a run took."""

from dataclasses import replace

import pytest

from aims_pax.report.cost_summary import forecast_against_truth, summary
from aims_pax.report.forecast import comparison_rows, forecast_lines, inside, read_forecast
from aims_pax.report.html_page import page

TIMES = {"label": 2.0, "label_atoms": 9, "training": 0.01, "md_step": 0.005, "trajectories": 8, "starting": 3.0,
         "sampling": {}, "md_steps_timed": 100, "missing": ""}  # fmt: skip
STORED = {
    "format": 1, "made": 0.0, "cores": 2, "load": 0.5, "timings": TIMES, "settings": "0",
    "stages_s": {"initial": [10.0, 20.0, 30.0], "explore": [100.0, 200.0, 400.0], "converge": [0.0, 0.0, 0.0]},
    "wall_s": [120.0, 230.0, 440.0], "labels": [40.0, 50.0, 60.0], "reference_s": [80.0, 100.0, 120.0],
    "reference_slots": 64, "driver_core_s": [240.0, 460.0, 880.0],
}  # fmt: skip


def test_the_terminal_has_times_ranges_and_core_hours():
    lines = forecast_lines(STORED)
    assert lines[0] == (
        "measured: one label 2 s (9 atoms), one epoch of one member 1 s for 100 frames, 100 MD steps of 8 trajectories "
        "0.5 s"
    )
    assert "  active learning  1.7 min … 6.7 min (3.3 min)" in lines
    assert "  in all           2.0 min … 7.3 min (3.8 min); labels 40 … 60 (50)" in lines
    assert any("reference 1.4 … 2.1 (1.8) (64 cores each)" in line for line in lines)
    assert not any("convergence" in line for line in lines), "a stage that does not exist"
    assert "busy" not in "".join(lines)
    assert "this machine is busy (load 12 on 2 cores)" in "".join(forecast_lines({**STORED, "load": 12.0}))


def test_what_is_not_known_is_said():
    unknown = {**STORED, "wall_s": None, "reference_s": None, "labels": None,
               "timings": {**TIMES, "label": None, "training": None, "md_step": None, "missing": "no weights"},
               "stages_s": {"initial": None, "explore": None, "converge": None}}  # fmt: skip
    text = "\n".join(forecast_lines(unknown))
    assert "--label-time SECONDS" in text
    assert "training and MD were not timed: no weights" in text
    assert (
        "in all           unknown: no limit ends it, or its times were not measured; labels unknown" in text
    )


@pytest.mark.parametrize(
    ("truth", "said"), [(50, "below the range"), (230, "in the range"), (900, "above the range")]
)
def test_truth_lies_in_the_range_or_not(truth, said):
    assert inside(STORED["wall_s"], truth) == said
    took = {
        "wall": truth,
        "labels": 50.0,
        "reference": 500.0,
        "initial": 20.0,
        "explore": 150.0,
        "converge": 0.0,
    }
    rows = {r[0]: r for r in comparison_rows(STORED, took)}
    assert rows["time in all"][3] == said
    assert rows["labels"][2:] == ["50", "in the range"]
    assert rows["inside reference calculations"][3] == "above the range"
    assert "convergence" not in rows


def test_a_finished_run_with_a_forecast_compares_both(run):
    assert forecast_against_truth(run) == []
    known = replace(run, forecast=STORED, state="finished")
    assert {"time in all", "labels"} <= {row[0] for row in forecast_against_truth(known)}
    assert forecast_against_truth(replace(known, state="running")) == []
    assert "Forecast of aims-PAX check --try" in page(known)[0]
    assert summary(known)["forecast"][-1].keys() == {"what", "forecast", "truth", "range"}


def test_files_of_other_formats_count_as_none(tmp_path):
    assert read_forecast(tmp_path) == {}
    (tmp_path / "forecast.json").write_text('{"format": 1}')
    assert read_forecast(tmp_path) == {}
