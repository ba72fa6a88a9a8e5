import math

import pytest

from aims_pax.report.time_left import Limit, duration, rounded_seconds, time_left


def test_the_limit_that_comes_first_says_what_is_left():
    limits = [
        Limit("max_labels", 0, 25, 100),
        Limit("max_MD_steps", 0, 500, 1000),
        Limit("none", 0, 9, math.inf),
    ]
    assert time_left(60.0, limits) == ("max_MD_steps 1000", pytest.approx(60))


def test_what_was_there_before_the_clock_was_started_was_not_done_in_its_time():
    assert time_left(60.0, [Limit("max_train_set_size", 20, 30, 60)])[1] == pytest.approx(180)


def test_what_the_stage_did_before_is_no_measure_of_its_speed():
    """85 s of training before exploration, then 5 of 60 labels in 20 s."""
    limit = Limit("max_labels", 0, 5, 60, since=85.0)
    assert time_left(105.0, [limit])[1] == pytest.approx(220)


@pytest.mark.parametrize(
    "limits", [[], [Limit("a", 0, 3, 100)], [Limit("a", 0, 100, 100)], [Limit("a", 9, 9, 9)]]
)
def test_too_early_at_the_end_and_without_a_limit_nothing_is_said(limits):
    name, left = time_left(60.0, limits)
    assert name == ""
    assert math.isnan(left)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (4.2, "4.2 s"),
        (42, "42 s"),
        (140, "2 min 20 s"),
        (12_000, "3 h 20 min"),
        (190_800, "2 d 5 h"),
        (math.nan, "—"),
    ],
)
def test_times_are_read_at_a_glance(seconds, text):
    assert duration(seconds) == text


def test_a_guess_is_no_stopwatch():
    assert [rounded_seconds(s) for s in (42, 130, 3700)] == ["42 s", "2 min", "1 h 02 min"]
