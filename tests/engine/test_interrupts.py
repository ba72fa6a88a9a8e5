"""Signals and the end of the walltime."""

import os
import signal
import threading
import time

import pytest

from aims_pax.engine.interrupts import InterruptMonitor, RunInterrupted, remaining_walltime
from aims_pax.processes import interruptible


def test_signals_only_set_a_flag_and_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM)
    watch = InterruptMonitor()
    with watch.listening():
        assert not watch.stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert watch.stop()
    assert signal.getsignal(signal.SIGTERM) == before
    with pytest.raises(RunInterrupted) as stopped:
        watch.raise_if_stopped()
    assert stopped.value.code == 75


def test_the_second_ctrl_c_does_not_wait():
    watch = InterruptMonitor()
    with watch.listening():
        os.kill(os.getpid(), signal.SIGINT)
        assert watch.stop()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_the_run_stops_before_the_end_of_its_walltime():
    watch = InterruptMonitor(seconds=0.05)
    time.sleep(0.06)
    assert watch.stop()
    with pytest.raises(RunInterrupted, match="walltime") as stopped:
        watch.raise_if_stopped()
    assert stopped.value.code == 75
    assert not InterruptMonitor(seconds=1e6).stop()


def test_the_smaller_of_settings_and_slurm_counts():
    end = {"SLURM_JOB_ID": "1", "SLURM_JOB_END_TIME": str(int(time.time()) + 1000)}
    assert remaining_walltime(None, {}) is None
    assert remaining_walltime(float("inf"), {}) is None
    assert remaining_walltime(50.0, end) == 50.0
    assert remaining_walltime(float("inf"), end) == pytest.approx(1000, abs=2)


def test_a_slurm_that_does_not_answer_is_no_reason_to_stop(caplog, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert remaining_walltime(None, {"SLURM_JOB_ID": "1"}) is None
    assert "max_walltime" in caplog.text


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU]
)
def test_whatever_a_scheduler_or_a_closed_terminal_sends_means_run_me_again(number):
    watch = InterruptMonitor()
    with watch.listening():
        os.kill(os.getpid(), number)
        with pytest.raises(RunInterrupted, match=signal.Signals(number).name) as stopped:
            watch.raise_if_stopped()
    assert stopped.value.code == 75


def test_a_calculation_in_this_process_is_interrupted_by_a_signal_and_by_the_walltime():
    """No except of somebody's calculator takes it for an error."""
    for watch, number in ((InterruptMonitor(), signal.SIGTERM), (InterruptMonitor(0.5), None)):
        with watch.listening(), interruptible():
            if number is not None:
                threading.Timer(0.2, os.kill, (os.getpid(), number)).start()
            began = time.monotonic()
            with pytest.raises(RunInterrupted) as stopped:
                _patient()
        assert stopped.value.code == 75
        assert time.monotonic() - began < 2


def _patient():
    try:
        time.sleep(20)
    except Exception as error:
        raise AssertionError("taken for an error of the calculator") from error


def test_outside_of_calculations_a_signal_only_sets_the_flag():
    watch = InterruptMonitor(0.2)
    with watch.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.4)  # the walltime is over, too
        assert watch.signal == signal.SIGTERM
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_stop_with_cancel_says_so(quick):
    watch = InterruptMonitor(requests=Left("cancel", None))
    assert watch.stop()
    with pytest.raises(RunInterrupted, match="aims-PAX stop --cancel") as stopped:
        watch.raise_if_stopped()
    assert (stopped.value.code, stopped.value.cancel) == (3, True)


def test_whoever_looks_gives_a_sign_of_life():
    beats = []
    InterruptMonitor(heartbeat=lambda: beats.append(1)).stop()
    assert beats == [1]


class Left:
    """Wishes as they would be found, one a look; the last stays."""

    def __init__(self, *wishes):
        self.requests, self.said = list(wishes), []

    def look(self):
        return self.requests.pop(0) if len(self.requests) > 1 else self.requests[0]

    def paused(self):
        self.said.append("paused")

    def running(self):
        self.said.append("running")


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr("aims_pax.engine.interrupts.CHECK_EVERY", 0.01)


@pytest.mark.parametrize("look", ["stop", "raise_if_stopped"])
def test_whoever_looks_waits_while_the_run_is_paused_and_keeps_the_lock_alive(quick, look):
    beats = []
    left = Left("pause", "pause", None, "pause", "resume", None)
    watch, told = InterruptMonitor(heartbeat=lambda: beats.append(1), requests=left), []
    watch.on_pause = told.append
    assert not getattr(watch, look)()
    assert left.said == ["paused", "running"]
    assert len(beats) > 3
    assert told == [True, False]
    assert 0 < watch.paused_seconds == pytest.approx(watch.pauses[0][1] - watch.pauses[0][0], abs=1e-5)
    assert left.look() is None


def test_a_wish_to_stop_is_a_clean_end_with_the_users_exit_code(quick):
    watch = InterruptMonitor(requests=Left("stop", None))
    assert watch.stop()
    with pytest.raises(RunInterrupted, match="aims-PAX stop") as stopped:
        watch.raise_if_stopped()
    assert stopped.value.code == 3


def test_a_pause_ends_in_a_stop_by_wish_by_signal_or_at_the_walltime(quick):
    watch = InterruptMonitor(requests=Left("pause", "pause", "stop", None))
    assert watch.stop()
    assert watch.stop_requested
    watch = InterruptMonitor(requests=Left("pause"))
    watch.signal = signal.SIGTERM
    with pytest.raises(RunInterrupted, match="SIGTERM"):
        watch.raise_if_stopped()
    watch = InterruptMonitor(seconds=0.1, requests=Left("pause"))
    with pytest.raises(RunInterrupted, match="walltime"):
        watch.raise_if_stopped()


def test_the_folder_is_not_looked_at_at_every_step():
    left = Left(None)
    left.look = lambda: left.said.append("looked")
    watch = InterruptMonitor(requests=left)
    for _ in range(100):
        watch.stop()
    assert left.said == ["looked"]


def test_threads_rest_together_and_the_pause_is_told_once(quick):
    from concurrent.futures import ThreadPoolExecutor

    left = Left(*["pause"] * 20, "resume", None)
    watch = InterruptMonitor(requests=left)
    with ThreadPoolExecutor(4) as pool:
        assert [f.result() for f in [pool.submit(watch.stop) for _ in range(4)]] == [False] * 4
    assert left.said == ["paused", "running"]
