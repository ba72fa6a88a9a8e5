"""What a block does with a driver, with what one has left, and without one."""

import math
import os
import time

import pytest

from aims_pax.labelling.claims import Claim, Claims
from aims_pax.labelling.executors import block_program
from aims_pax.labelling.executors.block_program import UNREACHABLE, Block, _rotated, run_block
from aims_pax.labelling.executors.handover import KEY, Driver
from aims_pax.labelling.references.ase_calculator import CalculatorReference
from aims_pax.labelling.store import LabelStore
from aims_pax.labelling.worker import Task
from tests import worlds

FRAMES = worlds.rattled(worlds.dimer("Cu", 2.5), 4, seed=3)

REFERENCE = CalculatorReference(worlds.EMT["factory"])

DRIVER = Driver("one", {"b.one.1": ["-a", "x"]}, 30.0)


def tasks_of(folder):
    store = LabelStore(folder / "data", "method")
    return [Task(f, REFERENCE, store, store.folder / f".{f.id}.unwanted", "run") for f in FRAMES]


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(block_program, "LOOK_EVERY", 0.02)
    monkeypatch.setattr(block_program, "UNWANTED_AFTER", 0.2)


def a_block(files, jobs=2, patience=0.3, free=10.0, end=math.inf):
    return Block(files.folder, "b.one.1", jobs, patience, free, end)


def served(monkeypatch, it, *codes):
    """The arguments of the pools that it starts; they end with these codes."""
    given, left = [], list(codes)

    def call(words):
        given.append(words[3:])
        return left.pop(0)

    monkeypatch.setattr(block_program.subprocess, "call", call)
    return given


def test_without_a_driver_a_block_computes_what_was_left_and_ends(files, tmp_path, monkeypatch):
    """One is known already, one has failed, one is computed elsewhere, one is not wanted any more."""
    monkeypatch.setenv(KEY, "mine")
    tasks = tasks_of(tmp_path)
    store, claims = tasks[0].store, Claims(tasks[0].store.folder)
    wanted = worlds.rattled(worlds.dimer("Cu", 2.6), 5, seed=4)
    more = [Task(f, REFERENCE, store, store.folder / f".{f.id}.unwanted", "run") for f in wanted]
    known = REFERENCE.label(FRAMES[0])
    store.put(FRAMES[0].id, known)
    (store.folder / f"{FRAMES[1].id}.failure").write_text("{}")
    claims.take(FRAMES[2].id, Claim.mine("another", None))
    tasks[3].unwanted.touch()
    files.leave_tasks([*tasks, *more], ["mine"])
    assert a_block(files, patience=0.1).run() == 0
    ids = {p.stem for p in store.folder.glob("*.json")} - {"method"}
    assert ids == {FRAMES[0].id, *(f.id for f in wanted)}
    for frame in wanted:
        assert store.get(frame.id).energy == pytest.approx(REFERENCE.label(frame).energy, abs=1e-9)
    assert claims.ids() == [FRAMES[2].id]
    assert list(files.folder.glob(".block.*")) == []


def test_a_block_serves_one_driver_after_the_other_and_each_once(files, quick, monkeypatch):
    it = a_block(files)
    given = served(monkeypatch, it, 0, UNREACHABLE)
    files.write_driver(DRIVER)
    turn = it._turn
    assert turn() is None  # its pool was told to leave: the driver has gone
    assert turn() is None  # and is not served again
    files.write_driver(Driver("two", {"b.one.1": ["-a", "y", "--drain_period=99"]}, 5.0))
    os.utime(files.driver_path, (1e9, 1e9))
    assert turn() is None
    assert given == [["-a", "x"]]  # it does not live
    files.write_driver(Driver("two", {"b.one.1": ["-a", "y", "--drain_period=99"]}, 5.0))
    it.end = time.time() + 60
    assert turn() == 1, "it lives, and cannot be reached: somebody has to hear it"
    assert given[1][:2] == ["-a", "y"]
    assert 50 <= int(given[1][2].removeprefix("--drain_period=")) <= 55  # of what is left now, less 5 s


def test_a_pool_that_fails_ends_its_block(files, quick, monkeypatch):
    it = a_block(files)
    served(monkeypatch, it, 137)
    files.write_driver(DRIVER)
    assert it.run() == 137


def test_a_block_that_a_new_driver_does_not_name_ends(files, quick):
    files.write_driver(Driver("two", {"another": []}, 5.0))
    began = time.monotonic()
    assert a_block(files, patience=60).run() == 0
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("end", "patience", "said"), [(8.0, 60.0, "too short"), (1e5, 0.1, "no driver for 0 s")]
)
def test_a_block_without_time_or_driver_ends(files, quick, capsys, end, patience, said):
    assert a_block(files, patience=patience, end=time.time() + end).run() == 0
    assert said in capsys.readouterr().err


def test_a_block_whose_run_was_removed_ends(files, quick, capsys):
    it = a_block(files, patience=60)
    for path in files.folder.iterdir():
        path.unlink()
    files.folder.rmdir()
    assert it.run() == 1
    assert "is gone" in capsys.readouterr().err


def test_workers_begin_at_different_tasks_and_each_sees_all():
    tasks = list("abc")
    orders = [_rotated(tasks, k) for k in range(4)]
    assert [order[0] for order in orders] == ["a", "b", "c", "a"]
    assert all(sorted(order) == tasks for order in orders)
    assert _rotated([], 2) == []


def test_no_calculation_begins_in_the_time_that_is_kept_free(files):
    assert a_block(files).seconds == math.inf
    assert a_block(files, free=100.0, end=time.time() + 150).seconds == pytest.approx(50, abs=1)


def test_the_end_of_a_block_comes_from_its_job_script(files, monkeypatch, capsys):
    monkeypatch.setenv("AIMS_PAX_BLOCK_END", str(int(time.time()) + 30))
    assert run_block([str(files.folder), "b.one.1", "2", "300", "60"]) == 0
    assert "the rest of the walltime is too short" in capsys.readouterr().err
