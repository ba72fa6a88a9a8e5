import numpy as np
import pytest

from aims_pax.report.figures import learning


def test_delivered_errors_are_those_of_the_validation_frames(run):
    p = run.predictions
    valid = np.repeat(p["split"] == "valid", p["n_atoms"])
    mae = np.abs(p["forces"] - p["true_forces"])[valid].mean()
    assert learning.delivered_errors(run)[0] == pytest.approx(mae)
