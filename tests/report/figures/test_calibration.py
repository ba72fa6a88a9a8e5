import math
from dataclasses import replace

import numpy as np
import pytest

from aims_pax.report.figures.calibration import calibration_figure
from aims_pax.report.run_record import LabelledPrediction


def checked(run, spread, error):
    pairs = enumerate(zip(spread, error, strict=True))
    return replace(run, predictions={}, checked=tuple(
        LabelledPrediction(str(k), 0, k, 10, s, math.inf, e / 2, e) for k, (s, e) in pairs
    ))  # fmt: skip


@pytest.mark.usefixtures("undrawn")
def test_during_the_run_the_largest_spread_stands_against_the_largest_error(run):
    (during,) = calibration_figure(checked(run, [0.1, 0.2, 0.4, 0.3], [0.2, 0.3, 0.9, 0.8]))
    assert during.name == "honesty_during"
    np.testing.assert_allclose(during.table["spread_eV_A"], [0.1, 0.2, 0.4, 0.3])
    np.testing.assert_allclose(during.table["error_eV_A"], [0.2, 0.3, 0.9, 0.8])
    assert during.note == "Rank correlation ρ = 1.00."
    assert "error = spread" not in [words for _, words in during.legend], "they are of different kinds"


@pytest.mark.usefixtures("undrawn")
def test_of_the_delivered_model_atoms_of_held_out_frames_count(run):
    (delivered,) = calibration_figure(replace(run, checked=()))
    p = run.predictions
    unseen = np.repeat(p["split"] == "test", p["n_atoms"])
    rms = np.sqrt(((p["forces"] - p["true_forces"])[unseen] ** 2).sum(axis=1) / 3)
    np.testing.assert_allclose(delivered.table["error_eV_A"], rms)
    assert "error = spread" in [words for _, words in delivered.legend]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("spread", [[0.1, 0.2], [0.0, 0.0, 0.0, 0.1]])
def test_too_few_points_are_no_figure(run, spread):
    assert calibration_figure(checked(run, spread, [0.3] * len(spread))) == []
    assert calibration_figure(replace(run, checked=(), predictions={})) == []
