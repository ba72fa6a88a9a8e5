"""Pause, resume and stop: from another process, through the folder alone."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from aims_pax.commands.pause_resume_stop import request
from aims_pax.commands.status import status
from aims_pax.engine.interrupts import InterruptMonitor, RunInterrupted
from aims_pax.errors import SettingsError
from aims_pax.labelling.executors.handover import Handover
from aims_pax.record.lock import Lock
from aims_pax.record.run_requests import RequestFile
from aims_pax.schedulers.slurm import Slurm
from tests.projects import command, write_project


@pytest.fixture
def working(tmp_path, monkeypatch):
    """A thread that holds the folder and looks as a run does at each MD step; ends when it is stopped."""
    monkeypatch.setattr("aims_pax.engine.interrupts.CHECK_EVERY", 0.02)
    lock = Lock(tmp_path / "restart" / "lock")
    watch = InterruptMonitor(heartbeat=lock.heartbeat, requests=RequestFile(tmp_path / "restart"))
    steps, ended, begun = [], [], threading.Event()

    def work():
        with lock.held():
            begun.set()
            try:
                while True:
                    watch.raise_if_stopped()
                    steps.append(1)
                    time.sleep(0.005)
            except RunInterrupted as stop:
                ended.append(stop.code)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    begun.wait(10)
    yield tmp_path, steps, ended
    watch.stop_requested = True
    thread.join(10)


def test_a_paused_run_does_nothing_until_it_is_resumed_and_ends_when_it_is_stopped(working):
    folder, steps, ended = working
    assert "paused" in request(folder, "pause")
    n = len(steps)
    time.sleep(0.2)
    assert len(steps) == n
    assert "resumed" in request(folder, "resume")
    time.sleep(0.2)
    assert len(steps) > n
    with pytest.raises(SettingsError, match="not paused"):
        request(folder, "resume")
    assert "stopped" in request(folder, "stop")
    assert ended == [3]
    with pytest.raises(SettingsError, match="nothing to stop"):
        request(folder, "stop")
    assert list((folder / "restart").iterdir()) == []


def test_a_paused_run_can_be_stopped(working):
    folder, _, ended = working
    request(folder, "pause")
    assert "stopped" in request(folder, "stop")
    assert ended == [3]


def test_a_run_can_be_stopped_with_its_calculations(working):
    folder, _, ended = working
    said = request(folder, "cancel")
    assert "stopped, its calculations are cancelled" in said
    assert ended == [3]
    with pytest.raises(SettingsError, match="nothing to stop --cancel: no aims-PAX works"):
        request(folder, "cancel")


def test_where_the_last_run_has_left_nothing_that_is_said(tmp_path, monkeypatch):
    Handover(tmp_path / "restart").write_runs([{"token": "ab"}])
    # of a version that did not name its scheduler
    monkeypatch.setattr(Slurm, "jobs_named", lambda _, part: {})
    assert request(tmp_path, "cancel") == "nothing to cancel: the blocks of the last run have ended already"
    assert list((tmp_path / "restart").iterdir()) == []


def test_a_run_that_is_busy_is_said_to_follow_later(tmp_path):
    with Lock(tmp_path / "restart" / "lock").held():
        assert "at its next MD step or training batch" in request(tmp_path, "pause", patience=0.05)
        assert "asked to resume" in request(tmp_path, "resume", patience=0.0)
    with pytest.raises(SettingsError, match="no such folder"):
        request(tmp_path / "nowhere", "pause")


def test_starting_a_paused_run_once_more_says_that_it_is_paused(working, monkeypatch, capsys):
    import typer

    from aims_pax.cli.exit_codes import exit_on_error

    folder, _, _ = working
    monkeypatch.chdir(folder)
    busy = Lock(folder / "restart" / "lock")

    def begin():
        with busy.held():
            raise AssertionError("two at a time")

    with pytest.raises(typer.Exit) as end:
        exit_on_error(begin)
    assert "It is paused" not in capsys.readouterr().err
    request(folder, "pause")
    with pytest.raises(typer.Exit) as end:
        exit_on_error(begin)
    assert end.value.exit_code == 1
    assert "It is paused: aims-PAX resume lets it continue" in capsys.readouterr().err


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen")


def test_a_whole_run_is_paused_resumed_stopped_and_continued(tmp_path):
    """Every calculation once: nothing begins while it rests, nothing is lost when it ends."""
    # so many labels that the run cannot end by itself between two wishes
    folder = write_project(
        tmp_path, {"ACTIVE_LEARNING": {"max_MD_steps": 100_000, "max_labels": 400, "converge_al": False}}
    )
    journal = folder / "restart" / "journal.jsonl"
    run = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.argv = ['aims-PAX']; from aims_pax.cli import main; main()"],
        cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        wait_for(lambda: journal.exists() and '"Advanced"' in journal.read_text())
        told = command("pause", str(folder), folder=tmp_path)
        assert told.returncode == 0, told.stderr
        wait_for(lambda: status(folder)["state"] == "paused")
        before = journal.read_text()
        time.sleep(1)
        assert journal.read_text() == before
        assert run.poll() is None
        request(folder, "resume")
        wait_for(lambda: journal.read_text() != before)
        request(folder, "stop")
        out, err = run.communicate(timeout=120)
        assert run.returncode == 3, err
        assert "stopped by the user (aims-PAX stop)" in out
    finally:
        run.kill()
    assert status(folder)["reason"].startswith("stopped by the user (aims-PAX stop)")
    written = folder / "aimsPAX.yaml"
    written.write_text(written.read_text().replace("max_labels: 400", "max_labels: 20"))
    done = command(folder=folder)
    assert done.returncode == 0, done.stderr
    labelled = [e for e in map(json.loads, journal.read_text().splitlines()) if e["kind"] == "Labelled"]
    frames = [e["content"]["work"]["frame"] for e in labelled]
    files = {p.stem for p in (folder / "data" / "labels").glob("*/*.json")} - {"method"}
    assert set(frames) == files


def test_a_run_that_has_ended_is_said_to_have(tmp_path):
    from tests.report.folders import advanced, made_up, recorded

    with pytest.raises(SettingsError, match=r"nothing to pause: this run is finished$"):
        request(recorded(tmp_path / "one"), "pause")
    with pytest.raises(
        SettingsError, match="nothing to stop: this run is stopped, not finished; run aims-PAX in its folder"
    ):
        request(made_up(tmp_path / "two", [advanced(1, 0, 0, 10, 0.1)]), "stop")


@pytest.mark.parametrize("kind", ["pause", "stop", "cancel"])
def test_a_run_that_is_only_starting_is_named(tmp_path, kind):
    restart, said = tmp_path / "restart", rf"yet: pid {os.getpid()} on .* is starting here; repeat"
    Handover(restart).write_runs([{"token": "ab"}])  # its blocks are not cancelled: this run takes them over
    with Lock(restart / "lock").announced(), pytest.raises(SettingsError, match=said):
        request(tmp_path, kind)


def test_a_folder_with_a_name_nearby_is_named(tmp_path):
    (tmp_path / "ethanol").mkdir()
    with pytest.raises(SettingsError, match=r"ethanl: no such folder; nearest: .*/ethanol"):
        request(tmp_path / "ethanl", "pause")
