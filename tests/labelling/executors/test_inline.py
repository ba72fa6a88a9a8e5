"""One contract for every executor, and what each promises besides."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import FIRST_COMPLETED, wait
from pathlib import Path

import pytest

from aims_pax.errors import NotConverged, SettingsError
from aims_pax.labelling.executors.inline import InlineExecutor
from aims_pax.labelling.factory import KINDS, make_executor
from aims_pax.schedulers.usable_cores import cores


@pytest.fixture(scope="module", params=KINDS)
def executor(request, tmp_path_factory):
    with make_executor(request.param, 2, tmp_path_factory.mktemp("logs") / "parsl") as it:
        yield it


def square(x):
    return x * x


def fail(reason, folder):
    raise NotConverged(reason, folder)


def where():
    return os.getpid(), threading.get_ident(), os.environ.get("OMP_NUM_THREADS")


def test_results_come_back(executor):
    assert [f.result(60) for f in [executor.submit(square, x) for x in range(5)]] == [0, 1, 4, 9, 16]
    assert executor.capacity in (1, 2)


def test_an_exception_is_the_futures_and_crosses_whole(executor):
    error = executor.submit(fail, "after 99 cycles", "/calc/7f3a").exception(60)
    assert type(error) is NotConverged
    assert (error.reason, error.folder) == ("after 99 cycles", "/calc/7f3a")


def test_futures_can_be_waited_for_without_polling(executor):
    futures = [executor.submit(square, x) for x in range(3)]
    done, _ = wait(futures, timeout=60, return_when=FIRST_COMPLETED)
    assert done


def test_work_runs_where_it_should(executor):
    pid, thread, omp = executor.submit(where).result(60)
    kind = "inline" if isinstance(executor, InlineExecutor) else executor.kind
    assert (pid == os.getpid()) == (kind != "htex")
    assert (thread == threading.get_ident()) == (kind == "inline")
    if kind == "htex":
        assert omp == "1"


def test_ctrl_c_in_inline_work_is_not_swallowed():
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        InlineExecutor().submit(interrupted)


def test_an_executor_that_does_not_run_here_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="mpi"):
        make_executor("mpi", 1, tmp_path)


def test_cores_are_those_we_may_use():
    assert 1 <= cores() <= (os.cpu_count() or 1)


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
