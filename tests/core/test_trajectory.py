"""One trajectory in the table: how it ends, goes on and is set back."""

from dataclasses import replace

import pytest

from aims_pax.core.rules import ActiveLearningRules
from aims_pax.core.trajectory import Trajectory
from aims_pax.core.work import LogMessage, Rewind

RULES = ActiveLearningRules(
    skip_step=10, c_x=0.0, valid_ratio=0.1, epochs_per_worker=2, epochs_per_visit=1, max_steps=100
)


@pytest.mark.parametrize("status", ["waiting", "training", "done"])
def test_only_a_running_trajectory_ends_at_its_last_step(status):
    running = Trajectory("a", step=100)
    assert replace(running, step=99).run_on(RULES).status == "running"
    assert running.run_on(RULES) == replace(running, status="done", reason="max_MD_steps: 100")
    other = replace(running, status=status)
    assert other.run_on(RULES) is other


@pytest.mark.parametrize(
    ("reason", "step", "status"),
    [
        ("max_MD_steps: 100", 100, "done"),
        ("max_MD_steps: 50", 50, "running"),
        ("max_labels: 3", 50, "running"),
        ("stopped by the user", 50, "running"),
        ("pair H–H 0.30 Å (5 times in a row)", 50, "done"),
        (None, 50, "done"),
    ],
)
def test_an_end_that_settings_made_is_taken_back_by_settings(reason, step, status):
    ended = Trajectory("a", "done", step=step, reason=reason)
    found = ended.revived(RULES)
    assert found.status == status
    assert found == (ended if status == "done" else replace(ended, status="running", reason=None))


def test_a_lower_limit_ends_what_still_ran():
    assert Trajectory("a", step=150).revived(RULES).reason == "max_MD_steps: 150"


def test_a_rewind_goes_to_the_last_labelled_frame_and_is_counted():
    there = Trajectory("a", "waiting", step=40, n_rewinds=2, frame="f40", restart_frame="f10", n_train=7)
    back, effects = there.rewound(3, "label failed", limit=5, in_a_row=4)
    assert back == replace(there, status="running", frame=None, n_rewinds=3, started=40)
    assert effects == (
        Rewind(3, "f10", 3),
        LogMessage("trajectory 3 · step 40 · label failed · rewound with fresh momenta", "warning"),
    )


def test_too_many_failures_in_a_row_end_it_with_their_number():
    done, effects = Trajectory("a", "waiting", step=40, frame="f40").rewound(3, "label failed", 5, 5)
    assert (done.status, done.frame, done.n_rewinds) == ("done", None, 0)
    assert done.reason == "label failed (5 times in a row)"
    assert [e.text for e in effects] == ["trajectory 3 · step 40 · ended: label failed (5 times in a row)"]
    assert done.revived(RULES) is done


def test_a_frame_is_a_fair_sample_after_equilibration_since_the_start_and_since_the_last_one():
    rules = ActiveLearningRules(10, 0.0, 0.1, 1, 1, equilibration=200)
    there = Trajectory("a", started=50)
    assert [there.equilibrated(step, rules) for step in (240, 250)] == [False, True]
    after = replace(there, last_test_step=260)
    assert [after.equilibrated(step, rules) for step in (450, 460)] == [False, True]
