"""One run a folder, also after crashes and from other hosts."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aims_pax.errors import Busy, SetupError
from aims_pax.record.lock import STALE_AFTER, STARTING, Lock

HOLD = (
    "import sys; from pathlib import Path; from aims_pax.record.lock import Lock\n"
    "with Lock(Path(sys.argv[1])).held(): print('locked', flush=True); sys.stdin.read()\n"
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "restart" / "lock"


def write(path, age=0.0, **holder):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(holder))
    os.utime(path, (time.time() - age,) * 2)


def test_who_is_about_to_go_on_says_so_until_it_has_the_lock(path):
    lock, mark = Lock(path), path.with_name(STARTING)
    with lock.announced():
        assert not mark.parent.exists(), "nothing is begun by that"
    path.parent.mkdir()
    with lock.announced():
        assert json.loads(mark.read_text())["pid"] == os.getpid()
        assert lock.holder() is None
        with lock.held():
            assert not mark.exists()
    with pytest.raises(SetupError), lock.announced():
        raise SetupError("the settings were wrong")
    assert not mark.exists()


def test_a_second_process_is_refused_with_pid_and_host_of_the_first(path):
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        other.stdout.readline()
        with pytest.raises(Busy, match=rf"pid {other.pid} on "), Lock(path).held():
            pass
    finally:
        other.communicate()
    with Lock(path).held():
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert not path.exists()


def test_the_lock_of_a_killed_process_is_recognised_as_stale(path):
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    other.stdout.readline()
    other.kill()
    other.communicate()
    assert path.exists()
    with Lock(path).held():
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_a_pid_that_another_process_has_now_is_not_mistaken_for_the_holder(path):
    import socket

    write(path, pid=os.getpid(), host=socket.gethostname(), started=1.0)
    with Lock(path).held():
        pass


def test_another_host_is_believed_to_live_while_it_gives_signs_of_life(path):
    write(path, age=STALE_AFTER / 2, pid=1, host="node7", started=1.0)
    with pytest.raises(Busy, match="pid 1 on node7"), Lock(path).held():
        pass
    write(path, age=STALE_AFTER * 2, pid=1, host="node7", started=1.0)
    with Lock(path).held():
        pass


@pytest.mark.parametrize("content", ["", "{", "[]", "7"])
def test_a_torn_lock_file_is_fresh_from_elsewhere_until_it_is_old(path, content):
    write(path)
    path.write_text(content)
    with pytest.raises(Busy), Lock(path).held():
        pass
    os.utime(path, (time.time() - 2 * STALE_AFTER,) * 2)
    with Lock(path).held():
        pass


def test_of_many_processes_that_find_a_stale_lock_one_gets_it(path):
    write(path, age=2 * STALE_AFTER, pid=1, host="node7", started=1.0)
    others = [
        subprocess.Popen(
            [sys.executable, "-c", HOLD, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(8)
    ]
    time.sleep(2.5)
    held = [p for p in others if p.poll() is None]
    for process in others:
        process.communicate()
    assert len(held) == 1


def test_a_sign_of_life_renews_the_age(path, monkeypatch):
    monkeypatch.setattr("aims_pax.record.lock.BEAT_EVERY", 0.0)
    lock = Lock(path)
    with lock.held():
        os.utime(path, (1.0, 1.0))
        lock.beat()
        assert path.stat().st_mtime > 1e9


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "restart").write_text("in the way")
    with pytest.raises(SetupError, match="cannot write"), Lock(tmp_path / "restart" / "lock").held():
        pass


def test_a_second_run_is_refused_before_anything_slow_is_loaded(tmp_path, monkeypatch):
    import sys

    from aims_pax.cli.ends import tell
    from tests.projects import write_project

    folder = write_project(tmp_path)
    monkeypatch.chdir(folder)
    monkeypatch.setitem(sys.modules, "aims_pax.procedures.main", None)  # importing it would fail
    with (
        Lock(folder / "restart" / "lock").held(),
        pytest.raises(Busy, match=f"another aims-PAX works in this folder .pid {os.getpid()} on "),
    ):
        tell("run_all", Path("mace.yaml"), Path("aimsPAX.yaml"))
