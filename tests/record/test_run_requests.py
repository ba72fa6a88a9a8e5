"""Wishes left in a folder reach the process they are meant for, and no other."""

import json
import os
import socket
import time

import pytest

from aims_pax.errors import SettingsError, SetupError
from aims_pax.record.lock import STALE_AFTER, Lock
from aims_pax.record.run_requests import RequestFile, ask, asked_for, paused_since


@pytest.fixture
def restart(tmp_path):
    (tmp_path / "restart").mkdir()
    return tmp_path / "restart"


def test_a_wish_reaches_the_run_that_holds_the_lock(tmp_path, restart):
    wishes = RequestFile(restart)
    assert wishes.look() is None
    with Lock(restart / "lock").held():
        assert wishes.look() is None
        assert ask(tmp_path, "pause")["pid"] == os.getpid()
        assert wishes.look() == "pause"
        assert asked_for(tmp_path) == "pause"
        assert paused_since(tmp_path) is None
        before = time.time()
        wishes.paused()
        assert before <= paused_since(tmp_path) <= time.time()
        ask(tmp_path, "resume")
        assert wishes.look() == "resume"
        wishes.running()
        assert wishes.look() is None
        assert paused_since(tmp_path) is None
    assert sorted(p.name for p in restart.iterdir()) == []


def test_a_run_from_another_host_is_reached_as_long_as_it_gives_signs_of_life(tmp_path, restart):
    lock = restart / "lock"
    lock.write_text(json.dumps({"pid": 1, "host": "far away", "started": 1.0}))
    assert ask(tmp_path, "stop")["host"] == "far away"
    os.utime(lock, (time.time() - STALE_AFTER - 60,) * 2)
    with pytest.raises(SettingsError, match="nothing to stop"):
        ask(tmp_path, "stop")


def test_an_old_wish_never_touches_a_new_run_and_is_told(tmp_path, restart, caplog):
    """The same process number on the same host, begun at another time, is another run."""
    caplog.set_level("INFO", "aims_pax")
    old = {"pid": os.getpid(), "host": socket.gethostname(), "started": 1.0}
    wish = {"wish": "stop", "of": old, "when": 1e9, "from": "here"}
    (restart / "control.json").write_text(json.dumps(wish))
    (restart / "paused.json").write_text(json.dumps({"since": 1e9, "of": old}))
    with Lock(restart / "lock").held():
        assert RequestFile(restart).look() is None
        assert paused_since(tmp_path) is None
        assert asked_for(tmp_path) is None
    assert not (restart / "control.json").exists()
    assert "aims-PAX stop from" in caplog.text


def test_without_a_run_the_user_hears_why(tmp_path):
    with pytest.raises(SettingsError, match="no aims-PAX run was begun"):
        ask(tmp_path, "pause")
    (tmp_path / "restart").mkdir()
    with pytest.raises(SettingsError, match="nothing to pause"):
        ask(tmp_path, "pause")


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"wish": "explode", "of": {}}'])
def test_what_is_no_wish_is_passed_over(tmp_path, restart, text):
    with Lock(restart / "lock").held():
        (restart / "control.json").write_text(text)
        assert RequestFile(restart).look() is None
        assert asked_for(tmp_path) is None


def test_a_folder_that_refuses_is_named(tmp_path, restart, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    with Lock(restart / "lock").held():
        monkeypatch.setattr("os.replace", refuse)
        with pytest.raises(SetupError, match=r"control\.json: No space left"):
            ask(tmp_path, "stop")
        RequestFile(restart).paused()  # a run that rests does not die of it
