"""How a run stands, read from its folder."""

import json
import os
import socket
import time

import pytest

from aims_pax.commands.status import status, status_lines
from aims_pax.core.error_calibration import ErrorCalibration
from aims_pax.errors import SettingsError
from aims_pax.record.arrays import pack_arrays, unpack_arrays
from aims_pax.record.checkpoint import to_plain
from aims_pax.record.delivery_progress import MD_TEST, MODELS, REPORT, begin_step
from aims_pax.record.files import write_text
from aims_pax.record.lock import STARTING, Lock
from tests.core.test_error_calibration import SimulatedLearning
from tests.report.folders import advanced, answered, made_up, recorded, trained


@pytest.fixture
def folder(tmp_path):
    return recorded(tmp_path)


def held(folder, host="far away", age=0.0):
    """Somebody on another host works in this folder."""
    lock = folder / "restart" / "lock"
    holder = {"pid": 7, "host": host, "started": 1.0}
    lock.write_text(json.dumps(holder))
    os.utime(lock, (time.time() - age,) * 2)
    return holder


def test_a_finished_run_in_numbers(folder):
    now = status(folder)
    assert now["state"] == "finished"
    assert now["stage"] == "converge"
    assert now["labels"]["done"] == 63
    assert now["labels"]["failed"] == {"Crashed": 9}
    assert now["labels"]["asked"] == 72
    assert [t["step"] for t in now["trajectories"]] == [120] * 4
    assert {t["status"] for t in now["trajectories"]} == {"done"}
    assert now["models"] == ["results/tiny_255.model"]
    assert now["reason"] == ""
    json.dumps(now, allow_nan=False)


@pytest.mark.parametrize(
    ("step", "missing"), [(MODELS, "models and datasets, predictions, "), (MD_TEST, ""), (REPORT, "")]
)
@pytest.mark.parametrize("killed", [False, True])
def test_an_interrupted_delivery_is_not_finished(folder, step, missing, killed):
    begin_step(folder / "restart", step)
    if killed:
        (folder / "restart/lock").write_text(
            json.dumps({"pid": 2**30, "host": socket.gethostname(), "started": 1.0})
        )
    now = status(folder)
    assert now["state"] == ("killed" if killed else "stopped")
    assert now["goal"] == "unfinished"
    assert "run the same command to continue" in now["reason"]
    assert f"missing: {missing}" in now["reason"]
    assert "report; run" in now["reason"]
    assert ("MD test" in now["reason"]) == (step == MD_TEST)  # the run was made without one


def test_a_run_that_writes_its_results_is_running(folder):
    for step in (MODELS, REPORT):
        begin_step(folder / "restart", step)
        held(folder)
        assert status(folder)["state"] == "running"


def test_no_line_is_longer_than_a_terminal_of_80_columns(folder):
    text = status_lines(status(folder))
    assert max(map(len, text)) <= 80
    assert "finished" in text[0]
    said = " ".join(" ".join(text).split())
    assert "labels 63 done (22 initial dataset + 41 active learning) · 9 failed (9 Crashed)" in said
    assert any("0.071 / 0.282 eV/Å" in line for line in text)


def explored(folder, **settings):
    """An active learning that began 100 s ago; two trajectories, three labels, one visit."""
    t = time.time() - 100
    entries = [
        *(advanced(t + k, i, 10 * k, 10 * k + 10, 0.1 + 0.01 * k) for k in range(20) for i in (0, 1)),
        answered(t + 21, "f0s100"), answered(t + 22, "f1s100", "Crashed", "it died"),
        trained(t + 23, 0, 20, 0.05), trained(t + 30, 1, 25, 0.04),
    ]  # fmt: skip
    return made_up(folder, entries, **settings)


def test_the_time_left_follows_from_the_limit_that_is_nearest(tmp_path):
    folder = explored(tmp_path, max_MD_steps="400", max_labels="1000", max_train_set_size="inf")
    held(folder)
    now = status(folder)
    assert now["state"] == "running"
    assert (now["pid"], now["host"]) == (7, "far away")
    assert now["left_until"] == "until max_MD_steps 400"
    assert now["left_s"] == pytest.approx(100, abs=5)  # 200 of 400 steps took 100 s
    assert now["last_sign_s_ago"] == pytest.approx(0, abs=5)
    assert now["labels"]["budget"] == 1000
    assert any("about 1 min 40 s" in line or "about 2 min" in line for line in status_lines(now))


def test_training_before_exploration_is_no_part_of_the_pace(tmp_path):
    t = time.time() - 100
    entries = [trained(t + k, k, 20, 0.1) for k in range(80)]
    entries += [advanced(t + 80 + k / 2, 0, 10 * k, 10 * k + 10, 0.1) for k in range(20)]
    folder = made_up(tmp_path, entries, max_MD_steps="400")
    held(folder)
    assert status(folder)["left_s"] == pytest.approx(20, abs=5)  # 200 of 400 steps took 20 s


def test_the_training_set_can_be_the_nearest_limit(tmp_path):
    folder = explored(tmp_path, max_MD_steps="2000", max_train_set_size="30")
    held(folder)
    now = status(folder)
    assert now["left_until"] == "until max_train_set_size 30"
    assert now["left_s"] == pytest.approx(100, abs=5)  # 20 → 25 of 30


@pytest.mark.parametrize("settings", [{}, {"max_MD_steps": "100000"}])
def test_without_a_limit_or_too_early_no_time_is_named(tmp_path, settings):
    folder = explored(tmp_path, **settings)
    held(folder)
    assert status(folder)["left_s"] is None


def test_pausing_paused_stopping(folder):
    (folder / "results").rename(folder / "kept")
    holder = held(folder)
    write_text(folder / "restart" / "control.json", json.dumps({"wish": "pause", "of": holder}))
    assert status(folder)["state"] == "pausing"
    write_text(folder / "restart" / "paused.json", json.dumps({"since": time.time() - 65, "of": holder}))
    now = status(folder)
    assert now["state"] == "paused"
    assert now["paused_s"] == pytest.approx(65, abs=5)
    assert "paused for 65 s" in status_lines(now)[0]
    write_text(folder / "restart" / "control.json", json.dumps({"wish": "stop", "of": holder}))
    assert status(folder)["state"] == "stopping"
    held(folder, host="another run")
    assert status(folder)["state"] == "running"


def test_why_a_run_ended(tmp_path):
    folder = explored(tmp_path)
    assert status(folder)["state"] == "stopped"
    assert "for an unknown reason" in status(folder)["reason"]
    held(folder, age=3600)  # its lock was left behind
    assert status(folder)["state"] == "killed"
    assert "was killed or its machine went down" in status(folder)["reason"]
    lock = folder / "restart" / "lock"
    lock.write_text(json.dumps({"pid": 7, "host": "far away", "started": time.time() + 10}))
    os.utime(lock, (1, 1))
    assert status(folder)["state"] == "killed"
    assert "while it started" in status(folder)["reason"]
    lock.unlink()
    (folder / "logs").mkdir()
    log = folder / "logs" / "active_learning.log"
    log.write_text("2026-01-01 00:00:00 · stopped by SIGTERM: everything is saved; run again\n")
    assert status(folder)["reason"].startswith("stopped by SIGTERM")
    log.write_text("2026-01-01 00:00:00 · ERROR · the disk is full\n")
    assert status(folder)["reason"] == "the disk is full"
    assert "the disk is full" in "\n".join(status_lines(status(folder)))
    held(folder)
    assert status(folder)["reason"] == ""


@pytest.mark.parametrize("what", ["9 structures in new.xyz", "atomic_energies.yaml"])
def test_a_command_that_only_labels_has_ended_for_a_known_reason(tmp_path, what):
    folder = made_up(tmp_path)
    (folder / "logs").mkdir()
    more = "; for mace.yaml:" if what.endswith(".yaml") else ""
    (folder / "logs" / "recalculate.log").write_text(f"2026-01-01 00:00:00 · done: {what}{more}\n")
    assert status(folder)["reason"] == f"done: {what}"


def test_pauses_and_the_time_between_two_processes_are_no_time_of_a_stage(tmp_path):
    t = time.time() - 100
    pause = {
        "time": t + 40,
        "stage": "explore",
        "kind": "paused",
        "content": {"began": t + 10, "ended": t + 40},
    }
    folder = made_up(tmp_path, [
        advanced(t, 0, 0, 10, 0.1), advanced(t + 5, 0, 10, 20, 0.1), pause, advanced(t + 45, 0, 20, 30, 0.1),
        {"time": t + 45, "stage": "explore", "kind": "time", "content": {}},
        {"time": t + 65, "stage": "run", "kind": "begun", "content": {}}, advanced(t + 70, 0, 30, 40, 0.1),
    ], max_MD_steps="100")  # fmt: skip
    holder = held(folder)
    now = status(folder)
    assert now["stage_s"] == pytest.approx(50, abs=3)  # 100 s less 30 s paused and 20 s stopped
    assert now["left_s"] == pytest.approx(75, abs=5)  # 40 of 100 steps took 50 s
    assert now["shares_s"]["paused"] == pytest.approx(30, abs=0.1)
    assert now["work_s"] == pytest.approx(20, abs=0.1)
    (said,) = (line for line in status_lines(now) if line.startswith("time"))
    assert "20 s of work" in said
    assert "paused 30 s" in said
    write_text(folder / "restart" / "control.json", json.dumps({"wish": "pause", "of": holder}))
    write_text(folder / "restart" / "paused.json", json.dumps({"since": time.time() - 10, "of": holder}))
    assert status(folder)["stage_s"] == pytest.approx(40, abs=3)


def test_a_process_that_goes_on_is_starting_before_it_has_the_lock(tmp_path):
    folder = made_up(tmp_path, [advanced(time.time() + 1, 0, 0, 10, 0.1)])  # younger than this process
    with Lock(folder / "restart" / "lock").announced():
        now = status(folder)
        assert (now["state"], now["pid"]) == ("starting", os.getpid())
    assert status(folder)["state"] == "stopped"
    mark = folder / "restart" / STARTING
    mark.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "started": 1.0}))
    assert status(folder)["state"] == "stopped", "left behind by a process that is gone"


def test_what_a_limit_counts_is_said(tmp_path):
    folder = explored(tmp_path, max_train_set_size="50")
    (folder / "data").mkdir()
    rows = [("a", "train", 0), ("b", "train", 1), ("c", "train", 1), ("d", "train", None), ("e", "valid", 0)]
    (folder / "data" / "splits.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    now = status(folder)
    assert now["training_set"] == {
        "of": "a member", "size": 3, "limit": 50.0, "limited_by": "max_train_set_size"
    }  # fmt: skip
    text = " ".join(" ".join(status_lines(now)).split())
    assert "4 training + 1 validation (all members together) · 3 of max_train_set_size 50 (a member)" in text


def test_many_trajectories_are_summed_up(tmp_path):
    t = time.time()
    folder = made_up(tmp_path, [advanced(t, i, 0, 10, 0.1) for i in range(30)])
    text = status_lines(status(folder))
    assert "30 in all" in text[-1]
    assert len(text) < 40


def test_a_folder_without_a_run_is_said_so(tmp_path):
    with pytest.raises(SettingsError, match="no aims-PAX run"):
        status(tmp_path)


def test_how_far_a_run_is_from_its_target_is_said_while_it_runs(folder):
    simulated = SimulatedLearning(4)
    while simulated.labels < 60:
        simulated.check()
    known = json.loads((folder / "restart/settings.json").read_text())
    known["settings"]["aimsPAX.ACTIVE_LEARNING.target_error"] = "0.1"
    known["settings"]["aimsPAX.ACTIVE_LEARNING.confidence"] = "0.9"
    (folder / "restart/settings.json").write_text(json.dumps(known))
    assert status(folder)["targets"] == [], "the verdict says it"
    path = next((folder / "restart/explore").glob("state-*.npy"))
    arrays, meta = unpack_arrays(path.read_bytes())
    none = to_plain(ErrorCalibration())
    learnt = {
        "calibrations": [["water", to_plain(simulated.calibration)], ["Cu", none]],
        "n_train": simulated.n,
    }
    meta["state"] |= {"stopped": None, **learnt}
    path.write_bytes(pack_arrays(arrays, meta))
    os.utime(path, (time.time() + 10,) * 2)
    held(folder)
    now = status(folder)
    (of,) = now["targets"]
    assert (of["system"], of["verdict"], of["target"]) == ("water", "open", 0.1)
    assert of["error"] < of["upper"]
    text = " ".join(" ".join(status_lines(now)).split())
    assert "target water: largest force error" in text
    assert "more labels would bring" in text
    assert "of the model delivered before)" in text


def test_a_finished_run_that_begins_again_is_starting(folder):
    (folder / "restart/lock").write_text(json.dumps({"pid": 1, "host": "elsewhere", "started": time.time()}))
    assert status(folder)["state"] == "starting"
