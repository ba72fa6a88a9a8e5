"""The trajectories of a run as the report shows them: thresholds, status, labelled and drawn frames."""

import json
import os

import numpy as np
import pytest

from aims_pax.report.load_run import load_run
from aims_pax.report.tolerant_readers import snapshot
from tests.report.folders import advanced, answered, made_up


def entries(folder):
    return [json.loads(line) for line in (folder / "restart/journal.jsonl").read_text().splitlines()]


def test_the_threshold_is_the_one_the_core_kept(folder):
    """The history in the last snapshot, without its last entry, gives δ as it stood at the last check."""
    state, _ = snapshot(folder / "restart/explore")
    history = state["thresholds"][0][1]["history"]
    δ = sum(mean * n for mean, n in history[:-1]) / sum(n for _, n in history[:-1])  # c_x is 0
    run = load_run(folder)
    last = max(run.trajectories, key=lambda t: (t.times[-1], t.index))
    assert last.threshold[-1] == pytest.approx(δ, rel=1e-12)
    assert sum(np.isinf(t.threshold).sum() for t in run.trajectories) == 10  # warm-up
    assert sum(len(t.steps) for t in run.trajectories) == len(history)


def test_labels_are_marked_where_the_run_asked_for_them(folder):
    run = load_run(folder)
    known = {
        (int(s.info["trajectory"]), int(s.info["step"])) for s in run.structures if "trajectory" in s.info
    }
    failed = {c.frame for c in run.calls if c.outcome == "Crashed"}
    marked = {(t.index, int(s)) for t in run.trajectories for s in t.steps[t.labelled]}
    assert known <= marked
    extra = [e["content"] for e in entries(folder) if e["kind"] == "Advanced"]
    extra = {(e["work"]["trajectory"], e["step"]) for e in extra if e["frame"] in failed}
    assert marked - known <= extra


def test_a_trajectory_that_stands_at_a_training_point_is_training(folder):
    from aims_pax.record.arrays import pack_arrays, unpack_arrays

    path = next((folder / "restart/explore").glob("state-*.npy"))
    arrays, meta = unpack_arrays(path.read_bytes())
    meta["state"]["stopped"] = None
    for t in meta["state"]["trajectories"]:
        t["status"] = "running"
    path.write_bytes(pack_arrays(arrays, meta))
    os.utime(path, (1, 1))  # older than what the journal tells
    splits = [json.loads(line) for line in (folder / "data/splits.jsonl").read_text().splitlines()]
    trained_on = {frame for frame, split, _ in splits if split == "train"}
    told = (folder / "restart/journal.jsonl").read_text().splitlines()
    at = next(k for k, line in enumerate(told) if any(f in line for f in trained_on) and '"Advanced"' in line)
    (folder / "restart/journal.jsonl").write_text("\n".join(told[: at + 1]) + "\n")
    i = json.loads(told[at])["content"]["work"]["trajectory"]
    assert load_run(folder).trajectories[i].status == "training"


def test_structures_drawn_to_measure_the_error_are_told_from_uncertain_ones(tmp_path):
    steps = [
        advanced(1000 + k, 0, 10 * k, 10 * k + 10, 0.1, decision=d)
        for k, d in enumerate(("audit", "candidate"))
    ]
    folder = made_up(tmp_path, [*steps, answered(1003, "f0s10"), answered(1004, "f0s20")])
    (t,) = load_run(folder).trajectories
    assert t.labelled.tolist() == [True, True]
    assert t.drawn == (0,)
