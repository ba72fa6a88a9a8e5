"""Stages and state of a run: what runs, what is awaited, what is finished."""

import json
import os
import time
from dataclasses import replace

from aims_pax.core import active_learning
from aims_pax.core.active_learning_state import BackgroundLabel
from aims_pax.core.rules import ActiveLearningRules
from aims_pax.core.window import AcquisitionWindow
from aims_pax.core.work import RequestLabel
from aims_pax.record.checkpoint import to_plain
from aims_pax.report.load_run import load_run
from aims_pax.report.stage_snapshots import awaited_frames
from tests.report.folders import advanced, made_up


def entries(folder):
    return [json.loads(line) for line in (folder / "restart/journal.jsonl").read_text().splitlines()]


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
    # a process that reuses the number: it was left behind
    lock.write_text(json.dumps({**me, "started": 1.0}))
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


def test_labels_of_a_window_tests_and_audits_are_awaited():
    """As they stand in a snapshot: no trajectory waits for them. An older snapshot has no window."""
    rules = ActiveLearningRules(10, 0.0, 0.1, 1, 1, acquisition="window", window=50)
    state = active_learning.begin(("copper",), rules, 20, {})
    window = AcquisitionWindow(pending=(("chosen", 0), ("also", 0)))
    state = replace(state, window=window, tests=(BackgroundLabel("test", 0, 10),))
    state = replace(state, audits=(BackgroundLabel("audit", 0, 20), BackgroundLabel("chosen", 0, 20)))
    plain = to_plain(state)
    assert awaited_frames("explore", plain) == ["chosen", "also", "test", "audit"]
    wanted = {w.frame for w in active_learning.outstanding(state, rules) if isinstance(w, RequestLabel)}
    assert set(awaited_frames("explore", plain)) == wanted
    del plain["window"]
    assert awaited_frames("explore", plain) == ["test", "audit", "chosen"]
