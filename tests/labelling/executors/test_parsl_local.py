"""Parsl on this machine: paths of any name, nothing printed, nothing left behind."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import pytest
from parsl.errors import ParslError
from parsl.executors.high_throughput.errors import ManagerLost, WorkerLost

from aims_pax.errors import NotConverged, SetupError
from aims_pax.labelling.executors.base import WorkerDied
from aims_pax.labelling.executors.parsl_local import ParslExecutor, _quoted, pool_command, worker_init
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


def passed_on(tmp_path, error, **backend):
    """The promise of a task that ended with this error, or with 7."""
    executor, done, promise = ParslExecutor("htex", 1, tmp_path), Future(), Future()
    executor._kernel = SimpleNamespace(
        executors={executor.label: SimpleNamespace(**backend)}, run_dir="/logs/000"
    )
    done.set_exception(error) if error else done.set_result(7)
    executor._pass_on(done, promise)
    return promise


def test_results_and_errors_of_the_task_pass_unchanged(tmp_path):
    assert passed_on(tmp_path, None).result() == 7
    error = NotConverged("no", "/calc")
    assert passed_on(tmp_path, error).exception() is error


def test_a_lost_node_weighs_less_than_a_lost_worker(tmp_path):
    node = passed_on(tmp_path, ManagerLost(b"m", "node1")).exception()
    worker = passed_on(tmp_path, WorkerLost(1, "node1")).exception()
    assert type(node) is type(worker) is WorkerDied
    assert 0 < node.cost < worker.cost < 1


def test_what_parsl_says_of_its_workers_is_an_error_of_the_setup_with_the_verdict_if_there_is_one(tmp_path):
    error = passed_on(tmp_path, ParslError("no blocks")).exception()
    assert isinstance(error, SetupError)
    assert str(error) == "worker processes cannot be kept running: no blocks (more in /logs/000)"
    verdict = SetupError("the interchange has ended")
    assert passed_on(tmp_path, ParslError("no blocks"), executor_exception=verdict).exception() is verdict


def test_a_worker_that_is_lost_while_we_leave_may_still_run(tmp_path):
    executor, done, promise = ParslExecutor("htex", 1, tmp_path), Future(), Future()
    done.set_exception(ManagerLost(b"m", "node1"))
    executor._pass_on(done, promise)
    assert not promise.done()


def test_nothing_is_submitted_to_an_executor_that_is_not_open(tmp_path):
    with pytest.raises(RuntimeError, match="not open: use it as a context manager"):
        ParslExecutor("threads", 1, tmp_path).submit(square, 3)


@pytest.mark.parametrize("path", ["/a b/c", "/it's", "/{half}", "/100%"])
def test_paths_come_through_the_shell_and_through_format(path):
    found = subprocess.run(
        ["sh", "-c", f"printf %s {_quoted(path).format()}"], capture_output=True, text=True, check=True
    )
    assert found.stdout == path


def test_the_python_of_the_pool_is_this_one_after_two_rounds_of_format(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/my {env}/bin/python")
    command = pool_command()
    assert "process_worker_pool.py" not in command
    python, _, _ = command.partition(" -m ")
    assert python.format().format() == "'/my {env}/bin/python'"


def test_workers_use_one_thread_and_start_in_their_folder(tmp_path):
    folder = tmp_path / "it's here"
    folder.mkdir()
    text = worker_init(folder) + "\necho $OMP_NUM_THREADS $MKL_NUM_THREADS $OPENBLAS_NUM_THREADS; pwd"
    said = subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == ["1 1 1", str(folder)]
    assert "cd " not in worker_init(None)
