import numpy as np
import pytest

from aims_pax.report import predictions
from aims_pax.report.accuracy import by_element, by_system, held_out
from tests.report.wrong_model import SETS, Wrong


def test_errors_by_system_are_what_a_hand_gives():
    rows = {(r.split, r.group): r for r in by_system(predictions.predictions(Wrong(), SETS))}
    assert rows["valid", "h2"].energy_mae == pytest.approx(0.1)  # 0.2 eV, two atoms
    assert rows["valid", "oh"].energy_mae == pytest.approx(0.5)
    both = rows["valid", "all"]
    assert both.frames == 2
    assert both.energy_mae == pytest.approx(0.3)
    assert both.energy_rmse == pytest.approx(np.sqrt((0.1**2 + 0.5**2) / 2))
    assert both.force_mae == pytest.approx(0.2)
    assert both.force_rmse == pytest.approx(np.sqrt((0.1**2 + 0.3**2) / 2))
    assert np.isnan(both.stress_mae)
    assert rows["test", "solid"].stress_mae == pytest.approx(0.01)
    assert ("train", "all") not in rows  # one system is its own total


def test_errors_by_element_count_atoms():
    rows = {(r.split, r.group): r for r in by_element(predictions.predictions(Wrong(), SETS))}
    assert rows["valid", "O"].force_mae == pytest.approx(0.3)
    assert rows["valid", "H"].force_mae == pytest.approx((2 * 0.1 + 0.3) / 3)
    assert rows["valid", "H"].atoms == 3
    assert rows["valid", "H"].frames == 2


def test_test_frames_are_believed_before_validation_frames():
    p = predictions.predictions(Wrong(), SETS)
    name, part = held_out(p)
    assert (name, part["split"].tolist()) == ("test frames", ["test"])
    name, part = held_out(predictions.predictions(Wrong(), {k: SETS[k] for k in ("train", "valid")}))
    assert (name, part["split"].tolist()) == ("validation frames", ["valid", "valid"])
    assert held_out(predictions.predictions(Wrong(), {"train": SETS["train"]})) == ("", {})
