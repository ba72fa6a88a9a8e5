"""The live view: what is in it, that it fits 80 columns, and that a pipe sees nothing of it."""

import io
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
from rich.console import Console

from aims_pax.core import active_learning, convergence
from aims_pax.core.error_calibration import ErrorCalibration, ErrorMap
from aims_pax.core.rules import ActiveLearningRules, ConvergenceRules
from aims_pax.core.threshold import Threshold
from aims_pax.report.live_view import LIMITS, Display, LastCheck, StageClock, bar

RULES = ActiveLearningRules(20, 0.0, 0.1, 2, 1, max_steps=10_000_000, max_train=1000, max_labels=500)
LABELLER = SimpleNamespace(calls=SimpleNamespace(begun=14, finished=9, failed={"NotConverged": 2}))


def drawn(stage, state, rules, seen=None, height=50):
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=height, legacy_windows=False)
    display = Display(console)
    with display.on():
        display.show(stage, state, rules, "moving", LABELLER, seen)
        lines = display._live.renderable
        capture = Console(file=io.StringIO(), width=80)
        capture.print(lines)
    return capture.file.getvalue()


def exploring(n=3):
    state = active_learning.begin(
        tuple(f"a rather long name of a system {i}" for i in range(n)), RULES, 60, {}
    )
    threshold = Threshold()
    for _ in range(10):
        threshold = threshold.seen((0.2,))
    return active_learning.replace(state, thresholds=(("", threshold),), n_asked=12, force_mae=(0.05, 0.07))


def test_trajectories_with_step_temperature_and_uncertainty_against_the_threshold():
    text = drawn("explore", exploring(), RULES, {0: LastCheck(512.4, 0.1), 1: LastCheck(300.0, 0.4)})
    assert "60 of 1000 training points (a member) · 12 of 500 labels asked" in text
    assert "threshold 0.200 eV/Å · force MAE 60.0 meV/Å" in text
    first, second, third = (line for line in text.splitlines() if line.startswith("▶"))
    assert " 512 " in first
    assert "0.100 ━━━━━     │" in first
    assert " 300 " in second
    assert "━━━━━━━━━━│━━━" in second
    assert third.split("/ 10000000")[1].split() == ["running"]
    assert "σ and threshold" in text
    assert "reference since this start · 3 under way · 9 done · 2 failed (2 NotConverged)" in text


def test_with_a_calibration_its_threshold_is_shown():
    fitted = ErrorMap(math.log(3.0), 1.0, 0.0, 0.3, 0.0, 1.0, 40.0)  # a bound of 3 × the spread
    rules = replace(RULES, per_system=True, calibrated=True, target_error=0.15)
    state = active_learning.begin(("water",), rules, 60, {})
    state = replace(state, calibrations=(("water", ErrorCalibration(map=fitted)),))
    assert "threshold 0.050 eV/Å" in drawn("explore", state, rules)


def test_before_exploration_no_time_left_is_guessed():
    rules = replace(RULES, warm_up_epochs=50)
    state = active_learning.begin(("water",), rules, 60, {})
    assert list(LIMITS["explore"](state, rules)) == []
    clock = StageClock()
    clock.now("explore", "training", 0, [])
    clock.now("explore", "training", 85, [])
    clock.now("explore", "moving", 86, [("max_labels", 0, 60)])
    clock.now("explore", "moving", 106, [("max_labels", 5, 60)])
    assert "about 4 min left" in clock.line(106)  # 220 s


@pytest.mark.parametrize("height", [24, 40])
def test_it_fits_a_terminal_with_many_trajectories_and_long_names(height):
    text = drawn("explore", exploring(400), RULES, {i: LastCheck(1e4, 9.999) for i in range(400)}, height)
    assert max(map(len, text.splitlines())) <= 80
    assert len(text.splitlines()) < height
    assert "more trajectories: " in text
    assert text.count("▶") + int(text.split("… and ")[1].split()[0]) == 400


@pytest.mark.parametrize("name", ["converge", "converge-initial", "train-given"])
def test_convergence_under_any_of_its_names(name):
    rules = ConvergenceRules((1,), 10, 0.0, 500)
    assert "convergence · member 1 · epoch 0 of 500" in drawn(name, convergence.begin(rules), rules)


def test_a_pipe_sees_nothing():
    file = io.StringIO()
    display = Display(Console(file=file))
    with display.on():
        display.show("explore", exploring(), RULES, "moving", LABELLER)
    assert file.getvalue() == ""


def test_the_time_is_shared_out():
    clock = StageClock()
    for now, doing in ((0, "moving"), (30, "training"), (40, "moving")):
        clock.now("explore", doing, now)
    assert clock.line(40) == "now: dynamics · 40 s · dynamics 75 % · training 25 %"
    assert clock.line(60) == "now: dynamics · 60 s · dynamics 83 % · training 17 %"  # a turn that lasts
    clock.now("converge", "training", 50)
    assert clock.seconds == {}


def test_what_is_left_follows_from_what_was_done_since_the_clock_was_started():
    """A run that goes on, or begins with 20 of 60 training points, has not done these in its first seconds."""
    clock = StageClock()
    clock.now("explore", "moving", 0, [("max_train_set_size", 20, 60), ("max_labels", 0, math.inf)])
    clock.now("explore", "moving", 1, [("max_train_set_size", 21, 60), ("max_labels", 1, math.inf)])
    assert "left" not in clock.line(1)
    clock.now("explore", "moving", 60, [("max_train_set_size", 30, 60), ("max_labels", 10, math.inf)])
    assert clock.line(60) == "now: dynamics · 60 s · about 3 min left (max_train_set_size 60)"


def test_a_pause_is_no_part_of_the_time():
    rested = [0.0]
    clock = StageClock(lambda: rested[0])
    clock.now("explore", "moving", 0)
    rested[0] = 500.0
    clock.now("explore", "training", 510)
    assert clock.seconds == {"moving": 10.0}
    rested[0] = 600.0
    assert clock.line(615).startswith("now: training · 15 s")


def test_the_line_of_the_time_fits_and_keeps_the_time_left():
    clock = StageClock()
    for k, doing in enumerate(("moving", "training", "sampling", "waiting") * 3):
        clock.now("explore", doing, 1000 * k, [("max_train_set_size", 20 + k, 60)])
    line = clock.line(11_000, 60)
    assert len(line) <= 60
    assert line.endswith("left")
    assert clock.line(11_000, 150).endswith("left (max_train_set_size 60)")
    assert "training 27 %" in clock.line(11_000, 81)


def test_a_pause_is_seen():
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=24)
    display = Display(console)
    display.rest(True)  # before there is anything to draw
    with display.on():
        display.show("explore", exploring(), RULES, "moving", LABELLER)
        display.rest(True)
        capture = Console(file=io.StringIO(), width=80)
        capture.print(display._live.renderable)
    assert "paused at" in capture.file.getvalue()
    assert "active learning" in capture.file.getvalue()
    assert "now:" not in capture.file.getvalue()


def test_there_is_no_bar_without_a_threshold():
    assert bar(0.1, math.inf) == bar(math.nan, 0.1) == ""
