"""Nothing a command starts outlives the command, the time limit, or us."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from aims_pax.errors import TimedOut
from aims_pax.labelling.process_sessions import CommandRunner, SharedTimeLimit


def run(running, folder, command, limit=None):
    return running.run(command, folder, folder / "out", folder / "err", SharedTimeLimit(limit))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_exit_code_and_both_outputs_come_back(tmp_path):
    assert run(CommandRunner(), tmp_path, "echo hello; echo oh >&2; exit 3") == 3
    assert (tmp_path / "out").read_text() == "hello\n"
    assert (tmp_path / "err").read_text() == "oh\n"


def test_the_command_runs_in_the_folder_with_one_thread_and_no_input(tmp_path):
    assert run(CommandRunner(), tmp_path, "pwd; cat; echo $OMP_NUM_THREADS") == 0
    told = (tmp_path / "out").read_text().split()
    assert told[0] == str(tmp_path)
    assert told[1] == os.environ.get("OMP_NUM_THREADS", "1")


def test_a_process_left_in_the_background_is_gone_when_the_command_ends(tmp_path):
    run(CommandRunner(), tmp_path, "sleep 300 & echo $!")
    pid = int((tmp_path / "out").read_text())
    wait_for(lambda: not alive(pid))


def test_a_process_in_a_group_of_its_own_dies_at_the_limit_too(tmp_path):
    """Launchers of MPI give each rank a process group; the session is what holds them together."""
    code = "import os, time; os.setpgid(0, 0); print(os.getpid(), flush=True); time.sleep(300)"
    command = f"{sys.executable} -c '{code}'"
    with pytest.raises(TimedOut):
        run(CommandRunner(), tmp_path, f"{command} & wait", limit=1.0)
    wait_for(lambda: not alive(int((tmp_path / "out").read_text())))


def test_the_limit_does_not_count_while_a_program_waits_to_begin(tmp_path):
    clock, out = SharedTimeLimit(2.0), tmp_path / "out"
    waiting = lambda: not out.exists() or not out.stat().st_size  # noqa: E731
    command = "sleep 3; echo begun; sleep 1"  # longer than the time between two looks
    assert CommandRunner().run(command, tmp_path, out, tmp_path / "err", clock, waiting=waiting) == 0
    assert 0.2 < clock.left < 2.0
    out.unlink()
    begun = time.monotonic()
    with pytest.raises(TimedOut, match="limit of 2 s"):
        CommandRunner().run(
            "sleep 3; echo begun; sleep 300", tmp_path, out, tmp_path / "err", clock, waiting=waiting
        )
    assert time.monotonic() - begun > 3.5  # what was left of the clock, after the wait
    assert clock.left <= 0


def test_stop_ends_what_runs_and_lets_nothing_start(tmp_path):
    running = CommandRunner()
    codes = []
    thread = threading.Thread(target=lambda: codes.append(run(running, tmp_path, "sleep 300")))
    thread.start()
    wait_for(lambda: running._processes)
    running.stop()
    thread.join(10)
    assert codes
    assert codes[0] != 0


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_the_command_dies_with_us_whatever_kills_us(tmp_path, sign):
    code = (
        "from pathlib import Path; from aims_pax.labelling.process_sessions import CommandRunner; "
        f"f = Path({str(tmp_path)!r}); "
        "CommandRunner().run('sleep 300 & echo $! > pid; wait', f, f / 'out', f / 'err')"
    )
    driver = subprocess.Popen([sys.executable, "-c", code])
    wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip())
    pid = int((tmp_path / "pid").read_text())
    driver.send_signal(sign)
    driver.wait()
    wait_for(lambda: not alive(pid))
