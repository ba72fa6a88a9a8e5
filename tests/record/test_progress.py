"""The live view: what is in it, that it fits 80 columns, and that a pipe sees nothing of it."""

import io
import math
from types import SimpleNamespace

import pytest
from rich.console import Console

from aims_pax.core import converge, explore
from aims_pax.core.rules import ConvergeRules, ExploreRules
from aims_pax.core.threshold import Threshold
from aims_pax.record.progress import Clock, Display, Seen, bar, span

RULES = ExploreRules(20, 0.0, 0.1, 2, 1, max_steps=10_000_000, max_train=1000, max_labels=500)
LABELLER = SimpleNamespace(calls=SimpleNamespace(begun=14, finished=9, failed={"NotConverged": 2}))


def drawn(stage, state, rules, seen=None):
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=50, legacy_windows=False)
    display = Display(console)
    with display.on():
        display.show(stage, state, rules, "moving", LABELLER, seen)
        lines = display._live.renderable
        capture = Console(file=io.StringIO(), width=80)
        capture.print(lines)
    return capture.file.getvalue()


def exploring(n=3):
    state = explore.begin(tuple(f"a rather long name of a system {i}" for i in range(n)), RULES, 60, {})
    threshold = Threshold()
    for _ in range(10):
        threshold = threshold.seen((0.2,))
    return explore.replace(state, thresholds=(("", threshold),), n_asked=12, force_mae=(0.05, 0.07))


def test_trajectories_with_step_temperature_and_uncertainty_against_the_threshold():
    text = drawn("explore", exploring(), RULES, {0: Seen(512.4, 0.1), 1: Seen(300.0, 0.4)})
    assert "60 of 1000 training points · 12 of 500 labels asked for" in text
    assert "threshold 0.200 eV/Å · force MAE 60.0 meV/Å" in text
    first, second, third = (line for line in text.splitlines() if line.startswith("▶"))
    assert "512 K" in first
    assert "0.100 ━━━━━     │" in first
    assert "300 K" in second
    assert "━━━━━━━━━━│━━━" in second
    assert "K" not in third.split("/ 10000000")[1]
    assert "reference · 3 under way · 9 done · 2 failed (2 NotConverged)" in text


def test_it_fits_80_columns_with_many_trajectories_and_long_names():
    text = drawn("explore", exploring(400), RULES, {i: Seen(1e4, 9.999) for i in range(400)})
    assert max(map(len, text.splitlines())) <= 80
    assert len(text.splitlines()) < 30
    assert "… and 380 more trajectories" in text


@pytest.mark.parametrize("name", ["converge", "converge-initial", "train-given"])
def test_convergence_under_any_of_its_names(name):
    rules = ConvergeRules((1,), 10, 0.0, 500)
    assert "convergence · member 1 · epoch 0 / 500" in drawn(name, converge.begin(rules), rules)


def test_a_pipe_sees_nothing():
    file = io.StringIO()
    display = Display(Console(file=file))
    with display.on():
        display.show("explore", exploring(), RULES, "moving", LABELLER)
    assert file.getvalue() == ""


def test_the_time_is_shared_out_and_what_is_left_is_known_after_a_twentieth():
    clock = Clock()
    for now, doing in ((0, "moving"), (30, "training"), (40, "moving")):
        clock.now("explore", doing, now)
    assert clock.line("moving") == "now: moving · 40 s · moving 75 % · training 25 %"
    assert clock.left(0.25) == " · about 2 min left"
    assert clock.left(0.01) == clock.left(1.0) == ""
    clock.now("converge", "training", 50)
    assert clock.seconds == {}


@pytest.mark.parametrize(
    ("seconds", "text"), [(42, "42 s"), (600, "10 min"), (12_000, "3 h 20 min"), (190_800, "2 d 5 h")]
)
def test_times_are_read_at_a_glance(seconds, text):
    assert span(seconds) == text


def test_there_is_no_bar_without_a_threshold():
    assert bar(0.1, math.inf) == bar(math.nan, 0.1) == ""
