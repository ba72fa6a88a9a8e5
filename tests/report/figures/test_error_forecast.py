"""Figures of errors against their bounds, and of the learning curve with its forecast."""

import xml.etree.ElementTree as ET
from dataclasses import replace

from aims_pax.core.error_calibration import Drift, ErrorCalibration
from aims_pax.report.figures.error_forecast import coverage_figure, coverage_note, forecast_figure
from tests.core.test_error_calibration import SimulatedLearning


def calibrated(seed=4, labels=60):
    simulated = SimulatedLearning(seed)
    while simulated.labels < labels:
        simulated.check()
    return simulated.calibration


def test_one_panel_for_one_system_with_the_tally_of_the_bound(run):
    calibration = calibrated()
    found = replace(run, calibrations=(("water", calibration),), n_train=78, predictions={})
    (bounds,), (forecast,) = coverage_figure(found, png=True), forecast_figure(found, png=True)
    assert (bounds.name, forecast.name) == ("error_bound", "error_forecast")
    inside, n = calibration.covered, calibration.audits
    assert bounds.note.startswith(f"{inside} of {n} structures drawn at random")
    assert max(forecast.table["training_structures"]) > 150
    assert all(low < e < high for low, e, high in zip(
        *(forecast.table[k] for k in ("low_meV_A", "error_meV_A", "high_meV_A")), strict=True))  # fmt: skip
    for p in (bounds, forecast):
        ET.fromstring(p.svg)
        assert p.png.startswith(b"\x89PNG")


def test_several_systems_have_panels_of_their_own_names(run):
    two = (("water", calibrated(1)), ("copper", calibrated(2)))
    found = replace(run, calibrations=two, n_train=78, predictions={})
    assert [p.name for p in coverage_figure(found)] == ["error_bound_00", "error_bound_01"]
    assert [p.title.rpartition(": ")[2] for p in forecast_figure(found)] == ["water", "copper"]


def test_few_labels_give_no_figure(run):
    found = replace(run, calibrations=(("water", ErrorCalibration()),), n_train=20, predictions={})
    assert coverage_figure(found) == []
    assert forecast_figure(found) == []
    assert "unknown" in coverage_note(ErrorCalibration(), 0.9)


def test_points_above_the_curve_are_explained_where_training_has_moved_it(run):
    plain = calibrated()
    pairs = tuple(replace(p, drift=Drift()) for p in plain.pairs)
    trained = replace(plain, pairs=pairs, drift=Drift(-0.7, -0.7), validation=(("v", 0.01, 0.02),))
    for calibration, said in ((plain, False), (trained, True)):
        found = replace(run, calibrations=(("water", calibration),), n_train=78, predictions={})
        (forecast,) = forecast_figure(found)
        assert ("models of now" in forecast.note) is said
