"""What is said about target_error: reached, not, or out of reach, with its standard error and what to do."""

import math
from dataclasses import replace

import numpy as np
import pytest

from aims_pax.report.html_page import page
from aims_pax.report.run_verdict import run_verdict
from aims_pax.report.target_error import errors_of_systems, target_verdict
from tests.core.test_error_calibration import SimulatedLearning

TARGET = "aimsPAX.ACTIVE_LEARNING.target_error"


@pytest.fixture(scope="module")
def calibration():
    simulated = SimulatedLearning(4)
    while simulated.labels < 60:
        simulated.check()
    return simulated.calibration


def aimed(run, target, calibrations=(), errors=None, tests=0):
    """The recorded run with a target; errors: largest force error (eV/Å) of training and of test frames."""
    p = {k: np.array(v) for k, v in run.predictions.items()}
    if errors is not None:
        n = len(p["n_atoms"])
        p["split"] = np.array(["test"] * tests + ["train"] * (n - tests))
        p["system"] = np.array(["water"] * n)
        rng = np.random.default_rng(0)
        each = np.where(p["split"] == "test", errors[1], errors[0]) * rng.uniform(0.9, 1.1, n)
        p["forces"] = np.array(p["true_forces"])
        p["forces"][:, 0] += np.repeat(each, p["n_atoms"])
    stages = tuple(
        replace(s, stopped="max_labels: 40 reference calculations") if s.name == "explore" else s
        for s in run.stages
    )
    settings = {**run.settings, TARGET: str(target)}
    return replace(
        run,
        settings=settings,
        stages=stages,
        predictions=p if errors else {},
        calibrations=calibrations,
        n_train=78,
    )


def test_without_a_target_nothing_is_judged(run):
    assert target_verdict(aimed(run, 0.0)) is None


def test_the_test_frames_decide_and_carry_a_standard_error(run):
    found = aimed(run, 0.2, errors=(0.05, 0.15), tests=8)
    (of_water,) = errors_of_systems(found)
    assert of_water.on == "8 test frames"
    assert 0 < of_water.standard_error < 0.01
    said = target_verdict(found)
    assert said.kind == "reached"
    assert said.text.startswith("Target reached: water: largest force error 15")
    assert " ± " in said.text
    assert "target_error is 200 meV/Å." in said.text
    assert run_verdict(found).kind == "reached"
    assert '<p class="verdict reached">Target reached' in page(found)[0]


def test_a_training_error_above_the_target_means_that_the_model_is_too_small(run):
    said = target_verdict(aimed(run, 0.1, errors=(0.14, 0.2), tests=8))
    assert said.kind == "unreachable"
    assert "cannot be reached with this model size" in said.text
    assert "already on its training frames; target_error is 100 meV/Å" in said.text
    assert "a larger model" in said.text


def stopped(run, stage, why):
    """The run with this stage, ended for this reason."""
    assert any(s.name == stage for s in run.stages)
    return replace(run, stages=tuple(replace(s, stopped=why) if s.name == stage else s for s in run.stages))


def test_a_training_that_was_cut_off_says_nothing_about_the_size_of_the_model(run):
    found = stopped(
        aimed(run, 0.1, errors=(0.14, 0.2), tests=8), "converge", "max_convergence_epochs: 9 epochs"
    )
    assert math.isnan(errors_of_systems(found)[0].training)
    said = run_verdict(found).text
    assert "cannot be reached" not in said
    longer, more = (
        said.index("raise ACTIVE_LEARNING.max_convergence_epochs"),
        said.index("raise ACTIVE_LEARNING.max_labels"),
    )
    assert longer < more


@pytest.mark.parametrize(
    ("judged", "advice", "never"),
    [
        ("reached, largest force error 90 ± 9 meV/Å", "lower ACTIVE_LEARNING.target_error a little", "a larger model"),
        ("no gain, largest force error 190 ± 9 meV/Å", "Next: a larger model", "lower ACTIVE_LEARNING"),
    ],
)  # fmt: skip
def test_what_to_do_after_a_stop_by_itself_follows_from_its_reason(run, judged, advice, never):
    found = stopped(aimed(run, 0.1, errors=(0.02, 0.2), tests=8), "explore", f"when_done: water: {judged}")
    said = run_verdict(found).text
    assert advice in said
    assert never not in said


def test_a_missed_target_beside_a_reached_accuracy_has_a_next_step(run):
    found = aimed(run, 0.1, errors=(0.02, 0.2), tests=8)
    split = np.where(found.predictions["split"] == "train", "valid", "test")
    found = replace(found, predictions={**found.predictions, "split": split},
                    settings={**found.settings, "aimsPAX.ACTIVE_LEARNING.desired_acc": "0.1"})  # fmt: skip
    said = run_verdict(found)
    assert said.kind == "missed"
    assert "raise ACTIVE_LEARNING.max_labels" in said.text


def test_a_missed_target_comes_with_what_labels_would_bring(run, calibration):
    found = aimed(run, 0.1, (("water", calibration),), errors=(0.02, 0.2), tests=8)
    end = run_verdict(found)
    assert end.kind == "missed"
    assert end.text.startswith("Target not reached: water")
    assert "more labels would bring" in end.text
    assert "raise ACTIVE_LEARNING.max_labels, then run the same command" in end.text


def test_without_enough_test_frames_the_errors_before_learning_are_used(run, calibration):
    (e,) = errors_of_systems(aimed(run, 0.1, (("water", calibration),), errors=(0.02, 0.1), tests=3))
    assert e.on == "60 structures before they were learnt"
    now = e.curve.at(78)
    assert (e.error, e.standard_error) == (now.error, now.standard_error)


def test_an_error_from_before_learning_names_what_would_measure_the_model(run, calibration):
    few = target_verdict(aimed(run, 0.1, (("water", calibration),), errors=(0.02, 0.1), tests=3))
    assert few.text.endswith(
        "ACTIVE_LEARNING.n_test: 5 or more test frames would measure the delivered model itself."
    )
    assert "n_test" not in target_verdict(aimed(run, 0.2, errors=(0.05, 0.15), tests=8)).text


@pytest.mark.parametrize(("standard_errors_above", "near"), [(0.5, True), (3.0, False)])
def test_a_target_that_was_hardly_missed_is_not_said_to_be_missed_for_certain(
    run, standard_errors_above, near
):
    (e,) = errors_of_systems(aimed(run, 0.1, errors=(0.02, 0.2), tests=8))
    said = target_verdict(
        aimed(run, e.error - standard_errors_above * e.standard_error, errors=(0.02, 0.2), tests=8)
    )
    assert said.kind == "missed"
    assert (
        said.text.startswith("Target not reached, by less than the uncertainty of the measurement: ") == near
    )


def test_few_labels_leave_it_unknown(run):
    said = target_verdict(aimed(run, 0.1))
    assert said.kind == "unknown"
    assert "too few labelled structures" in said.text


def test_an_error_just_below_the_target_on_scattered_frames_is_no_proof(run, calibration):
    now = errors_of_systems(aimed(run, 0.1, (("water", calibration),)))[0]
    assert math.isfinite(now.standard_error)
    target = now.error * 1.001
    upper = now.error + 1.2816 * now.standard_error
    said = target_verdict(aimed(run, target, (("water", calibration),)))
    assert said.kind == ("reached" if upper <= 1.2 * target else "doubtful")


def test_the_advice_to_draw_test_frames_is_given_once(run, calibration):
    water = (("water", calibration),)
    now = errors_of_systems(aimed(run, 0.1, water))[0]
    # a bound far above the estimate
    unsure = replace(calibration, map=replace(calibration.map, systematic=1.0))
    said = target_verdict(aimed(run, 1.001 * now.error, (("water", unsure),)))
    assert said.kind == "doubtful"
    assert said.text.count("n_test") == 1


def test_without_a_goal_the_forecast_is_still_given(run, calibration):
    said = run_verdict(aimed(run, 0.0, (("water", calibration),))).text
    assert "Expected: water: " in said
    assert "more labels would bring" in said
