"""One run a folder, also after crashes and from other hosts."""

import errno
import json
import os
import subprocess
import sys
import time

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


# clocks, requeued jobs and lost locks -----------------------------------------------------------------------


@pytest.mark.parametrize("step", [-3600.0, -1.0, 0.2, 1.0, 86400.0])
def test_a_step_of_the_clock_does_not_make_the_lock_stale(path, monkeypatch, step):
    """psutil derives the start of a process from the clock as it is now."""
    import psutil

    real = psutil.Process.create_time
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        other.stdout.readline()
        monkeypatch.setattr(psutil.Process, "create_time", lambda self: real(self) + step)
        with pytest.raises(Busy, match=rf"pid {other.pid} on "), Lock(path).held():
            pass
        assert Lock(path).holder()["pid"] == other.pid
    finally:
        other.communicate()


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr("aims_pax.record.lock.QUIET", 1.0)
    monkeypatch.setattr("aims_pax.record.lock.LOOK_EVERY", 0.05)
    monkeypatch.setattr("aims_pax.record.lock.BEAT_EVERY", 0.1)


@pytest.mark.parametrize("job", ["77", "78"])
def test_a_requeued_job_waits_for_the_lock_of_its_dead_node_and_goes_on(
    path, quick, monkeypatch, caplog, job
):
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    write(path, pid=1, host="node7", started=1.0, process="boot:1", job=job)
    began = time.monotonic()
    with Lock(path).held():
        assert json.loads(path.read_text())["job"] == "77"
    assert 0.9 < time.monotonic() - began < 5
    assert ("this job before it was requeued" in caplog.text) == (job == "77")


def test_a_job_that_sees_a_sign_of_life_from_the_other_host_is_refused(path, quick, monkeypatch):
    import threading

    monkeypatch.setenv("SLURM_JOB_ID", "77")
    write(path, pid=1, host="node7", started=1.0, process="boot:1", job="77")
    alive = threading.Timer(0.4, lambda: os.utime(path))
    alive.start()
    with pytest.raises(Busy, match="pid 1 on node7, job 77"), Lock(path).held():
        pass
    alive.join()
    assert path.exists()


def test_a_signal_ends_the_waiting_for_a_lock(path, quick, monkeypatch):
    monkeypatch.setenv("PBS_JOBID", "5.server")
    write(path, pid=1, host="node7", process="boot:1")

    def check():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Lock(path).held(check):
        pass


def test_a_person_hears_at_once_that_another_host_works_there(path):
    write(path, pid=1, host="node7", process="boot:1")
    began = time.monotonic()
    with pytest.raises(Busy), Lock(path).held():
        pass
    assert time.monotonic() - began < 1


def test_the_lock_is_renewed_whatever_its_process_waits_for(path, quick):
    with Lock(path).held():
        os.utime(path, (1.0, 1.0))
        time.sleep(0.5)  # and nobody calls beat
        assert time.time() - path.stat().st_mtime < 60


def test_a_run_whose_lock_another_one_has_taken_ends(path, quick):
    lock = Lock(path)
    with lock.held():
        write(path, pid=1, host="node7", process="boot:1")
        time.sleep(0.4)
        with pytest.raises(Busy, match="taken by pid 1 on node7 while this run continued"):
            lock.heartbeat()
    assert json.loads(path.read_text())["host"] == "node7"  # and its lock stays


def test_a_lock_of_an_earlier_version_still_counts(path):
    import socket

    import psutil

    created = round(psutil.Process().create_time(), 1)
    write(path, pid=os.getpid(), host=socket.gethostname(), started=created)
    with pytest.raises(Busy), Lock(path).held():
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
    deadline = time.monotonic() + 60
    while sum(p.poll() is None for p in others) > 1 and time.monotonic() < deadline:
        time.sleep(0.1)  # the others end as soon as they have started, which takes a while on a busy machine
    time.sleep(0.5)
    held = [p for p in others if p.poll() is None]
    for process in others:
        process.communicate()
    assert len(held) == 1


def test_a_process_that_took_a_stale_lock_keeps_it_when_a_slower_one_found_it_stale_too(path, monkeypatch):
    """The slower one may be held up between its judgement and the removal, for seconds on a busy machine."""
    write(path, age=2 * STALE_AFTER, pid=1, host="node7", started=1.0)
    lock, judged = Lock(path), Lock._alive
    others = []

    def overtaken(self, holder):
        said = judged(self, holder)
        if not others:
            others.append(
                subprocess.Popen(
                    [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
                )
            )
            assert others[0].stdout.readline() == b"locked\n"
        return said

    monkeypatch.setattr(Lock, "_alive", overtaken)
    try:
        with pytest.raises(Busy, match=rf"pid {others[0].pid if others else ''}"), lock.held():
            pass
        assert json.loads(path.read_text())["pid"] == others[0].pid
    finally:
        others[0].communicate()
    assert sorted(p.name for p in path.parent.iterdir()) == []


def test_without_flock_the_lock_of_a_faster_process_is_put_back(path, monkeypatch):
    write(path, age=2 * STALE_AFTER, pid=1, host="node7", started=1.0)
    mine = {"pid": os.getppid(), "host": "node8", "started": 2.0}

    def moved(source, target):  # at the last moment another process has taken it
        write(path, **mine)
        os.rename(source, target)

    def without(*_):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr("aims_pax.record.lock.move", moved)
    monkeypatch.setattr("aims_pax.record.lock.fcntl.flock", without)
    with pytest.raises(Busy, match="node8"), Lock(path).held():
        pass
    assert json.loads(path.read_text()) == mine


def test_a_sign_of_life_renews_the_age(path, monkeypatch):
    monkeypatch.setattr("aims_pax.record.lock.BEAT_EVERY", 0.0)
    lock = Lock(path)
    with lock.held():
        os.utime(path, (1.0, 1.0))
        lock.heartbeat()
        assert path.stat().st_mtime > 1e9


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "restart").write_text("in the way")
    with pytest.raises(SetupError, match="cannot write"), Lock(tmp_path / "restart" / "lock").held():
        pass
