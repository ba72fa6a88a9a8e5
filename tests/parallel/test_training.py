"""Training in processes of its own: who gets one, what happens when they die, and that the result is the same."""

from concurrent.futures import Future

import numpy as np
import pytest

from aims_pax.core.work import RunTraining
from aims_pax.errors import SetupError
from aims_pax.models.base import TrainingProcessLost
from aims_pax.models.mace import Ensemble, MemberData
from aims_pax.models.mace.training_workers import Place, TrainingPool
from aims_pax.parallel.training import BackgroundTraining
from aims_pax.worker_process import LOST_IN_A_ROW
from tests.models.mace.tiny import ethanol, settings, water


def lost():
    future = Future()
    future.set_exception(
        TrainingProcessLost("the process that trained tiny_1 has ended (killed by signal 9, SIGKILL)")
    )
    return future


def answered():
    future = Future()
    future.set_result({})
    return future


class Taking:
    """An ensemble that takes any result."""

    def take(self, visited):
        return ["taken"]


def test_a_lost_process_is_tolerated_a_few_times_in_a_row_and_then_explained():
    beside, work = BackgroundTraining(Taking(), TrainingPool(1)), RunTraining(0, 1)

    def end(future):
        beside._stops[work], beside._begun[work] = None, 0.0
        return beside.finish(work, future)

    for _ in range(3):  # an answer between them begins the count anew
        for _ in range(LOST_IN_A_ROW - 1):
            assert end(lost()) is None
        assert end(answered()) == ["taken"]
    for _ in range(LOST_IN_A_ROW - 1):
        end(lost())
    with pytest.raises(SetupError, match=r"SIGKILL.*3 times in a row.*CLUSTER\.training\.workers"):
        end(lost())


def test_a_worker_sees_its_own_device_and_no_other(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,7")
    assert Place(2, "cuda:3").environment() == {"CUDA_VISIBLE_DEVICES": "7"}
    assert Place(1, "cpu").environment() == {}
    assert Place(1, "cuda:3").settled(settings()).misc.device == "cuda"
    assert Place().settled(settings()).misc.device == "cpu"


def test_a_process_that_replaces_a_dead_one_takes_its_place():
    with TrainingPool(2, 1, ["cpu", "cuda:1"]) as pool:
        pool.warm()
        assert [w.place.device for w in pool._idle] == ["cpu", "cuda:1"]
        dead = pool._idle.pop()
        pool._all.discard(dead)
        dead.companion.close()
        pool.warm()
        assert [w.place.device for w in pool._idle] == ["cpu", "cuda:1"]


def different(one, other):
    assert one.keys() == other.keys()
    return [k for k, v in one.items() if not np.array_equal(v, other[k], equal_nan=v.dtype.kind == "f")]


class Idle:
    """A pool that never answers."""

    def train(self, sets, plan, stop):
        return [Future() for _ in sets]


def test_what_new_compositions_tell_before_a_visit_elsewhere_is_a_new_version():
    ensemble = Ensemble.build(settings(), [1], (1, 6, 8))
    versions = [ensemble.version]
    for train in (water(3), water(4), [*water(3), *ethanol(2)]):
        ensemble.train_elsewhere(Idle(), {0: MemberData(train)}, 1, words=("visit",))
        versions.append(ensemble.version)
    assert versions == [0, 1, 1, 2]


def test_elsewhere_and_here_give_the_same_weights_to_the_last_bit_and_nothing_changes_before():
    data = {m: MemberData(water(6, seed=m), water(2, seed=9)) for m in (0, 1)}
    here, there = (Ensemble.build(settings(), [1, 2], (1, 8)) for _ in range(2))
    for ensemble in (here, there):
        ensemble.train(data, 1, words=("first",))
    beside = BackgroundTraining(there, TrainingPool(2))
    work = RunTraining(1, 2)
    with beside.pool:
        before = there.arrays()
        future = beside.begin(work, data, words=("second",))
        future.result(120)
        assert different(before, there.arrays()) == []
        results = beside.finish(work, future)
    assert [r.epochs for r in results] == [2, 2]
    here.train(data, 2, words=("second",))
    assert different(here.arrays(), there.arrays()) == []
    assert different(before, there.arrays()) != []
