import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from aims_pax.errors import SettingsError
from aims_pax.report.load_run import load_run
from aims_pax.report.tolerant_readers import snapshot
from tests.report.folders import advanced, answered, made_up

# ---------------------------------------------------------------- a real run


def entries(folder):
    return [json.loads(line) for line in (folder / "restart/journal.jsonl").read_text().splitlines()]


def test_a_finished_run_is_told_completely(folder):
    run = load_run(folder)
    told = entries(folder)
    assert run.state == "finished"
    assert [s.name for s in run.stages] == ["initial", "explore", "converge"]
    assert all(s.stopped for s in run.stages)
    assert run.labelled == len({e["content"]["work"]["frame"] for e in told if e["kind"] == "Labelled"})
    assert sum(run.failures.values()) == sum(e["kind"] == "LabelFailed" for e in told)
    assert set(run.failures) == {"Crashed"}
    assert run.pending == 0
    assert run.calculations == len(list(folder.glob("data/labels/*/*.json"))) - 1  # method.json
    assert len(run.visits) == sum(e["kind"] == "Trained" for e in told)
    assert [t.system for t in run.trajectories] == ["copper", "water"] * 2
    assert [t.step for t in run.trajectories] == [120] * 4
    assert all(t.status == "done" for t in run.trajectories)
    assert len(run.checked) == len(list(folder.glob("analysis/*/step_*.npz"))) > 0
    assert run.method["factory"] == "sometimes:EMT"


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


def test_nothing_is_touched(folder):
    for name, half in (("restart/journal.jsonl", '{"time":'), ("data/splits.jsonl", '["half')):
        with open(folder / name, "a") as file:
            file.write(half)
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*")}
    load_run(folder)
    assert {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*")} == before


@pytest.mark.parametrize("share", [0.0, 0.13, 0.5, 0.77, 0.999])
def test_files_that_are_being_written_are_read_as_far_as_they_go(folder, share):
    whole = load_run(folder)
    for path in [p for p in folder.rglob("*") if p.is_file()]:
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
    run = load_run(folder)
    assert run.labelled <= whole.labelled
    assert len(run.structures) <= len(whole.structures)
    assert sum(len(t.steps) for t in run.trajectories) <= sum(len(t.steps) for t in whole.trajectories)


@pytest.mark.parametrize("missing", ["restart", "data", "losses", "analysis", "results", "logs"])
def test_every_part_may_be_missing(folder, missing):
    import shutil

    shutil.rmtree(folder / missing)
    run = load_run(folder)
    assert (run.labelled == 0) == (missing == "restart")


def test_a_folder_without_a_run_is_one_clear_error(tmp_path):
    with pytest.raises(SettingsError, match=r"no aims-PAX run was begun here.*name that folder"):
        load_run(tmp_path)


def test_torch_is_not_loaded(folder):
    code = (
        "import sys; from aims_pax.report.html_page import write_report; "
        "from aims_pax.report.model_card import write_cards;"
        f"write_report({str(folder)!r}, False); write_cards({str(folder)!r}); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# ---------------------------------------------------------------- made-up journals


def test_who_holds_the_lock_decides_whether_it_runs(tmp_path):
    import socket

    import psutil

    folder = made_up(tmp_path / "run", [advanced(time.time(), 0, 0, 10, 0.1)])
    assert load_run(folder).state == "stopped"
    me = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started": round(psutil.Process().create_time(), 1),
    }
    lock = folder / "restart/lock"
    lock.write_text(json.dumps(me))
    assert load_run(folder).state == "running"
    lock.write_text(
        json.dumps({**me, "started": 1.0})
    )  # a process that reuses the number: it was left behind
    assert load_run(folder).state == "killed"
    lock.write_text(json.dumps({**me, "host": "elsewhere"}))
    assert load_run(folder).state == "running"
    os.utime(lock, (1, 1))
    assert load_run(folder).state == "killed"


def test_a_process_that_has_written_nothing_down_is_starting_and_may_be_killed_then(tmp_path):
    folder = made_up(tmp_path / "run", [advanced(1000, 0, 0, 10, 0.1)])
    lock = folder / "restart/lock"
    lock.write_text(json.dumps({"pid": 1, "host": "elsewhere", "started": 2000.0}))
    assert load_run(folder).state == "starting"
    os.utime(lock, (1, 1))
    run = load_run(folder)
    assert (run.state, run.unfinished_start) == ("killed", True)
    with open(folder / "restart/journal.jsonl", "a") as file:
        file.write('{"time":2001,"stage":"run","kind":"begun","content":{"pid":1}}\n')
    run = load_run(folder)
    assert (run.state, run.unfinished_start) == ("killed", False)


def test_a_run_that_has_only_just_taken_its_lock_is_no_empty_folder(tmp_path):
    (tmp_path / "restart").mkdir()
    (tmp_path / "restart/lock").write_text(json.dumps({"pid": 1, "host": "elsewhere", "started": 2000.0}))
    assert load_run(tmp_path).state == "starting"


def test_what_a_live_run_waits_for_is_pending(folder):
    """Without the answers of the last frames the snapshot of a waiting trajectory says what is open."""
    from aims_pax.record.arrays import pack_arrays, unpack_arrays

    path = next((folder / "restart/explore").glob("state-*.npy"))
    arrays, meta = unpack_arrays(path.read_bytes())
    meta["state"]["stopped"] = None
    meta["state"]["trajectories"][1] |= {"status": "waiting", "frame": "a" * 20}
    path.write_bytes(pack_arrays(arrays, meta))
    run = load_run(folder)
    assert run.pending == 1
    assert run.trajectories[1].status == "waiting"


def test_a_run_that_a_raised_limit_continues_after_its_end_is_not_finished(folder):
    """The snapshot of convergence is that of the earlier end, and its models are still in results/."""
    from aims_pax.record.arrays import pack_arrays, unpack_arrays
    from aims_pax.report.run_record import current_stage
    from aims_pax.report.run_verdict import run_verdict

    path = next((folder / "restart/explore").glob("state-*.npy"))
    arrays, meta = unpack_arrays(path.read_bytes())
    meta["state"]["stopped"] = None
    path.write_bytes(pack_arrays(arrays, meta))
    os.utime(path, (time.time() + 10,) * 2)
    run = load_run(folder)
    assert run.state == "stopped"
    assert run.stages[-1].stopped
    assert current_stage(run.stages).name == "explore"
    assert run_verdict(run).text.startswith("Not finished: stopped during active learning;")
    os.utime(path, (1, 1))
    journal = folder / "restart/journal.jsonl"
    journal.write_text("".join(json.dumps({**e, "time": 2}) + "\n" for e in entries(folder)))
    assert load_run(folder).state == "finished", "a snapshot from before convergence says nothing"


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
