"""Parsl on this machine: paths of any name, nothing printed, nothing left behind."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from aims_pax.labelling.factory import make_executor


def square(x):
    return x * x


def test_threads_leave_nothing_behind(tmp_path):
    before, handlers = threading.active_count(), list(logging.getLogger("parsl").handlers)
    with make_executor("threads", 3, tmp_path / "parsl") as executor:
        assert executor.submit(square, 3).result(10) == 9
    assert threading.active_count() == before
    assert not any((tmp_path / "parsl").iterdir())
    assert logging.getLogger("parsl").handlers in (handlers, [*handlers, *_nothing()])


def _nothing():
    """Parsl's own, which writes nowhere."""
    return [h for h in logging.getLogger("parsl").handlers if isinstance(h, logging.NullHandler)]


def script(kind, folder, body):
    return f"""
import os, sys, time
from pathlib import Path
from aims_pax.labelling.factory import make_executor
if __name__ == "__main__":
    with make_executor({kind!r}, 2, Path("logs/parsl"), Path({str(folder)!r})) as executor:
{body}
"""


@pytest.mark.parametrize("kind", ["threads", "htex"])
def test_nothing_is_printed_and_no_runinfo_appears_and_nothing_stays(tmp_path, kind):
    """In a process of its own, started by absolute path without an activated environment."""
    body = "        print(executor.submit(os.getpid).result(60), flush=True)"
    bare = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    told = subprocess.run(
        [sys.executable, "-c", script(kind, tmp_path, body)],
        cwd=tmp_path, env=bare, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert told.stderr == ""
    assert told.returncode == 0
    assert told.stdout.strip().isdigit()
    assert os.listdir(tmp_path) == ["logs"]
    assert processes_in(tmp_path) == []


def test_ctrl_c_reaches_the_driver_alone_and_it_leaves_in_seconds(tmp_path):
    """A terminal sends SIGINT to the whole foreground group; a task that sleeps holds nothing up."""
    body = """
        executor.submit(os.getpid).result(60)
        executor.submit(time.sleep, 300)
        print("sleeping", flush=True)
        time.sleep(300)
"""
    driver = subprocess.Popen(
        [sys.executable, "-c", script("htex", tmp_path, body)],
        cwd=tmp_path, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert driver.stdout.readline() == "sleeping\n"
    time.sleep(0.3)
    os.killpg(driver.pid, signal.SIGINT)
    begun = time.monotonic()
    _, err = driver.communicate(timeout=30)
    assert time.monotonic() - begun < 10
    assert err.strip().endswith("KeyboardInterrupt")
    assert processes_in(tmp_path) == []


def processes_in(folder: Path) -> list[str]:
    """Command lines of live processes that know this folder, two seconds after their driver left."""
    for _ in range(20):
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    home = os.readlink(entry / "cwd")
                except OSError:
                    continue
                if str(folder) in line or str(folder) in home:
                    found.append(line)
        if not found:
            return []
        time.sleep(0.1)
    return found


def test_worker_processes_start_in_a_folder_of_any_name(tmp_path):
    folder = tmp_path / "my {project} 100% 'a'"
    folder.mkdir()
    with make_executor("htex", 1, folder / "parsl", folder) as it:
        assert it.submit(os.getcwd).result(60) == str(folder)
