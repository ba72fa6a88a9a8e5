import numpy as np
import pytest

from aims_pax.report import predictions
from aims_pax.report.accuracy import (
    by_element,
    by_system,
    energy_mae_with_error,
    force_mae_with_error,
    held_out,
)
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


def test_the_error_bar_of_frames_of_one_size_is_their_standard_error():
    wrong = np.array([0.1, 0.2, 0.6])  # eV/Å, of three frames of two atoms
    forces = np.repeat(wrong, 2)[:, None] * np.ones(3)
    arrays = {"forces": forces, "true_forces": np.zeros((6, 3)), "n_atoms": np.array([2, 2, 2])}
    mae, error, n = force_mae_with_error(arrays)
    assert (mae, n) == (pytest.approx(0.3), 3)
    assert error == pytest.approx(wrong.std(ddof=1) / np.sqrt(3))


def test_the_error_bar_of_frames_of_several_sizes_is_that_of_repeated_draws():
    rng = np.random.default_rng(0)

    def drawn():
        atoms = rng.choice([3, 12], size=30)
        errors = rng.gamma(2.0, 0.05, 30) * np.where(atoms == 12, 2.0, 1.0)
        forces = np.repeat(errors, atoms)[:, None] * np.ones(3)
        return force_mae_with_error({"forces": forces, "true_forces": 0 * forces, "n_atoms": atoms})

    found = np.array([drawn()[:2] for _ in range(400)])
    assert found[:, 1].mean() == pytest.approx(found[:, 0].std(), rel=0.1)


def test_one_frame_has_no_error_bar():
    arrays = {"forces": np.ones((2, 3)), "true_forces": np.zeros((2, 3)), "n_atoms": np.array([2])}
    assert np.isnan(force_mae_with_error(arrays)[1])


def test_the_energy_has_the_error_bar_of_a_mean_over_frames():
    n_atoms, each = np.array([2, 10, 5]), np.array([0.001, -0.002, 0.006])  # eV/atom
    arrays = {"energy": each * n_atoms, "true_energy": np.zeros(3), "n_atoms": n_atoms}
    mae, error, n = energy_mae_with_error(arrays)
    assert (mae, n) == (pytest.approx(0.003), 3)
    assert error == pytest.approx(np.abs(each).std(ddof=1) / np.sqrt(3))
    assert np.isnan(energy_mae_with_error({k: v[:1] for k, v in arrays.items()})[1])
