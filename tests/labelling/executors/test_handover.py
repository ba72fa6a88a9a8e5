"""What drivers and blocks leave each other, and what a block does with it."""

import json
import os
import pickle
import time

from aims_pax.labelling.executors import handover
from aims_pax.labelling.executors.handover import Driver

DRIVER = Driver("one", {"b.one.1": ["-a", "x"]}, 30.0)


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


def test_the_record_of_a_driver_holds_no_shell(files):
    files.write_driver(Driver("one", {"b": ["--logdir=/a b; rm -rf x"]}, 1.0))
    assert json.loads(files.driver_path.read_text())["pools"]["b"] == ["--logdir=/a b; rm -rf x"]
