"""Frames drawn at random measure the error, are learnt afterwards, and end the stage when it is small enough."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest

from aims_pax.core import active_learning
from aims_pax.core.active_learning import threshold_of
from aims_pax.core.audits import all_done
from aims_pax.core.error_calibration import ErrorMap
from aims_pax.core.rules import ActiveLearningRules
from aims_pax.core.stop_rule import mean_error_curve
from aims_pax.core.work import (
    AddToDataset,
    Advanced,
    FrameError,
    Labelled,
    MeasuredError,
    RequestLabel,
    RunMD,
    RunTraining,
    Selected,
    SelectFrames,
    Trained,
    UncertaintyCheck,
)
from aims_pax.record.checkpoint import from_plain, to_plain

BASE = ActiveLearningRules(skip_step=10, c_x=0.2, valid_ratio=0.1, epochs_per_worker=2, epochs_per_visit=2)
WINDOW = replace(BASE, acquisition="window", window=60, per_window=3)
AIMED = {"target_error": 0.15, "audit_share": 0.2, "audit_seed": 3}


class SimulatedEnvironment:
    """Answers the work of the core: errors are spread × 3 with scatter, and all fall with the training set."""

    def __init__(self, rules, seed=0, systems=("a", "a", "a"), scale=1.0, scales=None):
        self.rules, self.rng, self.scale, self.scales = rules, random.Random(seed), scale, scales or {}
        self.state = active_learning.begin(systems, rules, 20, {s: 5 for s in systems})
        self.spread, self.checks, self.added = {}, [], []

    def level(self):
        return (self.state.n_train / 20) ** -0.6

    def validation(self):
        """One structure of each system; models learn the second system twice as fast."""
        systems = dict.fromkeys(t.system for t in self.state.trajectories)
        levels = {system: self.learnt ** (k + 1) for k, system in enumerate(systems)}
        return tuple(FrameError(f"v-{s}", s, 0.1 * level, 0.3 * level) for s, level in levels.items())

    def event(self, work):
        match work:
            case RequestLabel(frame):
                s = self.spread[frame]
                error = 3 * s * math.exp(self.rng.gauss(0, 0.3))
                return Labelled(work, None, MeasuredError(s, error, error / 4))
            case RunTraining():
                self.learnt = self.level()
                return Trained(work, self.state.n_train, (1.0,), (0.1 * self.learnt,), self.validation())
            case SelectFrames():
                return Selected(work, work.frames[: work.n])
        name = f"f{work.trajectory}-{work.end}-{work.n_rewinds}"
        level = self.scale * self.scales.get(work.trajectory, 1.0) * 0.1 * self.level()
        self.spread[name] = level * math.exp(self.rng.gauss(0, 0.4))
        return Advanced(work, work.end, name, (self.spread[name],))

    def step(self):
        """One event; False when nothing is left to do."""
        works = active_learning.outstanding(self.state, self.rules)
        if not works:
            return False
        labels = [w for w in works if isinstance(w, RequestLabel)]
        work = labels[0] if labels and self.rng.random() < 0.5 else self.rng.choice(works)
        self.state, effects = active_learning.step(self.state, self.event(work), self.rules)
        self.checks += [e for e in effects if isinstance(e, UncertaintyCheck)]
        self.added += [e for e in effects if isinstance(e, AddToDataset)]
        return True

    def run(self, events):
        for _ in range(events):
            if not self.step():
                break
        return self


@pytest.mark.parametrize("base", [BASE, WINDOW], ids=["crossing", "window"])
def test_a_fifth_of_the_labels_is_drawn_at_random_and_then_learnt(base):
    environment = SimulatedEnvironment(replace(base, max_labels=60, **AIMED)).run(20000)
    audits = [c for c in environment.checks if c.decision == "audit"]
    assert environment.state.n_audits == len(audits)
    assert 9 <= len(audits) <= 15
    assert len(environment.added) == environment.state.n_asked  # every label enters the dataset, once
    assert len({e.frame for e in environment.added}) == len(environment.added)
    ((_, calibration),) = environment.state.calibrations
    assert len(calibration.pairs) == environment.state.n_asked
    assert calibration.n_audits == len(audits)


def test_drawn_frames_are_drawn_whatever_their_spread():
    small = 0
    for seed in range(3):
        environment = SimulatedEnvironment(
            replace(WINDOW, max_labels=60, **{**AIMED, "audit_seed": seed}), seed
        ).run(20000)
        small += sum(c.uncertainty <= c.threshold for c in environment.checks if c.decision == "audit")
        drawn = sum(c.decision == "audit" for c in environment.checks)
        assert drawn > 0
    assert small >= 10  # of about 35; a certain frame is labelled for no other reason


def test_without_a_target_no_frame_is_drawn_but_errors_are_collected():
    environment = SimulatedEnvironment(replace(BASE, max_labels=20)).run(5000)
    assert environment.state.n_audits == 0
    assert len(environment.state.calibrations[0][1].pairs) == 20
    assert environment.state.decisions == ()


def test_the_calibrated_threshold_is_the_spread_whose_bound_is_the_target():
    rules = replace(BASE, max_labels=40, calibrated=True, per_system=True, **AIMED)
    environment = SimulatedEnvironment(rules).run(5000)
    ((system, calibration),) = environment.state.calibrations
    δ = threshold_of(environment.state, system, rules)
    assert calibration.map.bound(δ) == pytest.approx(rules.target_error)
    assert 0.15 / 3 / 2.5 < δ < 0.15 / 3
    asked = [c for c in environment.checks if c.decision == "uncertain"]
    assert all(c.uncertainty > c.threshold for c in asked)


def test_until_there_is_a_calibration_the_mean_of_the_system_is_the_threshold():
    rules = replace(BASE, calibrated=True, per_system=True, **AIMED)
    state = active_learning.begin(("a",), rules, 20, {"a": 5})
    assert math.isinf(threshold_of(state, "a", rules))
    assert dict(state.thresholds).keys() == {"a"}


def done_rules(**more):
    return replace(
        WINDOW, max_labels=400, calibrated=True, per_system=True, quiet_wanted=600, **{**AIMED, **more}
    )


def test_when_done_ends_a_run_whose_error_is_small_enough():
    environment = SimulatedEnvironment(done_rules()).run(50000)
    assert environment.state.stopped.startswith("when_done: a: reached, largest force error")
    assert environment.state.n_asked < 400
    ((_, decision),) = environment.state.decisions
    assert decision.error <= 0.15
    true = 3 * 0.1 * (environment.state.n_train / 20) ** -0.6 * math.exp(0.4**2 / 2 + 0.3**2 / 2)
    assert true <= 1.2 * 0.15
    assert environment.state.audits == ()
    assert environment.state.window.pending == ()


def test_it_waits_for_every_system_and_for_md_without_a_new_region():
    environment = SimulatedEnvironment(done_rules(), systems=("a", "b", "a", "b"))
    while environment.state.stopped is None and environment.step():
        if all_done(environment.state, environment.rules):
            break
    assert {s for s, _ in environment.state.decisions} == {"a", "b"}
    assert all(c.quiet >= 600 for _, c in environment.state.calibrations)
    patient = replace(environment.rules, quiet_wanted=10**9)
    assert all_done(environment.state, patient) is None
    assert all_done(environment.state, replace(environment.rules, quiet_wanted=math.inf)) is None


def test_a_run_that_was_done_continues_with_a_smaller_target_or_without_the_stop_rule():
    environment = SimulatedEnvironment(done_rules()).run(50000)
    assert environment.state.stopped.startswith("when_done")
    same = active_learning.reopen(environment.state, ("a", "a", "a"), environment.rules)
    assert same.stopped == environment.state.stopped
    for changed in (
        replace(environment.rules, target_error=0.05),
        replace(environment.rules, quiet_wanted=math.inf),
    ):
        assert active_learning.reopen(environment.state, ("a", "a", "a"), changed).stopped is None


def test_limits_hold_and_no_frame_is_lost_whatever_comes_first():
    for seed in range(6):
        limit = (7, 23, 40)[seed % 3]
        rules = done_rules(audit_seed=seed) if seed % 2 else replace(BASE, **AIMED)
        rules = replace(rules, max_labels=limit, n_test=seed % 3, test_due=(0.2, 0.6)[: seed % 3],
                        test_trajectory=(0, 1)[: seed % 3])  # fmt: skip
        environment = SimulatedEnvironment(rules, seed)
        while environment.step():
            environment.state = from_plain(type(environment.state), to_plain(environment.state))
        assert environment.state.stopped, seed
        assert environment.state.n_asked <= limit
        assert len(environment.added) == environment.state.n_asked
        assert not [w for w in active_learning.outstanding(environment.state, rules) if isinstance(w, RunMD)]


@pytest.mark.parametrize("base", [BASE, WINDOW], ids=["crossing", "window"])
def test_audit_frames_come_from_fair_trajectories_only(base):
    environment = SimulatedEnvironment(replace(base, **AIMED, fair_trajectories=(1,), max_labels=60)).run(
        2000
    )
    drawn = {c.trajectory for c in environment.checks if c.decision == "audit"}
    assert drawn == {1}


def test_a_calibrated_threshold_far_below_the_spreads_calls_no_structure_impossible():
    """Errors above the target: the threshold is then a small part of a usual spread."""
    rules = replace(
        BASE, calibrated=True, per_system=True, exploded=4.0, max_labels=60, **{**AIMED, "target_error": 0.02}
    )
    environment = SimulatedEnvironment(rules).run(4000)
    δ = threshold_of(environment.state, "a", rules)
    assert δ < 0.02
    judged = [c for c in environment.checks if c.decision == "implausible"]
    assert len(judged) < 0.02 * len(environment.checks)
    rules = replace(rules, max_labels=10**6)
    environment = SimulatedEnvironment(rules).run(300)
    while not (
        moves := [w for w in active_learning.outstanding(environment.state, rules) if isinstance(w, RunMD)]
    ):
        assert environment.step()
    wild = Advanced(moves[0], moves[0].end, "wild", (5.0,))
    _, effects = active_learning.step(environment.state, wild, rules)
    assert [e.decision for e in effects if isinstance(e, UncertaintyCheck)] == ["implausible"]


def test_a_calibration_that_allows_no_spread_is_no_error():
    flat = ErrorMap(math.log(0.5), 0.0, 0.0, 0.3, 0.4, 1.1, 40.0)
    rules = replace(BASE, calibrated=True, per_system=True, exploded=4.0, max_labels=60, **AIMED)
    environment = SimulatedEnvironment(rules).run(400)
    ((name, calibration),) = environment.state.calibrations
    state = replace(environment.state, calibrations=((name, replace(calibration, map=flat)),))
    assert threshold_of(state, name, rules) == 0.0
    environment.state = state
    environment.run(50)


@pytest.mark.parametrize("factor", [1 / 3, 3.0])
def test_spreads_of_colder_and_hotter_trajectories_do_not_change_the_error_that_is_measured(factor):
    rules = replace(WINDOW, **AIMED, fair_trajectories=(1,), max_labels=80)
    environment = SimulatedEnvironment(rules, scales={0: factor, 2: factor}).run(20000)
    n = environment.state.n_train
    ((_, calibration),) = environment.state.calibrations
    # of the log-normal spreads and errors
    mean = 3 * 0.1 * (n / 20) ** -0.6 * math.exp((0.4**2 + 0.3**2) / 2)
    assert mean_error_curve(calibration, n).at(n).error == pytest.approx(mean, rel=0.35)


def test_analysed_frames_of_hot_trajectories_do_not_measure_the_error():
    rules = replace(BASE, **AIMED, fair_trajectories=(1,), max_labels=200, analysis_skip=10)
    counted = SimulatedEnvironment(rules).run(1500).state.calibrations
    everywhere = SimulatedEnvironment(replace(rules, fair_trajectories=())).run(1500).state.calibrations
    share = [np.mean([not p.selected for _, c in found for p in c.pairs]) for found in (counted, everywhere)]
    assert share[0] < 0.9 * share[1]


def test_what_each_training_did_to_validation_structures_is_remembered_with_the_errors_measured_after_it():
    environment = SimulatedEnvironment(replace(WINDOW, max_labels=40, **AIMED)).run(20000)
    ((_, calibration),) = environment.state.calibrations
    assert calibration.validation == (("v-a", 0.1 * environment.learnt, 0.3 * environment.learnt),)
    assert calibration.drift.error == pytest.approx(calibration.drift.spread)
    assert calibration.drift.error < math.log(0.8)
    # unknown before the first training
    seen = [p.drift.error for p in calibration.pairs if p.drift is not None]
    assert len(seen) > 30
    assert seen == sorted(seen, reverse=True)
    assert seen[0] > seen[-1]


def test_each_of_two_systems_has_a_drift_of_its_own():
    environment = SimulatedEnvironment(replace(WINDOW, max_labels=40, **AIMED), systems=("a", "b", "a")).run(
        20000
    )
    calibrations = dict(environment.state.calibrations)
    assert calibrations["a"].validation == (("v-a", 0.1 * environment.learnt, 0.3 * environment.learnt),)
    assert calibrations["b"].validation == (
        ("v-b", 0.1 * environment.learnt**2, 0.3 * environment.learnt**2),
    )
    assert calibrations["b"].drift.error == pytest.approx(2 * calibrations["a"].drift.error)
