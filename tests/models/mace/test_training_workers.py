import os
import signal
import time

import numpy as np
import pytest
import torch

from aims_pax.errors import Abandoned
from aims_pax.models.base import MemberData, TrainingProcessLost
from aims_pax.models.mace.build import build_model
from aims_pax.models.mace.graphs import GraphCache
from aims_pax.models.mace.losses import Loss
from aims_pax.models.mace.member import Member
from aims_pax.models.mace.statistics import measure
from aims_pax.models.mace.training import TrainingPlan, copy_graphs, training_round
from aims_pax.models.mace.training_workers import TrainingPool
from tests.models.mace.tiny import ethanol, settings, water

HCO = (1, 6, 8)
TRAIN, VALID = ethanol(6, 0), ethanol(3, 1)
STORE = GraphCache(HCO, 3.5, torch.float32)


@pytest.fixture(scope="module")
def pool():
    with TrainingPool(1) as made:
        yield made


def member(seed=3, **changes):
    chosen = settings(**changes)
    made = Member(f"m_{seed}", seed, build_model(chosen, HCO, seed), chosen)
    made.freeze(measure(STORE.of(TRAIN), HCO, scaling="rms_forces_scaling", dtype=torch.float32))
    return made


def same(a, b):
    return a.keys() == b.keys() and all(
        np.array_equal(a[k], b[k], equal_nan=a[k].dtype.kind == "f") for k in a
    )


def here(made, plan, train=TRAIN):
    return training_round(made, STORE.of(train), STORE.of(VALID), plan, Loss(made.settings))


def test_two_visits_in_another_process_have_the_bits_of_two_visits_here(pool):
    far, near = member(swa=True), member(swa=True)
    for n, train in enumerate([TRAIN, [*TRAIN, *water(2)]]):
        plan = TrainingPlan(2, ("train", n))
        before = far.arrays()
        (future,) = pool.train({far: MemberData(train, VALID)}, plan)
        visited = future.result(120)
        assert same(before, far.arrays())  # nothing changes until the answer is loaded
        far.load(visited.state)
        assert visited.result == here(near, plan, train)
        assert same(far.arrays(), near.arrays())


def test_copies_train_in_another_process_as_they_do_here(pool):
    far, near, alone = member(), member(), member()
    plan, copies = TrainingPlan(2, ("train", 0)), water(3, seed=8)
    (future,) = pool.train({far: MemberData(TRAIN, VALID, copies, 0.4)}, plan)
    far.load(future.result(120).state)
    args = STORE.of(TRAIN), STORE.of(VALID), plan, Loss(near.settings)
    training_round(near, *args, copies=copy_graphs(STORE.of(copies), 0.4))
    training_round(alone, *args)
    assert same(far.arrays(), near.arrays())
    assert not same(far.arrays(), alone.arrays())


def test_only_what_is_new_travels(pool):
    made = member()
    pool.train({made: MemberData(TRAIN, VALID)}, TrainingPlan(1, ("a",)))[0].result(120)
    (worker,) = pool._idle
    sizes = []
    true = worker.companion.connection.send

    class Watched:
        def send(self, message):
            sizes.append((len(message.frames), message.model))
            true(message)

        def __getattr__(self, name):
            return getattr(inner, name)

    companion = worker.companion
    inner, companion.connection = companion.connection, Watched()
    try:
        pool.train({made: MemberData([*TRAIN, *water(1, 7)], VALID)}, TrainingPlan(1, ("b",)))[0].result(120)
    finally:
        companion.connection = inner
    assert sizes == [(1, None)]


def test_a_killed_process_is_told_and_the_visit_can_be_repeated(pool):
    made = member()
    (future,) = pool.train({made: MemberData(TRAIN, VALID)}, TrainingPlan(10_000, ("long",)))
    time.sleep(0.5)
    (worker,) = pool._all
    os.kill(worker.companion.process.pid, signal.SIGKILL)
    with pytest.raises(TrainingProcessLost, match=r"m_3 has ended \(killed by signal 9"):
        future.result(60)
    again = pool.train({made: MemberData(TRAIN, VALID)}, TrainingPlan(1, ("again",)))[0].result(120)
    assert again.result.epochs == 1


def test_stop_is_obeyed_within_a_batch_and_the_process_goes_on(pool):
    made = member()
    told = []
    (future,) = pool.train(
        {made: MemberData(TRAIN, VALID)}, TrainingPlan(10_000, ("long",)), stop=lambda: bool(told)
    )
    time.sleep(0.5)
    told.append(1)
    began = time.perf_counter()
    with pytest.raises(Abandoned):
        future.result(60)
    assert time.perf_counter() - began < 20  # of hours, also on a crowded machine
    (worker,) = pool._all
    pid = worker.companion.process.pid
    assert (
        pool.train({made: MemberData(TRAIN, VALID)}, TrainingPlan(1, ("next",)))[0].result(120).result.epochs
        == 1
    )
    assert worker.companion.process.pid == pid


def test_what_a_visit_raises_arrives_here(pool):
    made = member()
    state = made.arrays
    made.arrays = lambda: state() | {"schedule": np.array(["no number"] * 3)}
    with pytest.raises(ValueError, match="no number"):
        pool.train({made: MemberData(TRAIN, VALID)}, TrainingPlan(1, ("bad",)))[0].result(120)


def test_closing_ends_the_processes_though_they_work():
    pool = TrainingPool(1)
    (future,) = pool.train({member(): MemberData(TRAIN, VALID)}, TrainingPlan(10_000, ("long",)))
    time.sleep(1.0)
    (worker,) = pool._all
    pool.close()
    assert worker.companion.process.poll() is not None
    assert isinstance(future.exception(10), TrainingProcessLost)
