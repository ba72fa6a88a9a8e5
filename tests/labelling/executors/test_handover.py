"""What drivers and blocks leave each other, and what a block does with it."""

import json
import math
import os
import pickle
import time

import pytest

from aims_pax.labelling.claims import Claim, Claims
from aims_pax.labelling.executors import block_program, handover
from aims_pax.labelling.executors.block_program import UNREACHABLE, Block
from aims_pax.labelling.executors.handover import KEY, Driver, Handover
from aims_pax.labelling.references.ase_calculator import CalculatorReference
from aims_pax.labelling.store import LabelStore
from aims_pax.labelling.worker import Task
from tests import worlds

FRAMES = worlds.rattled(worlds.dimer("Cu", 2.5), 4, seed=3)
REFERENCE = CalculatorReference(worlds.EMT["factory"])
DRIVER = Driver("one", {"b.one.1": ["-a", "x"]}, 30.0)


@pytest.fixture
def files(tmp_path):
    (tmp_path / "restart").mkdir()
    return Handover(tmp_path / "restart")


def tasks_of(folder):
    store = LabelStore(folder / "data", "method")
    return [Task(f, REFERENCE, store, store.folder / f".{f.id}.unwanted", "run") for f in FRAMES]


def test_a_driver_is_found_as_long_as_it_gives_signs_of_life(files):
    probe = files.probe("b")
    assert files.driver(probe) is None
    files.write_driver(DRIVER)
    assert files.driver(probe) == DRIVER
    os.utime(files.driver_path, (time.time() - 2 * handover.STALE_AFTER,) * 2)
    assert files.driver(probe) is None
    files.renew()
    assert files.driver(probe) == DRIVER
    files.driver_path.write_text('{"token": 1}')
    assert files.driver(probe) is None


def test_runs_are_read_back_and_are_nobody_elses_business(files):
    assert files.runs() == []
    files.write_runs([{"token": "one", "key": "k"}])
    assert files.runs() == [{"token": "one", "key": "k"}]
    assert files.runs_path.stat().st_mode & 0o077 == 0
    files.runs_path.write_text("[1, {}, {")
    assert files.runs() == []
    files.write_runs([])
    assert not files.runs_path.exists()


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_what_was_not_written_by_a_run_that_knows_the_key_is_not_unpickled(files, tmp_path):
    files.leave_tasks([1, 2], ["other", "mine"])
    assert files.tasks("mine") == [1, 2]
    assert files.tasks("nobody's") == files.tasks("") == []
    signatures = files.tasks_path.read_bytes().partition(b"\n")[0]
    bomb = pickle.dumps([Bomb(str(tmp_path / "exploded"))])
    for content in (signatures + b"\n" + bomb, bomb, b"[]\n" + bomb, b'[""]\n' + bomb, b"7\n" + bomb, b""):
        files.tasks_path.write_bytes(content)
        assert files.tasks("mine") == files.tasks("") == []
    assert not (tmp_path / "exploded").exists()


# blocks ----------------------------------------------------------------------------------------------------


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


def test_a_pool_waits_for_its_workers_when_its_driver_is_gone():
    from aims_pax.labelling.executors.parsl_pool import FOR_EVER, OrphanProofPool

    class Queue:
        n = 0

        def qsize(self):
            return self.n

    pool = OrphanProofPool.__new__(OrphanProofPool)
    pool.pending_task_queue, pool._tasks_in_progress = Queue(), {}
    pool.heartbeat_threshold = 60
    assert pool.heartbeat_threshold == 60
    pool._tasks_in_progress[0] = "a calculation"
    assert pool.heartbeat_threshold == FOR_EVER
    pool._tasks_in_progress.clear()
    pool.pending_task_queue.n = 1
    assert pool.heartbeat_threshold == FOR_EVER


def test_the_record_of_a_driver_holds_no_shell(files):
    files.write_driver(Driver("one", {"b": ["--logdir=/a b; rm -rf x"]}, 1.0))
    assert json.loads(files.driver_path.read_text())["pools"]["b"] == ["--logdir=/a b; rm -rf x"]
