"""The bound that a spread gives for the error holds for structures met at random, also when only large spreads are
labelled, models change and the settings are changed in between."""

import math

import numpy as np
import pytest

from aims_pax.core.error_calibration import (
    BELIEVED,
    FEWEST,
    MEMORY,
    Drift,
    ErrorCalibration,
)
from aims_pax.record.checkpoint import from_plain, to_plain
from tests.sweeps import thinned


class SimulatedLearning:
    """A run in numbers: the mean error falls as n^-0.45, the spread follows it, frames scatter around both.

    hidden: how much worse (in ln e) selected frames are than others of their spread. wider: how much more they scatter
    (1.3 to 1.4 in runs of ethanol and glycol). drift: of ln(spread) with ln n.
    """

    def __init__(
        self, seed, slope=0.8, noise=0.4, hidden=0.0, wider=1.3, drift=0.0, floor=0.0, share=0.2, heavy=False
    ):
        self.rng, self.wider = np.random.default_rng(seed), wider
        self.slope, self.noise, self.hidden, self.drift, self.share = slope, noise, hidden, drift, share
        self.floor, self.heavy = floor, heavy
        self.calibration, self.n, self.labels = ErrorCalibration(), 18, 0
        self.c_x, self.hotter, self.spreads = 0.0, 0.0, []

    def mean_error(self, n):
        wide = math.exp((self.slope * 0.5) ** 2 / 2 + self.noise**2 / 2)
        return (0.9 * n**-0.45 + self.floor) * math.exp(self.hotter) * wide

    def check(self, target=math.inf):
        """One uncertainty check, labelled or not; (error, bound before) of the frame."""
        level = math.log(0.9 * self.n**-0.45 + self.floor) + self.hotter
        u, dice = self.rng.normal(0, 0.5), self.rng
        spread = math.exp(level - 1.1 + u + self.drift * math.log(self.n))
        scatter = dice.standard_t(4) / math.sqrt(2) if self.heavy else dice.normal()
        usual = level + self.slope * u
        error = math.exp(usual + self.noise * scatter)
        self.spreads = [*self.spreads, spread][-400:]
        self.calibration = self.calibration.seen(spread, 20, 2 * target)
        fitted = self.calibration.map
        bound = None if fitted is None else fitted.bound(spread)
        threshold = (1 + self.c_x) * np.mean(self.spreads) if len(self.spreads) > 10 else math.inf
        if self.calibration.n_audits < self.share * self.labels and dice.random() < 0.1:
            self.label(spread, error, False)
        elif spread > threshold and dice.random() < 0.35:
            self.label(spread, math.exp(usual + self.hidden + self.wider * self.noise * scatter), True)
        return error, bound

    def label(self, spread, error, selected):
        self.calibration = self.calibration.labelled(spread, error, error / 4, self.n, selected, 0.9)
        self.labels, self.n = self.labels + 1, self.n + 1


def coverage(labels=60, change=None, runs=20, **how):
    """Share of frames, met at random, whose error was below the bound."""
    inside = []
    for seed in range(runs):
        run = SimulatedLearning(seed, **how)
        while run.labels < labels:
            if change and run.labels >= labels // 2:
                run.c_x, run.hotter = change
            error, bound = run.check()
            if bound is not None:
                inside.append(error <= bound)
    return np.mean(inside)


CASES = {
    "selection by the spread alone": {},
    "few labels": {"labels": 25, "runs": 40},
    "many labels": {"labels": 250, "runs": 4},
    "error grows faster than the spread": {"slope": 1.3},
    "error hardly follows the spread": {"slope": 0.3},
    "outliers": {"heavy": True},
    "spreads shrink faster than errors": {"drift": -0.2},
    "other threshold and temperature from the middle on": {"change": (0.5, 0.5)},
    "lower threshold, hotter": {"change": (-0.5, 0.5)},
    "colder": {"change": (-0.3, -0.4)},
    "budget raised in between": {"labels": 120, "change": (0.3, 0.2), "runs": 12},
}


@pytest.mark.parametrize("case", thinned(CASES, 3))
def test_ninety_percent_of_the_frames_met_are_below_the_bound(case):
    assert 0.87 <= coverage(**CASES[case]) <= 0.93


def test_selection_by_something_else_than_the_spread_makes_the_bound_a_little_wider():
    """Selected structures that are worse than others of their spread: the audit structures correct a part of it."""
    assert 0.88 <= coverage(hidden=0.2) <= 0.96
    assert coverage(hidden=0.2, share=0.0, runs=10) >= coverage(hidden=0.2, share=0.5, runs=10)


def test_without_audit_structures_the_bound_holds_too_when_selection_is_by_the_spread_alone():
    assert 0.86 <= coverage(share=0.0, runs=20) <= 0.95


def test_the_tally_of_audit_structures_is_the_coverage_that_a_user_sees():
    calibrations = []
    for seed in range(30):
        run = SimulatedLearning(seed)
        while run.labels < 60:
            run.check()
        calibrations.append(run.calibration)
    audits, covered = (sum(getattr(c, k) for c in calibrations) for k in ("audits", "covered"))
    assert audits > 250
    assert 0.86 <= covered / audits <= 0.95


def filled(n, begin=None, slope=1.0, factor=3.0, seed=0, n_train=20):
    rng = np.random.default_rng(seed)
    calibration = ErrorCalibration() if begin is None else begin
    for k in range(n):
        spread = math.exp(rng.normal(-3, 0.7))
        error = factor * spread**slope * math.exp(0.3 * rng.normal())
        calibration = calibration.labelled(spread, error, error / 4, n_train + k, k % 4 > 0, 0.9)
    return calibration


def test_there_is_no_bound_before_five_pairs():
    assert filled(FEWEST - 1).map is None
    assert filled(FEWEST).map is not None


@pytest.mark.parametrize("n", [FEWEST, 12, 60, 600])
def test_it_is_sensible_from_few_pairs_to_many(n):
    fitted = filled(n).map
    assert fitted.expected(0.05) == pytest.approx(3 * 0.05, rel=0.5)
    assert fitted.expected(0.02) < fitted.expected(0.05) < fitted.bound(0.05) < 6 * fitted.expected(0.05)
    assert fitted.spread_at(fitted.bound(0.05)) == pytest.approx(0.05)
    if n == 600:
        assert fitted.expected(0.05) == pytest.approx(3 * 0.05 * math.exp(0.3**2 / 2), rel=0.06)
        assert fitted.bound(0.05) == pytest.approx(3 * 0.05 * math.exp(1.28 * 0.3), rel=0.12)


def test_errors_that_fall_with_the_spread_do_not_make_a_decreasing_map():
    fitted = filled(60, slope=-1.0, factor=0.001).map
    assert fitted.slope == 0
    assert fitted.bound(0.01) == fitted.bound(0.1)
    assert fitted.spread_at(2 * fitted.bound(0.1)) == math.inf
    assert fitted.spread_at(fitted.bound(0.1) / 2) == 0


def test_pairs_of_models_that_knew_less_lose_their_weight():
    calibration = filled(40)
    for k in range(40):  # the same models later: errors twice as large for the same spread
        spread = 0.05 * 1.02**k
        calibration = calibration.labelled(spread, 6 * spread, 2 * spread, 200 + k, False, 0.9)
    assert calibration.map.expected(0.05) == pytest.approx(0.3, rel=0.1)


def validation(spread, error, names="abc"):
    return tuple((name, spread * (k + 1), error * (k + 1)) for k, name in enumerate(names))


def test_models_that_agree_before_they_are_right_are_not_believed():
    """Training divides the spreads by four and the errors by two: the old pairs alone would promise half the error."""
    change = 0.25 ** (1 / BELIEVED), 0.5 ** (1 / BELIEVED)
    first, then = validation(0.05, 0.2), validation(0.05 * change[0], 0.2 * change[1], "abcd")
    before = filled(30, ErrorCalibration().trained(first, 0.9))
    after = before.trained(then, 0.9)
    for factor in (0.7, 1.0, 1.5):
        old, new = before.map.expected(0.05 * factor), after.map.expected(0.05 * factor / 4)
        assert new == pytest.approx(old / 2, rel=0.02)
        assert after.map.bound(0.05 * factor / 4) == pytest.approx(
            before.map.bound(0.05 * factor) / 2, rel=0.02
        )
    assert before.map.expected(0.05 / 4) < 0.7 * after.map.expected(0.05 / 4)


def test_the_drift_is_that_of_structures_that_were_there_before_and_after():
    calibration = ErrorCalibration().trained(validation(0.05, 0.2), 0.9)
    assert calibration.drift == Drift()
    calibration = calibration.trained((("a", 0.025, 0.1), ("new", 7.0, 9.0)), 0.9)
    assert (calibration.drift.spread, calibration.drift.error) == pytest.approx((math.log(0.5),) * 2)
    assert calibration.trained((("other", 1.0, 1.0),), 0.9).drift == calibration.drift


def test_pairs_that_know_nothing_of_a_drift_stay_as_they_are():
    """Those of snapshots of earlier versions, and of runs without validation structures."""
    before = filled(30)
    after = before.trained(validation(0.05, 0.2), 0.9).trained(validation(0.01, 0.1), 0.9)
    assert after.map == before.map


def test_what_is_not_a_positive_number_is_left_out():
    full = filled(20)
    for values in ((0.0, 0.1, 0.1), (0.1, math.nan, 0.1), (math.inf, 0.1, 0.1), (0.1, 0.0, 0.0)):
        assert full.labelled(*values, 50, True, 0.9) == full


def test_memory_and_cost_are_bounded():
    calibration = filled(MEMORY + 50)
    assert len(calibration.pairs) == MEMORY
    assert len(calibration.seen(0.1).seen(0.2).recent) == 2


def test_the_length_without_a_new_region_counts_md_steps():
    calibration = filled(30).seen(0.05, 20, 1.0).seen(0.05, 20, 1.0)
    assert calibration.quiet == 40
    assert calibration.seen(5.0, 20, 1.0).quiet == 0


def test_it_comes_back_from_a_snapshot_as_it_was():
    calibration = filled(30, ErrorCalibration().trained(validation(0.05, 0.2), 0.9)).seen(0.05)
    calibration = calibration.trained(validation(0.04, 0.1), 0.9)
    back = from_plain(ErrorCalibration, to_plain(calibration))
    assert back == calibration
    assert back.fitted(0.9).map == calibration.map
