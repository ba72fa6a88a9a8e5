"""Atomic writes and the lock."""

import os
import subprocess
import sys

import pytest

from aims_pax.errors import Busy, SetupError


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(folder, monkeypatch):
    path = folder.root / "x" / "file"
    folder.write_text(path, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SetupError, match="No space left"):
        folder.write_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_a_second_process_is_refused_with_pid_and_host_of_the_first(folder):
    code = (
        "import fcntl, json, os, sys, time\n"
        f"f = open({str(folder.restart / 'lock')!r}, 'a+'); fcntl.flock(f, fcntl.LOCK_EX)\n"
        "f.truncate(0); json.dump({'pid': os.getpid(), 'host': 'node7'}, f); f.flush()\n"
        "print('locked', flush=True); sys.stdin.read()\n"
    )
    folder.restart.mkdir()
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        other.stdout.readline()
        with pytest.raises(Busy, match=rf"pid {other.pid} on node7"), folder.locked():
            pass
    finally:
        other.communicate()
    with folder.locked():
        pass


def test_the_lock_of_a_dead_process_is_no_obstacle(folder):
    with folder.locked():
        assert str(os.getpid()) in (folder.restart / "lock").read_text()
    (folder.restart / "lock").write_text('{"pid": 1, "host": "gone"}')
    with folder.locked():
        pass
