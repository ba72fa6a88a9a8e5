import json
import math
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from aims_pax.errors import SettingsError
from aims_pax.report.cost_summary import ledger
from aims_pax.report.load_run import load_run
from aims_pax.report.tolerant_readers import snapshot, stored_labels, structure_headers
from tests.report.folders import advanced, answered, made_up, trained

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


def test_data_counts_are_those_of_the_bookkeeping(folder):
    sets = {}
    for line in (folder / "data/splits.jsonl").read_text().splitlines():
        frame, split, _ = json.loads(line)
        sets.setdefault(split, set()).add(frame)
    counts = load_run(folder).counts()
    assert set(counts) == {"copper", "water"}
    assert {s: sum(row.get(s, 0) for row in counts.values()) for s in sets} == {
        s: len(f) for s, f in sets.items()
    }


def test_the_threshold_is_the_one_the_core_kept(folder):
    """The history in the last snapshot, without its last entry, gives δ as it stood at the last check."""
    state, _, _ = snapshot(folder / "restart/explore")
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


def test_every_structure_is_read_with_its_forces(folder):
    import ase.io

    found = list(structure_headers(folder / "data/labelled.xyz"))
    truth = ase.io.read(folder / "data/labelled.xyz", ":", format="extxyz")
    assert len(found) == len(truth)
    for one, atoms in zip(found, truth, strict=True):
        geometry = one.geometry()
        assert one.id == atoms.info["frame_id"]
        assert one.energy == atoms.info["REF_energy"]
        np.testing.assert_array_equal(geometry.positions, atoms.positions)
        np.testing.assert_array_equal(geometry.forces, atoms.arrays["REF_forces"])
        np.testing.assert_array_equal(geometry.cell, atoms.cell.array)
        assert geometry.pbc == tuple(atoms.pbc)
        assert (one.stress is None) == (one.system == "water")


@pytest.mark.parametrize("missing", [1, 40, 300])
def test_a_structure_that_is_half_written_is_left_out(folder, missing):
    path = folder / "data/labelled.xyz"
    whole = list(structure_headers(path))
    path.write_bytes(path.read_bytes()[:-missing])
    found = list(structure_headers(path))
    assert [s.id for s in found] == [s.id for s in whole[:-1]]
    assert all(s.geometry() is not None for s in found)


def test_seconds_of_a_label_come_from_the_end_of_its_file(folder):
    labels = list(stored_labels(folder / "data/labels"))
    one = labels[0]
    stored = json.loads(next(folder.glob(f"data/labels/*/{one.frame}.json")).read_text())
    assert (one.seconds, one.ended, one.host) == (stored["seconds"], stored["when"], stored["host"])
    assert one.began == one.ended - one.seconds


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


def test_what_was_no_work_is_no_part_of_it(tmp_path):
    begun = {"time": 60, "stage": "run", "kind": "begun", "content": {}}
    run = load_run(made_up(tmp_path, [advanced(0, 0, 0, 10, 0.1), advanced(10, 0, 10, 20, 0.1), begun]))
    words = [what for what, _ in ledger(run)]
    assert "… dynamics" in words
    assert words[-1] == "besides: stopped in between"


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


def test_failures_are_counted_by_class_until_they_are_answered(tmp_path):
    run = load_run(made_up(tmp_path / "run", [
        advanced(1, 0, 0, 10, 0.1), answered(2, "f0s10", "NotConverged", "hard"), answered(3, "x", "Crashed", "bang"),
        answered(4, "x"),
    ]))  # fmt: skip
    assert run.failures == {"NotConverged": 1}
    assert run.labelled == 1


def test_junk_in_the_journal_is_passed_over(tmp_path):
    folder = made_up(tmp_path / "run", [advanced(1, 0, 0, 10, 0.1)])
    with open(folder / "restart/journal.jsonl", "a") as file:
        for junk in ("[1, 2]", '"text"', "{}", '{"time": 2, "stage": "explore", "kind": "Advanced", "content": {}}',
                     '{"time": "x", "stage": 1, "kind": null, "content": null}', "\x00\xff", ""):  # fmt: skip
            file.write(junk + "\n")
        file.write(json.dumps(advanced(5, 0, 10, 20, 0.2)) + "\n")
    assert load_run(folder).trajectories[0].steps.tolist() == [10, 20]


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


def test_a_pause_is_cut_out_of_what_it_interrupted(tmp_path):
    pause = {"time": 50, "stage": "explore", "kind": "paused", "content": {"began": 12, "ended": 50}}
    run = load_run(made_up(tmp_path / "run", [
        advanced(0, 0, 0, 10, 0.1), advanced(10, 0, 10, 20, 0.1), pause, advanced(55, 0, 20, 30, 0.1),
    ]))  # fmt: skip
    assert run.shares() == {"moving": 17, "paused": 38}
    assert [(s.doing, s.began, s.ended) for s in run.spans] == [
        ("moving", 0, 12), ("paused", 12, 50), ("moving", 50, 55)
    ]  # fmt: skip


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


def test_a_count_of_atoms_that_the_file_does_not_hold_is_no_structure(tmp_path):
    from aims_pax.report.tolerant_readers import structure_headers

    path = tmp_path / "torn.xyz"
    path.write_text("1\nenergy=1\nH 0 0 0\n99999999999999\nenergy=1\nH 0 0 0\n")
    assert [s.n_atoms for s in structure_headers(path)] == [1]
