"""Worker processes that are forked from a server: like those of a new interpreter, and safe when the server dies."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from aims_pax import fork_server
from aims_pax.processes import process_started
from aims_pax.worker_process import WorkerProcess, WorkerProcessLost

CLERK = "tests.test_worker_process:Clerk"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks are made on Linux only")


def clerk(**how):
    return WorkerProcess(CLERK, 1, {"AIMS_PAX_TEST": "yes"}, **({"forked": True} | how))


@pytest.fixture(scope="module")
def server():
    with fork_server.fork_server(["tests.test_worker_process"]):
        yield fork_server.current()


@pytest.fixture
def fork(server):
    made = clerk()
    assert isinstance(made.process, fork_server.ForkedProcess)
    yield made
    made.close()


def parent(pid):
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def test_a_fork_has_its_own_state_and_environment_and_is_a_child_of_the_server(server, fork):
    other = WorkerProcess(CLERK, 1, {"AIMS_PAX_TEST": "no"}, forked=True)
    assert [fork.ask("threads"), other.ask("threads")] == [("1", "yes"), ("1", "no")]
    assert [fork.ask("how many"), fork.ask("how many"), other.ask("how many")] == [2, 3, 2]
    assert parent(fork.process.pid) == parent(other.process.pid) == server.process.pid
    other.close()
    assert other.process.returncode == 0
    assert not os.environ.get("AIMS_PAX_TEST")


def test_a_fork_finds_modules_in_folders_that_the_driver_has_added_since_the_server_started(
    server, tmp_path, monkeypatch
):
    (tmp_path / "added_later.py").write_text(
        "class Own:\n    def __call__(self, question, stop):\n        return 7\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    made = WorkerProcess("added_later:Own", forked=True)
    assert made.ask("anything") == 7
    made.close()


@pytest.mark.parametrize(("number", "name"), [(signal.SIGKILL, "SIGKILL"), (signal.SIGSEGV, "SIGSEGV")])
def test_the_signal_that_ended_a_fork_is_known(server, number, name):
    made = clerk()
    with pytest.raises(WorkerProcessLost, match=name) as caught:
        made.ask(("die", number))
    assert caught.value.killed == (number == signal.SIGKILL)
    assert made.lost
    assert made.process.returncode == -number
    assert clerk().ask("how many") == 1  # the server is as before


def test_a_fork_can_be_killed_and_waited_for(fork):
    assert fork.ask("how many") == 1
    assert fork.process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        fork.process.wait(0.05)
    fork.process.kill()
    assert fork.process.wait() == fork.process.wait(0.0) == fork.process.poll() == -signal.SIGKILL
    fork.process.kill()  # once more does no harm


def test_several_threads_may_wait_for_a_fork_and_kill_it(server):
    for _ in range(20):
        made = clerk()
        made.send(("die", signal.SIGKILL))
        with ThreadPoolExecutor(4) as threads:
            ends = [threads.submit(made.process.wait, 20) for _ in range(3)]
            threads.submit(made.process.kill).result(20)
            assert [end.result(20) for end in ends] == [-signal.SIGKILL] * 3
        made.close()


def test_the_server_and_its_forks_end_with_their_driver():
    code = (
        "import os, signal\n"
        "from aims_pax import fork_server\n"
        "from tests.test_fork_server import clerk\n"
        "with fork_server.fork_server(['tests.test_worker_process']):\n"
        "    made = clerk()\n"
        "    made.ask('how many')\n"
        "    print(made.process.pid, fork_server.current().process.pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL
    pids = [int(word) for word in done.stdout.split()]
    assert len(pids) == 2
    until = time.monotonic() + 20
    while any(process_started(pid) for pid in pids):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_without_a_server_a_worker_is_a_new_interpreter(server):
    made = clerk(forked=False)
    assert isinstance(made.process, subprocess.Popen)
    assert made.ask("threads") == ("1", "yes")
    assert parent(made.process.pid) == os.getpid()
    made.close()


def alone():
    """In a process of its own, because it has one server only."""
    with fork_server.fork_server(["tests.test_worker_process"]):
        made, server = clerk(), fork_server.current()
        assert made.ask("how many") == 1
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        assert made.ask("how many") == 2  # the fork lives on
        other = clerk()
        assert isinstance(other.process, subprocess.Popen)
        assert other.ask("how many") == 1
        other.close()
        made.close()
        assert made.process.returncode == -signal.SIGKILL
    with fork_server.fork_server(["tests.starts_a_thread"]):
        made = clerk()
        assert isinstance(made.process, fork_server.ForkedProcess)
        assert made.ask("threads") == ("1", "yes")  # a new interpreter, begun by the server
        with open(f"/proc/{made.process.pid}/cmdline") as file:
            assert "worker_process" in file.read()
        made.close()
        assert made.process.returncode == 0
    with fork_server.fork_server(["no_such_module"]):
        made = clerk()
        with pytest.raises(WorkerProcessLost):  # nothing was changed, the question can be asked again
            made.ask("how many")
        assert made.lost
        assert clerk().ask("how many") == 1
    with fork_server.fork_server(["tests.slow_import"]):
        made = clerk()
        began = time.monotonic()
        made.process.kill()  # the server still imports
        made.close()
    assert time.monotonic() - began < 5
    print("as it should be")


def test_the_server_may_die_fail_or_be_unable_to_fork(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", "from tests.test_fork_server import alone; alone()"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout == "as it should be\n", done.stderr
