import numpy as np
import pytest

from aims_pax.report.figures.parity import parity_figure


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
