from dataclasses import replace

import numpy as np
import pytest

from aims_pax.report.figures.parity import _far_and_even, parity_figure


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


@pytest.mark.usefixtures("undrawn")
def test_energies_are_per_atom_and_relative_to_the_mean_of_their_system(run):
    energy = parity_figure(run)[0]
    assert energy.name == "parity_energy"
    p = run.predictions
    each = 1000 * p["true_energy"] / p["n_atoms"]
    expected = [
        x - each[p["system"] == s].mean()
        for x, s, split in zip(each, p["system"], p["split"], strict=True)
        if split != "train"
    ]
    found = energy.table["reference_meV/atom"]
    np.testing.assert_allclose(sorted(found), sorted(expected), atol=1e-9)
    wrong = 1000 * (p["energy"] - p["true_energy"]) / p["n_atoms"]
    np.testing.assert_allclose(
        sorted(np.subtract(energy.table["model_meV/atom"], found)),
        sorted(wrong[p["split"] != "train"]),
        atol=1e-9,
    )


@pytest.mark.usefixtures("undrawn")
def test_frames_that_were_trained_on_are_shown_as_such_unless_there_are_no_others(run):
    assert ("training") in [words for _, words in parity_figure(run)[0].legend]
    p = {**run.predictions, "split": np.full(len(run.predictions["split"]), "train")}
    energy, forces, *_ = parity_figure(replace(run, predictions=p))
    assert set(energy.table["split"]) == {"train"}
    assert len(forces.table["group"]) == 3 * len(p["numbers"])
    assert "training" not in [words for _, words in energy.legend]


def test_of_many_points_the_largest_errors_are_drawn():
    x = np.zeros(1000)
    y = np.where(np.arange(1000) % 97 == 5, 3.0, 0.001)
    k = _far_and_even(x, y, 200)
    assert len(k) <= 200
    assert (y[k] == 3.0).sum() == (y == 3.0).sum()
    assert _far_and_even(x, y, 1000).tolist() == list(range(1000))
