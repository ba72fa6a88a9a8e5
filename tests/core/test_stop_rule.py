"""The stop rule ends runs near the labels where hindsight would, and not while the error is far above the target."""

import math

import numpy as np
import pytest

from aims_pax.core.error_calibration import BELIEVED, ErrorCalibration
from aims_pax.core.stop_rule import (
    contradicted,
    decide,
    labels_to_target,
    mean_error_curve,
    mean_errors,
    round_label_count,
)
from tests.core.test_error_calibration import SimulatedLearning, filled

QUIET = 400


def ended(seed, target, most=400, change=None, **how):
    """The simulated run and its last decision; most: labels."""
    run, decision = SimulatedLearning(seed, **how), None
    while run.labels < most:
        before = run.labels
        if change and run.labels >= change[0]:
            run.c_x, run.hotter = change[1:]
        run.check(target)
        if run.labels > before and run.labels % 2 == 0:
            decision = decide(run.calibration, run.n, target, 0.9)
        reached = decision is not None and decision.verdict == "reached"
        if (reached and run.calibration.quiet >= QUIET) or (decision and decision.verdict == "no gain"):
            break
    return run, decision


def hindsight(run, target):
    return next(n for n in range(18, 3000) if run.mean_error(n) <= target)


def test_twelve_runs_end_near_the_labels_of_hindsight():
    ratios, errors = [], []
    for seed in range(12):
        target = (0.14, 0.16, 0.18)[seed % 3]
        run, decision = ended(seed, target)
        assert decision.verdict == "reached"
        ratios.append(run.n / hindsight(run, target))
        errors.append(run.mean_error(run.n) / target)
    assert max(errors) <= 1.2
    assert 0.9 <= np.median(ratios) <= 1.3
    assert np.mean(np.array(ratios) <= 1.5) >= 0.8


def test_a_change_of_temperature_in_between_does_not_end_it_too_early():
    for seed in range(6):
        run, decision = ended(seed, 0.2, change=(25, 0.3, 0.4))
        if decision.verdict == "reached" and run.labels > 25:
            assert run.mean_error(run.n) <= 1.25 * 0.2


def test_a_target_below_the_floor_is_given_up():
    verdicts = []
    for seed in range(4):
        run, decision = ended(seed, 0.08, most=220, floor=0.12)
        verdicts.append(decision.verdict)
        assert decision.verdict != "reached"
    assert "no gain" in verdicts


def test_few_labels_or_few_random_ones_decide_nothing():
    assert decide(ErrorCalibration(), 20, 0.1, 0.9).reason.startswith("too few labels to judge: 0 structures")
    only_selected = SimulatedLearning(0, share=0.0)
    while only_selected.labels < 60:
        only_selected.check()
    decision = decide(only_selected.calibration, only_selected.n, 10.0, 0.9)
    assert decision.verdict == "open"
    assert math.isnan(decision.error)


def test_structures_drawn_at_random_count_more_than_selected_ones():
    run = SimulatedLearning(0)
    while run.labels < 60:
        run.check()
    pairs = run.calibration.pairs
    _, _, scatter = mean_errors(run.calibration)
    neighbours = [k for k in range(len(pairs) - 1) if pairs[k + 1].selected and not pairs[k].selected]
    assert len(neighbours) > 5
    assert all(scatter[k] < 0.9 * scatter[k + 1] for k in neighbours)


def test_audit_structures_alone_can_contradict():
    calibration = filled(40)
    assert not contradicted(calibration, 60, 10.0)
    for k in range(6):
        calibration = calibration.labelled(0.01, 2.0 + 0.1 * k, 0.5, 60, False, 0.9)
    assert contradicted(calibration, 60, 0.5)


def test_the_reason_is_a_text_with_numbers_that_a_user_can_act_on():
    run = SimulatedLearning(3)
    while run.labels < 40:
        run.check()
    decision = decide(run.calibration, run.n, 0.1, 0.9)
    assert decision.verdict == "open"
    words = decision.reason
    assert "meV/Å on average (90 % bound" in words
    assert "target 100" in words
    assert "more labels would bring" in words
    assert decision.upper > decision.error > 0.1
    curve = mean_error_curve(run.calibration, run.n)
    assert labels_to_target(curve, 0.1) in words


@pytest.mark.parametrize(("n", "shown"), [(0.3, 1), (7.2, 8), (43, 43), (431, 440), (12345, 13000)])
def test_numbers_of_labels_have_two_digits(n, shown):
    assert round_label_count(n) == shown


def measured(then, now, n=30):
    """Errors of 0.2 eV/Å, all at one size of the training set. then, now: errors of one validation structure in eV/Å,
    when they were measured and afterwards; None: not measured."""
    random = np.random.default_rng(3)
    calibration = ErrorCalibration()
    if then is not None:
        calibration = calibration.trained((("v", 0.05, then),), 0.9)
    for k in range(n):
        spread = 0.05 * math.exp(random.normal(0, 0.3))
        error = 4 * spread * math.exp(random.normal(0, 0.3))
        calibration = calibration.seen(spread).labelled(spread, error, error / 4, 50, k % 3 > 0, 0.9)
    return calibration if now is None else calibration.trained((("v", 0.05, now),), 0.9)


def test_errors_are_brought_to_the_present_by_what_training_did_to_validation_structures():
    half = 0.03 * 0.5 ** (1 / BELIEVED)
    before, after = (mean_error_curve(measured(0.03, now), 50).at(50) for now in (0.03, half))
    assert after.error == pytest.approx(before.error / 2, rel=1e-9)
    target = 1.3 * after.error
    assert decide(measured(0.03, 0.03), 50, target, 0.9).verdict == "open"
    assert decide(measured(0.03, half), 50, target, 0.9).verdict == "reached"


@pytest.mark.parametrize("then_and_now", [(None, 0.02), (None, None)])
def test_an_unknown_change_of_the_models_leaves_it_to_the_learning_curve(then_and_now):
    unknown = measured(None, None)
    for n_now in (50, 90):
        mine = mean_error_curve(measured(*then_and_now), n_now).at(n_now)
        assert mine == mean_error_curve(unknown, n_now).at(n_now)
    assert mean_error_curve(unknown, 90).at(90).error < mean_error_curve(unknown, 50).at(50).error
