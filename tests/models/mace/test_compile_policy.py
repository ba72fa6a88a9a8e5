"""When a run compiles its training: what is asked for, what is reproducible, what pays."""

import logging
import math
from types import SimpleNamespace

import pytest

from aims_pax.engine.interrupts import InterruptMonitor
from aims_pax.models.mace import MemberData
from aims_pax.models.mace import compile_cache as backend
from aims_pax.models.mace.compile_policy import (
    BEGINS,
    COMPILING_PAYS,
    PAYS,
    compile_mode,
    compiling,
    samples_ahead,
)
from aims_pax.settings.active_learning import ActiveLearningSettings
from aims_pax.settings.initial_dataset import InitialDatasetSettings
from tests.models.mace.tiny import ensemble, ethanol


def given(compile_="auto", executor="threads", device="cpu", initial=None, active=None):
    """What `how` reads of the settings; the sections are real ones."""
    first = None
    if initial is not None:
        first = InitialDatasetSettings(desired_acc=0.1, n_points_per_sampling_step_idg=5, **initial)
    second = (
        ActiveLearningSettings(desired_acc=0.1, num_trajectories=2, **(active or {}))
        if active is not None
        else None
    )
    return SimpleNamespace(
        mace=SimpleNamespace(training=SimpleNamespace(compile=compile_), misc=SimpleNamespace(device=device)),
        cluster=SimpleNamespace(executor=executor),
        initial_dataset=first,
        active_learning=second,
        ensemble_size=4,
    )


LONG = {"max_train_set_size": 1000}
SHORT = {"max_train_set_size": 20, "converge_al": False}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (given(active=LONG), "ready"),
        (given(active=SHORT), "never"),
        (given(active=LONG, executor="inline"), "never"),  # a switch by the clock is not reproducible
        (given(active=LONG, device="cuda"), "never"),
        (given("never", active=LONG), "never"),
        (given("always", active=SHORT), "wait"),
        (given("always", active=SHORT, executor="inline"), "wait"),
    ],
)
def test_how_a_run_trains(settings, expected):
    assert compile_mode(settings, 9.0) == expected


def test_large_structures_pay_sooner():
    settings = given(active={"max_train_set_size": 60, "converge_al": False})
    n = samples_ahead(settings)
    assert compile_mode(settings, 0.9 * PAYS / n) == "never"
    assert compile_mode(settings, 1.1 * PAYS / n) == "ready"


def test_samples_grow_with_epochs_members_and_structures():
    n = samples_ahead(given(active=SHORT))
    assert n == 20 * 2 * 10 * 4  # new structures × epochs_per_worker × mean set × members
    assert samples_ahead(given(active=SHORT | {"epochs_per_worker": 4})) == 2 * n
    assert samples_ahead(given(active=SHORT | {"max_train_set_size": 40})) == 4 * n
    assert samples_ahead(given(active=SHORT | {"max_labels": 10})) == n / 4
    converged = {"convergence_patience": 50, "max_convergence_epochs": 80}
    one = samples_ahead(given(active=SHORT | converged | {"converge_al": True}))
    assert one == n + 80 * 20
    every = samples_ahead(given(active=SHORT | converged | {"converge_al": True, "converge_best": False}))
    assert every == n + 80 * 20 * 4
    subset = {"replay_strategy": "random_subset", "train_subset_size": 25, "max_train_set_size": 1000}
    assert samples_ahead(given(active=SHORT | subset)) == 1000 * 2 * 25 * 4
    assert math.isfinite(samples_ahead(given(active={}, initial={})))
    assert samples_ahead(given(active=SHORT, initial={"max_initial_set_size": 100})) > n


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("AIMS_PAX_CACHE", str(tmp_path))
    return backend.cache_folder()


class Watched:
    def __init__(self, model):
        self.closed, self.rests = False, []
        Watched.last = self

    def rest(self, resting):
        self.rests.append(resting)

    def close(self):
        self.closed = True


def test_a_long_run_compiles_aside_until_it_ends_or_not_at_all(cache, monkeypatch):
    monkeypatch.setattr(backend, "BackgroundCompile", Watched)
    Watched.last, team = None, ensemble((1,))
    with compiling(given(active=SHORT), team, 9.0):
        assert (team.compiled, Watched.last) == ("never", None)
    atoms = 0.9 * COMPILING_PAYS / samples_ahead(given(active=LONG))
    with compiling(given(active=LONG), team, atoms):  # long enough to load it, would it be there
        assert (team.compiled, Watched.last) == ("ready", None)
    with compiling(given(active=LONG), team, 9.0):
        assert (team.compiled, Watched.last) == ("ready", None)
        team.counted(int(BEGINS / 9.0) + 1)
        assert not Watched.last.closed
    assert Watched.last.closed


def test_nothing_is_compiled_aside_before_training_has_cost_as_much(cache, monkeypatch):
    """A run that ends after ten epochs has not paid for minutes of compiling."""
    monkeypatch.setattr(backend, "BackgroundCompile", Watched)
    Watched.last, team = None, ensemble((1,))
    data = [MemberData(ethanol(5), ethanol(2, 1))]
    with compiling(given(active=LONG), team, 9.0):
        team.train(data, 10)
        assert Watched.last is None
        assert team.samples == 50
    with compiling(given(active=LONG), team, BEGINS / 60):
        team.train(data, 1)
        assert Watched.last is None
        team.train(data, 1)  # 60 structures by now
        assert Watched.last is not None


def test_a_run_of_few_steps_or_little_walltime_does_not_begin_to_compile(cache, monkeypatch):
    monkeypatch.setattr(backend, "BackgroundCompile", Watched)
    Watched.last, team = None, ensemble((1,))
    few = LONG | {"max_MD_steps": 100, "skip_step_mlff": 25, "converge_al": False}
    short = given(active=few, initial={"max_initial_set_size": 10})
    assert (
        samples_ahead(short) < samples_ahead(given(active=LONG, initial={"max_initial_set_size": 10})) / 100
    )
    with compiling(given(active=LONG), team, 9.0, InterruptMonitor(seconds=1800.0)):
        team.counted(10**9)
    assert Watched.last is None
    with compiling(given(active=LONG), team, 9.0, InterruptMonitor(seconds=36_000.0)):
        team.counted(10**9)
    assert Watched.last is not None


def test_what_is_compiled_aside_rests_while_the_run_is_paused(cache, monkeypatch):
    monkeypatch.setattr(backend, "BackgroundCompile", Watched)
    watch, shown = InterruptMonitor(), []
    watch.on_pause = before = shown.append
    with compiling(given(active=LONG), team := ensemble((1,)), 9.0, watch):
        watch.on_pause(True)
        watch.on_pause(False)
        team.counted(10**9)
        watch.on_pause(True)
        watch.on_pause(False)
    assert Watched.last.rests == [True, False]
    assert shown == [True, False, True, False]
    assert watch.on_pause is before


def test_what_lies_in_the_cache_is_not_compiled_again(cache, monkeypatch):
    monkeypatch.setattr(backend, "BackgroundCompile", Watched)
    Watched.last, team = None, ensemble((1,))
    (cache / backend.signature(backend.fast_mace(team.members[0].model))).touch()
    with compiling(given(active=LONG), team, 9.0):
        assert (team.compiled, Watched.last) == ("ready", None)


def test_a_machine_without_a_compiler_says_so_once(cache, monkeypatch, caplog):
    monkeypatch.setattr(backend, "BackgroundCompile", Watched)
    monkeypatch.setenv("CXX", "no-such-compiler")
    Watched.last = None
    with (
        caplog.at_level(logging.INFO, logger="aims_pax"),
        compiling(given(active=LONG), ensemble((1,)), 9.0),
    ):
        pass
    assert Watched.last is None
    assert [r.message for r in caplog.records] == ["training is not compiled: there is no C++ compiler (g++)"]
