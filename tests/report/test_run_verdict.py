"""What is said at the top of the report: whether the run has done what it was asked for."""

import re
from dataclasses import replace

import numpy as np
import pytest

from aims_pax.report.html_page import page
from aims_pax.report.model_card import card, gaps
from aims_pax.report.run_record import Converged
from aims_pax.report.run_verdict import last_training, run_verdict, validation_error

GOAL = "aimsPAX.ACTIVE_LEARNING.desired_acc"


def asked(run, goal, explored="max_labels: 40 reference calculations", converged="converged", n_valid=None):
    stages = tuple(
        replace(s, stopped={"explore": explored, "converge": converged}.get(s.name, s.stopped))
        for s in run.stages
    )
    p = {k: np.array(v) for k, v in run.predictions.items()}
    if n_valid is not None:
        valid = np.flatnonzero(p["split"] == "valid")
        p["split"][valid[n_valid:]] = "train"
    return replace(run, settings={**run.settings, GOAL: str(goal)}, stages=stages, predictions=p)


def test_a_goal_that_was_missed_names_error_goal_reason_and_next_step(run):
    mae, n = validation_error(run)
    said = run_verdict(asked(run, mae / 2))
    assert said.kind == "missed"
    assert said.text.startswith(f"Goal not reached: force MAE {1000 * mae:.3g}"[:30])
    assert f"on {n} validation frames" in said.text
    assert "ended by max_labels: 40" in said.text
    assert "raise ACTIVE_LEARNING.max_labels, then run the same command" in said.text
    html, *_ = page(asked(run, mae / 2))
    assert '<span class="state missed">finished, goal not reached</span>' in html
    assert '<span class="state finished">finished</span>' in page(asked(run, 0))[0]


@pytest.mark.parametrize(("n_valid", "kind"), [(None, "reached"), (1, "missed"), (0, "missed")])
def test_a_goal_is_reached_only_on_enough_frames(run, n_valid, kind):
    n = validation_error(run)[1]
    several = asked(run, 1e3, n_valid=n_valid)
    if n_valid is None and n < 10:  # the recorded run has few: its training frames serve
        p = {k: np.array(v) for k, v in several.predictions.items()}
        p["split"][p["split"] == "train"] = "valid"
        several = replace(several, predictions=p)
    assert run_verdict(several).kind == kind
    if n_valid == 1:
        assert "Goal reached, but on too few frames to be reliable" in run_verdict(several).text
        assert any("chosen on 1 validation frame" in gap for gap in gaps(several))


def test_without_a_goal_nothing_is_claimed(run):
    said = run_verdict(asked(run, 0.0))
    assert said.kind == "no goal"
    assert said.text.startswith("Force MAE "), "the number that the user wants comes first"
    assert ". No accuracy was required (ACTIVE_LEARNING.desired_acc is 0)." in said.text
    unknown = run_verdict(replace(asked(run, 0.0), predictions={})).text
    assert unknown.startswith("No accuracy was required (ACTIVE_LEARNING.desired_acc is 0).")


def with_test_frames(run, n):
    """The run with only its first n validation frames as test frames, and their mean errors of forces in meV/Å."""
    p = {k: np.array(v) for k, v in run.predictions.items()}
    p["split"][np.isin(p["split"], ("test", "test set"))] = "train"
    chosen = np.flatnonzero(p["split"] == "valid")[:n]
    p["split"][chosen] = "test"
    ends = np.cumsum(p["n_atoms"])
    each = [
        1000 * np.abs((p["forces"] - p["true_forces"])[ends[k] - p["n_atoms"][k] : ends[k]]).mean()
        for k in chosen
    ]
    return replace(run, predictions=p), np.array(each)


def test_the_error_on_test_frames_comes_first_and_has_an_error_bar(run):
    changed, each = with_test_frames(run, 2)
    said = run_verdict(asked(changed, 0.0)).text
    found = re.match(
        r"Force MAE (\S+) ± (\S+) meV/Å and energy MAE (\S+) ± (\S+) meV/atom on 2 test frames; "
        r"force MAE \S+ meV/Å on \d+ validation frame",
        said,
    )
    assert each.min() < float(found[1]) < each.max()
    assert 0 < float(found[2]) < np.ptp(each)
    assert 0 < float(found[4]) <= float(found[3])
    with_goal = run_verdict(asked(changed, 1e-6)).text
    assert "Independent of that: force MAE" in with_goal
    assert with_goal.startswith("Goal not reached: force MAE")


def test_one_test_frame_has_no_error_bar(run):
    changed, each = with_test_frames(run, 1)
    assert f"Force MAE {each[0]:.3g}"[:14] in run_verdict(asked(changed, 0.0)).text
    assert "±" not in run_verdict(asked(changed, 0.0)).text


@pytest.mark.parametrize("state", ["stopped", "killed", "running"])
def test_a_run_that_has_not_ended_has_reached_nothing(run, state):
    said = run_verdict(replace(asked(run, 1e3), state=state))
    assert said.kind == "unfinished"
    assert "Goal reached" not in said.text


def test_convergence_that_was_cut_off_is_said_at_the_top_and_is_a_gap(run):
    cut = replace(
        asked(run, 0.0, converged="max_convergence_epochs: 500 epochs"),
        convergence=(Converged(0, 500, 499, 0.05, True),),
    )
    said = "Convergence was ended by max_convergence_epochs (best epoch: 499 of 500)"
    assert said in run_verdict(cut).text
    assert any(said in gap for gap in gaps(cut))
    assert said in card(cut, "tiny_255.model").split("## ")[0]
    html, *_ = page(cut)
    assert html.index(said) < html.index("class=tiles")


def test_given_frames_are_counted_as_given(run):
    ids = list(dict.fromkeys(f for split in run.splits.values() for f in split))[:3]
    structures = tuple(
        replace(s, info={**s.info, "source": "given:mine.xyz#1"}) if s.id in ids else s
        for s in run.structures
    )
    text = card(replace(run, structures=structures, given=frozenset(ids)), "tiny_255.model")
    assert "| given in mine.xyz | 3 |" in text


def test_stress_is_not_judged_where_nothing_learnt_it(run):
    off = replace(run, settings={**run.settings, "mace.GENERAL.compute_stress": "False"})
    assert 'id="parity_stress"' in page(run)[0]
    assert "stress_weight" not in page(off)[0]


def test_the_card_says_with_which_weights_the_last_training_began(run):
    fresh = replace(run, final_training="fresh", convergence=(Converged(0, 90, 70, 0.05, True),))
    said = last_training(fresh)
    assert "began with the weights that the member began the run with" in said
    assert said.endswith("(ACTIVE_LEARNING.final_training: fresh).")
    given_up = replace(fresh, convergence=(Converged(0, 90, 70, 0.05, True, continued_at=50),))
    assert "ended worse on the validation frames than the weights of active learning were" in last_training(
        given_up
    )
    assert last_training(replace(run, final_training="")) == ""
    assert said in card(fresh, "any.model")
