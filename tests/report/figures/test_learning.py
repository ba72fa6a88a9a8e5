from dataclasses import replace

import numpy as np
import pytest

from aims_pax.report.figures import learning
from aims_pax.report.run_record import Epoch, TrainingRecord


def test_delivered_errors_are_those_of_the_validation_frames(run):
    p = run.predictions
    valid = np.repeat(p["split"] == "valid", p["n_atoms"])
    mae = np.abs(p["forces"] - p["true_forces"])[valid].mean()
    assert learning.delivered_errors(run)[0] == pytest.approx(mae)


def visit(number, stage, labels, *maes):
    return TrainingRecord(stage, number, None, float(number), labels, 4 * labels, (1.0,) * len(maes), maes)


@pytest.mark.usefixtures("undrawn")
def test_errors_are_means_over_the_members_against_the_labels_there_were(run):
    epochs = {
        "a": (Epoch("initial", 0, 1, 1.0, 1.0, 0.9, 0.5), Epoch("initial", 0, 2, 1.0, 1.0, 0.010, 0.2),
              Epoch("explore", 0, 1, 1.0, 1.0, 0.004, 0.1)),
        "b": (Epoch("initial", 0, 2, 1.0, 1.0, 0.030, 0.4), Epoch("explore", 0, 1, 1.0, 1.0, 0.006, 0.1)),
    }  # fmt: skip
    visits = (visit(0, "initial", 5, 0.2, 0.4), visit(0, "explore", 9, 0.1, 0.1))
    made = replace(run, visits=visits, losses=epochs, predictions={}, convergence=())
    forces, energies = learning.learning_figure(made)
    assert forces.table["labels"] == [5, 9]
    assert forces.table["training_points"] == [20, 36]
    np.testing.assert_allclose(forces.table["force_MAE_(meV/Å)"], [300, 100])
    np.testing.assert_allclose(energies.table["energy_MAE_(meV/atom)"], [20, 5])
    assert [words for _, words in forces.legend] == ["initial dataset", "active learning"]
    without = learning.learning_figure(replace(made, visits=visits[1:]))
    assert without == [], "one point is no curve"


@pytest.mark.usefixtures("undrawn")
def test_without_an_initial_dataset_nothing_of_it_is_in_the_legend(run):
    visits = tuple(visit(k, "explore", 5 + k, 0.1) for k in range(3))
    (forces, *_) = learning.learning_figure(replace(run, visits=visits, predictions={}))
    assert [words for _, words in forces.legend] == ["active learning"]


@pytest.mark.usefixtures("undrawn")
def test_the_epochs_of_the_last_training_are_counted_from_one_for_each_member(run):
    epochs = tuple(Epoch("converge", k, 1, 1.0, 0.5 - 0.1 * k, 0.01, 0.2 - 0.01 * k) for k in range(3))
    losses = {"a": epochs, "b": (*epochs, epochs[0]), "c": epochs[:1]}
    (last,) = learning.learning_figure(replace(run, visits=(), losses=losses))
    assert last.name == "convergence"
    assert last.table["member"] == ["a"] * 3 + ["b"] * 4
    assert last.table["epoch"] == [1, 2, 3, 1, 2, 3, 4]
    np.testing.assert_allclose(last.table["force_MAE_meV_A"][:3], [200, 190, 180])


def test_the_delivered_model_stands_at_the_labels_of_its_last_training(run):
    visits = (visit(0, "explore", 5, 0.2), visit(1, "explore", 9, 0.1), visit(0, "converge", 12, 0.1))
    assert learning.delivered_labels(replace(run, visits=visits)) == 12
    assert learning.delivered_labels(replace(run, visits=visits[:2])) == 9
