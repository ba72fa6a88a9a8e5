"""Which process it is, and what may interrupt it."""

import os
import signal
import subprocess
import sys
import threading

from aims_pax.processes import STOP_SIGNALS, interruptible, interrupting, process_started


def test_a_process_has_one_identity_and_none_when_it_is_gone():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    first = process_started(child.pid)
    assert first is not None
    assert first == process_started(child.pid) != process_started(os.getpid())
    child.kill()
    child.wait()
    assert process_started(child.pid) is None


def test_everything_a_scheduler_or_a_terminal_sends_to_end_a_process_is_a_request_to_stop():
    assert {signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGXCPU} <= set(STOP_SIGNALS)


def test_a_calculation_is_interruptible_in_its_own_thread_alone():
    seen = []
    with interruptible():
        with interruptible():
            assert interrupting()
        assert interrupting()
        thread = threading.Thread(target=lambda: seen.append(interrupting()))
        thread.start()
        thread.join()
    assert seen == [False]
    assert not interrupting()
