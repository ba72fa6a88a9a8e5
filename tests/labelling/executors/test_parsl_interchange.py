"""What stands between driver and workers: its end is noticed, and a pool whose block has ended is given up at once."""

import logging
import os
import pickle
import signal
import subprocess
import threading
import time
from concurrent.futures import Future

import pytest
from parsl.executors import HighThroughputExecutor
from parsl.executors.errors import BadStateException

from aims_pax.errors import SetupError
from aims_pax.labelling.executors.base import WorkerDied
from aims_pax.labelling.executors.parsl_local import QuotedPool, interchange_command
from aims_pax.labelling.factory import make_executor


@pytest.fixture
def executor(tmp_path):
    with make_executor("htex", 2, tmp_path / "parsl") as it:
        yield it
        began = time.monotonic()
    assert time.monotonic() - began < 40  # leaving does not wait for answers that never come


def backend(executor):
    return executor._kernel.executors[executor.label]


def test_a_dead_interchange_ends_the_run_with_one_line_and_nothing_hangs(executor):
    assert executor.submit(os.getppid).result(60) > 1
    lost = [executor.submit(time.sleep, 300.0) for _ in range(3)]
    os.kill(backend(executor).interchange_proc.pid, signal.SIGKILL)
    for future in lost:
        with pytest.raises(SetupError, match=r"has ended .killed by signal 9") as raised:
            future.result(30)
        assert "\n" not in str(raised.value)
    with pytest.raises(SetupError, match="has ended"):
        executor.submit(time.sleep, 0.0).result(30)


def test_a_pool_that_is_given_up_fails_what_another_thread_hands_over_meanwhile(monkeypatch):
    pool = QuotedPool(label="labels", address="127.0.0.1", encrypted=False)
    checked, given_up = threading.Event(), threading.Event()

    # what Parsl does, with time between the check and the registration
    def submit_slowly(self, context, buffer):
        assert not self.bad_state_is_set
        checked.set()
        given_up.wait(1.0)
        self.tasks[1] = Future()
        return self.tasks[1]

    monkeypatch.setattr(HighThroughputExecutor, "submit_payload", submit_slowly)
    late = []
    thread = threading.Thread(target=lambda: late.append(pool.submit_payload({}, b"")))
    thread.start()
    checked.wait(10)
    pool.set_bad_state_and_fail_all(SetupError("the interchange has ended"))
    given_up.set()
    thread.join()
    with pytest.raises(BadStateException, match="the interchange has ended"):
        late[0].result(0)


def test_a_pool_that_is_given_up_fails_all_tasks_while_others_finish():
    pool = QuotedPool(label="labels", address="127.0.0.1", encrypted=False)
    finished, lost, last = Future(), Future(), Future()
    finished.set_result(1)  # its thread has not yet taken it from the table
    pool.tasks.update({1: finished, 2: lost, 3: last})
    lost.add_done_callback(lambda _: pool.tasks.pop(1))
    pool.set_bad_state_and_fail_all(SetupError("the interchange has ended"))
    pool.set_bad_state_and_fail_all(SetupError("a consequence"))
    assert finished.result(0) == 1
    for future in (lost, last):
        with pytest.raises(BadStateException, match="the interchange has ended"):
            future.result(0)
    assert "interchange" in str(pool.executor_exception)


def test_an_interchange_whose_driver_died_while_it_started_ends(executor):
    gone = subprocess.Popen(["true"])
    gone.wait()
    command = [str(gone.pid) if word == str(os.getpid()) else word for word in interchange_command()]
    assert str(gone.pid) in command
    owner = backend(executor)
    ports = owner.outgoing_q.port, owner.incoming_q.port, owner.command_client.port
    names = ("worker_port_range", "hub_zmq_port", "logdir", "heartbeat_threshold", "poll_period", "cert_dir",
             "manager_selector", "run_id", "log_config", "_check_python_mismatch")  # fmt: skip
    config = {name: getattr(owner, name) for name in names} | {
        "client_address": owner.loopback_address, "interchange_address": owner.address, "client_ports": ports,
        "hub_address": owner.loopback_address, "worker_port": None, "logging_level": logging.INFO,
    }  # fmt: skip
    interchange = subprocess.Popen(command, stdin=subprocess.PIPE)
    interchange.communicate(pickle.dumps(config), timeout=60)
    assert interchange.returncode == 0


def test_a_pool_that_is_held_is_given_up_without_waiting_for_its_heartbeats(executor):
    assert executor.submit(os.getppid).result(60) > 1
    running = executor.submit(time.sleep, 300.0)
    deadline = time.monotonic() + 60
    while not any(m["tasks"] for m in backend(executor).connected_managers()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    began = time.monotonic()
    for manager in backend(executor).connected_managers():
        backend(executor)._hold_block(manager["block_id"])
    with pytest.raises(WorkerDied) as raised:
        running.result(60)
    assert raised.value.cost == pytest.approx(0.1)  # its block, not the task
    assert time.monotonic() - began < 20  # heartbeats: 60 s
