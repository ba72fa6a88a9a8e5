"""Signals and the end of the walltime."""

import os
import signal
import time

import pytest

from aims_pax.procedures.watch import Stopped, Watch, walltime


def test_signals_only_set_a_flag_and_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM)
    watch = Watch()
    with watch.listening():
        assert not watch.stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert watch.stop()
    assert signal.getsignal(signal.SIGTERM) == before
    with pytest.raises(Stopped) as stopped:
        watch.raise_if_stopped()
    assert stopped.value.code == 75


def test_the_second_ctrl_c_does_not_wait():
    watch = Watch()
    with watch.listening():
        os.kill(os.getpid(), signal.SIGINT)
        assert watch.stop()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_the_run_stops_before_the_end_of_its_walltime():
    watch = Watch(seconds=0.05)
    time.sleep(0.06)
    assert watch.stop()
    with pytest.raises(Stopped, match="walltime") as stopped:
        watch.raise_if_stopped()
    assert stopped.value.code == 75
    assert not Watch(seconds=1e6).stop()


def test_the_smaller_of_settings_and_slurm_counts():
    end = {"SLURM_JOB_ID": "1", "SLURM_JOB_END_TIME": str(int(time.time()) + 1000)}
    assert walltime(None, {}) is None
    assert walltime(float("inf"), {}) is None
    assert walltime(50.0, end) == 50.0
    assert walltime(float("inf"), end) == pytest.approx(1000, abs=2)


def test_a_slurm_that_does_not_answer_is_no_reason_to_stop(caplog, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert walltime(None, {"SLURM_JOB_ID": "1"}) is None
    assert "max_walltime" in caplog.text


def test_whoever_looks_gives_a_sign_of_life():
    beats = []
    Watch(beat=lambda: beats.append(1)).stop()
    assert beats == [1]
