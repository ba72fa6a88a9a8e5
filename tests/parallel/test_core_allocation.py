"""How many processes train the members, and how many move the trajectories."""

from types import SimpleNamespace

import pytest

from aims_pax import fork_server
from aims_pax.parallel.core_allocation import (
    calculator_processes,
    moving_processes,
    prepared_processes,
    processes,
)


def given(
    executor="threads", device="cpu", dynamics=None, profile=True, workers=None, devices=None, kind="mace",
    threads=1, md_threads=None,
):  # fmt: skip
    training = SimpleNamespace(workers=workers, devices=devices, threads=threads) if profile else None
    moving = SimpleNamespace(workers=dynamics, threads=md_threads or 1) if dynamics or md_threads else None
    return SimpleNamespace(
        cluster=SimpleNamespace(executor=executor, training=training, dynamics=moving),
        model=SimpleNamespace(device=device, kind=kind),
        reference=SimpleNamespace(baseline=None),
        folder=None,
    )


@pytest.fixture
def machine(monkeypatch):
    """Call it with the number of cores."""
    return lambda cores: monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))


@pytest.mark.parametrize(
    ("settings", "cores", "expected"),
    [
        (given(profile=False), 4, 3),
        (given(profile=False), 2, 2),
        (given(profile=False), 1, 0),
        (given(), 16, 3),
        (given(workers=1), 16, 1),
        (given(threads=8), 16, 2),
        (given(threads=32), 16, 1),
        (given(workers=8), 16, 3),
        (given(workers=0), 16, 0),
        (given(executor="inline", workers=2), 16, 0),
        (given(device="cuda"), 16, 0),
        (given(device="cuda", devices=("cuda:1", "cuda:2")), 16, 2),
        (given(device="cuda", devices=("cuda:1", "cuda:2"), workers=1), 16, 1),
    ],
)
def test_how_many_processes_train_three_members(machine, settings, cores, expected):
    machine(cores)
    assert processes(settings, 3) == expected


@pytest.mark.parametrize(
    ("settings", "cores", "expected"),
    [
        (given(workers=0), 16, 8),
        (given(workers=0), 4, 4),
        (given(workers=3), 4, 4),
        (given(workers=4), 2, 2),
        (given(), 1, 1),
        (given(), 8, 8),
        (given(threads=4, workers=2), 16, 8),
        (given(workers=0, md_threads=4), 16, 4),
        (given(workers=0, md_threads=32), 16, 1),
        (given(workers=0, dynamics=2), 16, 2),
        (given(workers=0, dynamics=20), 16, 8),
        (given(workers=0, dynamics=1), 16, 1),
        (given(executor="inline", dynamics=4), 16, 1),
        (given(device="cuda"), 16, 1),
    ],
)
def test_how_many_processes_move_eight_trajectories(machine, settings, cores, expected):
    machine(cores)
    assert moving_processes(settings, 8) == expected


def test_a_system_that_does_not_tell_affinities_has_all_its_cores(monkeypatch):
    """macOS."""
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    assert (processes(given(), 4), moving_processes(given(), 8)) == (4, 6)


def test_a_kind_of_model_that_cannot_leave_the_driver_takes_turns_in_it(machine):
    machine(16)
    own = given(workers=4, dynamics=4, kind="tests.models.linear_model:KIND")
    assert (processes(own, 4), moving_processes(own, 8)) == (0, 1)


@pytest.mark.parametrize(
    ("cores", "how", "members", "expected"),
    [(4, {}, 2, True), (2, {}, 1, True), (1, {}, 4, False), (4, {"executor": "inline"}, 4, False),
     (4, {"kind": "tests.models.linear_model:KIND"}, 4, False),
     (4, {"device": "cuda", "devices": ("cuda:1", "cuda:2")}, 4, False)],
)  # fmt: skip
def test_the_slow_imports_are_made_once_where_a_run_has_several_processes(
    machine, monkeypatch, cores, how, members, expected
):
    machine(cores)
    monkeypatch.setattr("aims_pax.fork_server.ForkServer", _Server)
    settings = given(**how)
    settings.active_learning, settings.ensemble_size = SimpleNamespace(num_trajectories=8), members
    with prepared_processes(settings):
        server = fork_server.current()
        assert (server is not None) == expected
        if server is not None:
            assert "aims_pax.models.mace.training_workers" in server.modules
    assert fork_server.current() is None


class _Server:
    """Notes what it would import."""

    def __init__(self, modules):
        self.modules, self.process = modules, SimpleNamespace(poll=lambda: None)

    def close(self):
        self.process = None


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (given(), 16),
        (given(device="cuda"), 16),  # cheap calculators compute on the CPU
        (given(dynamics=3), 3),
        (given(md_threads=4), 4),
        (given(md_threads=32), 1),
        (given(executor="inline", dynamics=3), 1),
    ],
)
def test_how_many_processes_move_trajectories_with_cheap_calculators(machine, settings, expected):
    machine(16)
    assert calculator_processes(settings) == expected
