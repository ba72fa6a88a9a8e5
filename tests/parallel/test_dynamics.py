"""Trajectories shared out among processes: the same motion, new weights at once, deaths survived."""

import logging
import os
import signal

import numpy as np
import pytest

from aims_pax.errors import Abandoned, SettingsError, SetupError
from aims_pax.md.bias import DEVIATIONS, UncertaintyBias
from aims_pax.md.propagate import advance
from aims_pax.md.state import MDState
from aims_pax.models.mace import MemberData
from aims_pax.parallel.dynamics import EnsembleSource, MDPool, split_trajectories
from aims_pax.settings.md import MDSettings
from aims_pax.worker_process import LOST_IN_A_ROW
from tests.models.mace.tiny import ensemble, ethanol, water

LANGEVIN = MDSettings(
    stat_ensemble="NVT", thermostat="Langevin", temperature=300.0, timestep=0.5, friction=0.01
)


@pytest.fixture(scope="module")
def trained():
    made = ensemble(default_dtype="float64", inference="torch")
    made.train([MemberData([*ethanol(4), *water(2)], ethanol(2, 1))] * len(made), 1)
    return made


@pytest.fixture(scope="module")
def pool(trained):
    with MDPool(EnsembleSource(trained), 2) as made:
        yield made


def states():
    frames = [f.frame for f in (*ethanol(2), *water(2))]
    return [MDState.start(frame, 300.0, stream) for stream, frame in enumerate(frames)]


def close(far, near):
    for a, b in zip(far, near, strict=True):
        assert a.fault == b.fault
        assert a.state.step == b.state.step
        np.testing.assert_allclose(a.state.positions, b.state.positions, rtol=0, atol=1e-9)
        np.testing.assert_allclose(a.evaluation.forces, b.evaluation.forces, rtol=0, atol=1e-8)
        assert a.evaluation.forces.shape == b.evaluation.forces.shape


@pytest.mark.parametrize("driving_members", [None, [0, 1, 0, 1]])
def test_trajectories_move_as_in_one_process(trained, pool, driving_members):
    md = [LANGEVIN] * 4
    far = pool.advance(states(), 5, md, driving_members=driving_members)
    close(far, advance(states(), trained.potential(), 5, md, driving_members=driving_members))


def test_a_bias_travels_with_its_trajectories(trained, pool):
    md, bias = [LANGEVIN] * 4, [UncertaintyBias("hal", 2.0), None, None, UncertaintyBias("udd", 5.0)]
    far = pool.advance(states(), 5, md, bias=bias)
    close(far, advance(states(), trained.potential(), 5, md, bias=bias))
    plain = pool.advance(states(), 5, md)
    moved = [np.abs(a.state.positions - b.state.positions).max() for a, b in zip(far, plain, strict=True)]
    assert [m > 1e-7 for m in moved] == [True, False, False, True]
    assert [DEVIATIONS in a.state.extras for a in far] == [True, False, False, True]


def test_new_weights_move_the_atoms_at_once(trained, pool):
    before = pool.advance(states(), 1, [LANGEVIN] * 4)
    trained.train([MemberData(ethanol(4, 5), ethanol(2, 1))] * len(trained), 2)
    after = pool.advance(states(), 1, [LANGEVIN] * 4)
    close(after, advance(states(), trained.potential(), 1, [LANGEVIN] * 4))
    assert np.abs(after[0].evaluation.forces - before[0].evaluation.forces).max() > 1e-4


def test_a_single_trajectory_leaves_the_other_process_idle(trained, pool):
    close(
        pool.advance(states()[:1], 2, [LANGEVIN]), advance(states()[:1], trained.potential(), 2, [LANGEVIN])
    )


def test_a_killed_process_is_replaced_and_its_steps_are_repeated(trained, pool, caplog):
    pool.advance(states(), 1, [LANGEVIN] * 4)
    os.kill(pool._companions[1].process.pid, signal.SIGKILL)
    far = pool.advance(states(), 3, [LANGEVIN] * 4)
    close(far, advance(states(), trained.potential(), 3, [LANGEVIN] * 4))
    assert "the steps are repeated" in caplog.text


@pytest.mark.slow
def test_after_a_kill_less_is_moved_at_once_and_after_two_in_fewer_processes(trained, monkeypatch, caplog):
    """What the kernel kills for its memory must not be tried again as it was."""
    asked = []

    class Killed(MDPool):
        def _send(self, k, *leg):
            asked.append((k, self.memory / self.n))
            super()._send(k, *leg)
            if sum(1 for i, _ in asked if i == 0) <= 2:  # the first and the second time
                self._companions[0].process.kill()
                self._companions[0].process.wait()

    with Killed(EnsembleSource(trained), 2, memory=8e9, written=True) as pool:
        far = pool.advance(states(), 2, [LANGEVIN] * 4)
    close(far, advance(states(), trained.potential(), 2, [LANGEVIN] * 4))
    assert asked == [(0, 4e9), (1, 4e9), (0, 2e9), (1, 2e9), (0, 2e9)]  # at last half of 4 GB in one process
    assert "in 2 processes with at most 2 GB each" in caplog.text
    assert "in 1 process with at most 2 GB each" in caplog.text


def test_processes_that_keep_dying_end_the_run_with_what_to_change(trained):
    started = []

    class Dying(MDPool):
        def _companion(self, k):
            companion = super()._companion(k)
            companion.process.kill()
            companion.process.wait()
            started.append(companion)
            return companion

    with (
        Dying(EnsembleSource(trained), 1) as pool,
        pytest.raises(SetupError, match=r"CLUSTER\.dynamics\.workers"),
    ):
        pool.advance(states(), 1, [LANGEVIN] * 4)
    assert len(started) == LOST_IN_A_ROW


def test_an_interrupted_leg_is_abandoned_and_the_processes_go_on(trained, pool):
    with pytest.raises(Abandoned):
        pool.advance(states(), 100_000, [LANGEVIN] * 4, stop=lambda: True)
    close(
        pool.advance(states(), 1, [LANGEVIN] * 4), advance(states(), trained.potential(), 1, [LANGEVIN] * 4)
    )


def test_processes_that_die_while_the_run_is_stopped_are_not_replaced(trained, caplog):
    with MDPool(EnsembleSource(trained), 1) as pool:
        pool.warm()
        os.kill(pool._companions[0].process.pid, signal.SIGKILL)
        with pytest.raises(Abandoned):
            pool.advance(states(), 1, [LANGEVIN] * 4, stop=lambda: True)
        assert pool._companions[0].lost
    assert caplog.text == ""


def test_what_all_processes_find_is_told_by_the_first(trained, monkeypatch):
    made = []
    monkeypatch.setattr(
        "aims_pax.parallel.dynamics.WorkerProcess", lambda *_, level, forked: made.append(level)
    )
    MDPool(EnsembleSource(trained), 3).warm()
    assert made == [logging.INFO, logging.WARNING, logging.WARNING]


def test_what_goes_wrong_in_one_share_is_raised_here_and_the_next_leg_runs(trained, pool):
    ramp = LANGEVIN.model_copy(update={"temperature": (300.0, 600.0)})
    with pytest.raises(SettingsError, match="temperature"):  # a ramp over a run without an end
        pool.advance(states(), 1, [LANGEVIN, LANGEVIN, ramp, ramp])
    close(
        pool.advance(states(), 1, [LANGEVIN] * 4), advance(states(), trained.potential(), 1, [LANGEVIN] * 4)
    )


def test_shares_are_even_in_atoms_and_the_same_every_time():
    assert split_trajectories([9] * 5, 2) == [[0, 2, 4], [1, 3]]
    assert split_trajectories([9, 9, 21, 9], 2) == [[2], [0, 1, 3]]
    assert split_trajectories([3], 3) == [[0], [], []]
    parts = split_trajectories(list(range(1, 40)), 4)
    assert sorted(i for part in parts for i in part) == list(range(39))
    loads = [sum(i + 1 for i in part) for part in parts]
    assert max(loads) - min(loads) <= 39
