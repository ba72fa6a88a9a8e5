"""Whoever waits for labels hears signals, walltime and wishes meanwhile."""

import os
import signal
import threading
import time
from concurrent.futures import Future

import pytest

from aims_pax.engine.interrupts import InterruptMonitor
from aims_pax.errors import NotConverged, RunInterrupted
from aims_pax.labelling import Labeller
from aims_pax.labelling.factory import make_executor
from aims_pax.labelling.foreign_results import wait_for_results
from aims_pax.labelling.reference_potential import ReferencePotential
from aims_pax.labelling.references.ase_calculator import CalculatorReference
from tests import worlds

FRAME = worlds.dimer("Cu", 2.6)


def never():
    return Future()


def done(value):
    future = Future()
    future.set_result(value)
    return future


def test_results_come_in_order_and_the_first_error_is_raised():
    assert wait_for_results([done(1), done(2)], lambda: None) == [1, 2]
    failed = Future()
    failed.set_exception(NotConverged("no"))
    with pytest.raises(NotConverged):
        wait_for_results([done(1), failed], lambda: None)


def later(call):
    timer = threading.Timer(0.3, call)
    timer.start()
    return timer


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_ends_the_waiting_within_a_second(number):
    watch, began = InterruptMonitor(), time.monotonic()
    with watch.listening():
        later(lambda: os.kill(os.getpid(), number))
        with pytest.raises(RunInterrupted) as stopped:
            wait_for_results([never()], watch.raise_if_stopped)
    assert time.monotonic() - began < 1.5
    assert stopped.value.code == (3 if number == signal.SIGINT else 75)


def test_walltime_and_wishes_end_it_too_and_the_lock_is_renewed():
    beats = []
    with pytest.raises(RunInterrupted, match="walltime"):
        wait_for_results([never()], InterruptMonitor(0.5, lambda: beats.append(1)).raise_if_stopped)
    assert len(beats) > 1
    watch = InterruptMonitor()
    later(watch.request_stop)
    with pytest.raises(RunInterrupted, match="aims-PAX stop"):
        wait_for_results([never()], watch.raise_if_stopped)


class Slow(CalculatorReference):
    """EMT that takes its time."""

    def label(self, frame):
        time.sleep(30)
        return super().label(frame)


def test_a_sampler_on_the_reference_hears_a_signal(tmp_path):
    """Every force of ab initio MD comes through `potential`."""
    watch = InterruptMonitor()
    executor = make_executor("htex", 1, tmp_path / "parsl")
    with (
        watch.listening(),
        Labeller(
            Slow(worlds.EMT["factory"]), tmp_path / "data", executor, watch.raise_if_stopped
        ) as labeller,
    ):
        timer, began = later(lambda: os.kill(os.getpid(), signal.SIGTERM)), time.monotonic()
        with pytest.raises(RunInterrupted) as stopped:
            ReferencePotential(labeller).labels([FRAME])
        assert time.monotonic() - began < 1.5
    timer.join()
    assert stopped.value.code == 75
