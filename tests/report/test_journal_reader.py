"""What a journal says, on journals of a few lines."""

import json
import math

import numpy as np

from aims_pax.report.load_run import load_run
from tests.report.folders import advanced, answered, made_up, trained


def test_work_done_again_after_a_restart_counts_once(tmp_path):
    run = load_run(made_up(tmp_path / "run", [
        advanced(100, 0, 0, 10, 0.1), advanced(110, 0, 10, 20, 0.9), trained(115, 0, 5, 0.3),
        # killed here; the snapshot was at step 10
        advanced(500, 0, 10, 20, 0.2), trained(505, 0, 5, 0.2),
    ]))  # fmt: skip
    (t,) = run.trajectories
    assert t.steps.tolist() == [10, 20]
    assert t.uncertainty.tolist() == [0.1, 0.2]
    assert [v.force_mae for v in run.visits] == [(0.2,)]
    assert run.shares() == {"moving": 10, "training": 10, "stopped": 385}


def test_time_belongs_to_what_ended_it(tmp_path):
    run = load_run(made_up(tmp_path / "run", [
        advanced(0, 0, 0, 10, 0.1), advanced(4, 0, 10, 20, 0.1), advanced(4, 1, 10, 20, 0.1), trained(10, 0, 5, 0.3),
        answered(13, "f0s20"), {"time": 14, "stage": "explore", "kind": "time", "content": {"moving": 4.0}},
        advanced(100, 0, 20, 30, 0.1),
    ]))  # fmt: skip
    assert run.shares() == {"moving": 4, "training": 6, "waiting": 3, "saving": 1, "stopped": 86}
    assert run.stages[0].seconds == {"moving": 4.0}


def test_a_finished_run_that_is_started_again_was_starting_not_saving(tmp_path):
    """Loading the models is not saving; a journal without `going` is of an earlier version."""
    ended = [advanced(0, 0, 0, 10, 0.1), {"time": 10, "stage": "explore", "kind": "time", "content": {}},
             {"time": 60, "stage": "run", "kind": "begun", "content": {}}]  # fmt: skip
    going = {"time": 66, "stage": "explore", "kind": "going", "content": {}}
    for name, entries in (("new", [going]), ("old", [])):
        time = {"time": 66.5, "stage": "explore", "kind": "time", "content": {}}
        shares = load_run(made_up(tmp_path / name, [*ended, *entries, time])).shares()
        assert shares["stopped"] == 50
        assert shares["starting"] == (6 if entries else 6.5)
        assert shares["saving"] == (10.5 if entries else 10)


def test_a_recalculation_in_the_same_folder_is_no_part_of_the_run(tmp_path):
    other = {"time": 900, "stage": "recalculate", "kind": "time", "content": {"waiting": 9.0}}
    run = load_run(
        made_up(tmp_path / "run", [advanced(0, 0, 0, 10, 0.1), advanced(4, 0, 10, 20, 0.1), other])
    )
    assert run.shares() == {"moving": 4}
    assert [s.name for s in run.stages] == ["explore"]


def test_the_threshold_is_read_not_computed(tmp_path):
    """Whatever the settings are now: what the core compared with stands in the journal."""
    told = [advanced(k, 0, 10 * k, 10 * k + 10, 0.1, threshold=0.3 if k < 7 else 0.7) for k in range(15)]
    told[8] = advanced(8, 0, 80, 90, 0.9, threshold=0.7, decision="uncertain")
    told += [answered(15, "f0s90"), advanced(16, 0, 150, 155, 5.0, decision="")]
    for c_x in ("-0.5", "3.0"):
        (t,) = load_run(made_up(tmp_path / c_x, told, c_x=c_x, freeze_threshold_dataset="1")).trajectories
        assert t.threshold.tolist() == [0.3] * 7 + [0.7] * 8
        assert t.steps[t.labelled].tolist() == [90]
        assert t.step == 155


def test_a_journal_without_thresholds_is_read_and_says_that_it_has_none(tmp_path):
    """As versions before 0.2 wrote them; a run may go on with this version."""
    told = [advanced(k, 0, 10 * k, 10 * k + 10, 0.1 + k, decision=None) for k in range(3)]
    told += [answered(3, "f0s20"), advanced(4, 0, 30, 40, 0.2, threshold=0.5)]
    (t,) = load_run(made_up(tmp_path, told)).trajectories
    assert t.uncertainty.tolist() == [0.1, 1.1, 2.1, 0.2]
    assert np.isnan(t.threshold[:3]).all()
    assert t.threshold[3] == 0.5
    assert t.steps[t.labelled].tolist() == [20]


def test_a_stage_that_began_again_makes_void_what_it_did_before(tmp_path):
    told = [advanced(k, 0, 10 * k, 10 * k + 10, 0.1 + k) for k in range(3)]
    told += [{"time": 5, "stage": "explore", "kind": "stage begun", "content": {}}]
    told += [advanced(6, 0, 0, 10, 0.7)]
    (t,) = load_run(made_up(tmp_path, told)).trajectories
    assert (t.steps.tolist(), t.uncertainty.tolist(), t.step) == ([10], [0.7], 10)


def test_impossible_frames_are_faults_and_not_points(tmp_path):
    run = load_run(made_up(tmp_path / "run", [
        advanced(1, 0, 0, 10, 0.1), advanced(2, 0, 10, 14, fault="too hot"), advanced(3, 0, 14, 20, math.nan),
    ]))  # fmt: skip
    (t,) = run.trajectories
    assert t.steps.tolist() == [10]
    assert t.faults == ((14, "too hot"), (20, "the uncertainty is not finite"))


def test_junk_in_the_journal_is_passed_over(tmp_path):
    folder = made_up(tmp_path / "run", [advanced(1, 0, 0, 10, 0.1)])
    with open(folder / "restart/journal.jsonl", "a") as file:
        for junk in ("[1, 2]", '"text"', "{}", '{"time": 2, "stage": "explore", "kind": "Advanced", "content": {}}',
                     '{"time": "x", "stage": 1, "kind": null, "content": null}', "\x00\xff", ""):  # fmt: skip
            file.write(junk + "\n")
        file.write(json.dumps(advanced(5, 0, 10, 20, 0.2)) + "\n")
    assert load_run(folder).trajectories[0].steps.tolist() == [10, 20]


def test_a_pause_is_cut_out_of_what_it_interrupted(tmp_path):
    pause = {"time": 50, "stage": "explore", "kind": "paused", "content": {"began": 12, "ended": 50}}
    run = load_run(made_up(tmp_path / "run", [
        advanced(0, 0, 0, 10, 0.1), advanced(10, 0, 10, 20, 0.1), pause, advanced(55, 0, 20, 30, 0.1),
    ]))  # fmt: skip
    assert run.shares() == {"moving": 17, "paused": 38}
    assert [(s.doing, s.began, s.ended) for s in run.spans] == [
        ("moving", 0, 12), ("paused", 12, 50), ("moving", 50, 55)
    ]  # fmt: skip
