"""Which process works in a folder, and whether it has left anything yet."""

import json
import math
import os
import socket
import time

import psutil
import pytest

from aims_pax.record.lock import STALE_AFTER, STARTING
from aims_pax.report.process_of_run import running_process

HERE = {"pid": os.getpid(), "host": socket.gethostname(), "started": round(psutil.Process().create_time(), 1)}
ELSEWHERE = {"pid": 1, "host": "elsewhere", "started": 2000.0}


def write(path, content, age=0.0):
    path.write_text(json.dumps(content))
    os.utime(path, (time.time() - age,) * 2)


def test_a_folder_without_a_lock_has_no_process(tmp_path):
    process = running_process(tmp_path)
    assert (process.lock, process.holder, process.locked) == ({}, {}, False)
    assert math.isnan(process.began)
    assert not process.has_written(1e9)
    assert not process.ended_early(1e9)


def test_the_holder_of_the_lock_has_written_once_there_is_a_sign_since_it_began(tmp_path):
    write(tmp_path / "lock", HERE)
    process = running_process(tmp_path)
    assert (process.holder, process.locked) == (HERE, True)
    assert process.has_written(process.began + 1)
    assert not process.has_written(process.began - 1)
    assert not process.ended_early(process.began - 1), "it still runs"


def test_a_process_about_to_take_the_lock_has_written_nothing(tmp_path):
    write(tmp_path / STARTING, HERE)
    process = running_process(tmp_path)
    assert (process.holder, process.locked, process.lock) == (HERE, False, {})
    assert not process.has_written(process.began + 1)


def test_a_process_that_is_gone_ended_early_if_it_left_nothing(tmp_path):
    # this pid belongs to another process now
    write(tmp_path / "lock", {**HERE, "started": HERE["started"] + 1e6})
    process = running_process(tmp_path)
    assert (process.holder, process.lock["pid"]) == ({}, HERE["pid"])
    assert process.ended_early(process.began - 1)
    assert not process.ended_early(process.began + 1)


@pytest.mark.parametrize(("age", "runs"), [(0, True), (STALE_AFTER - 60, True), (STALE_AFTER + 60, False)])
def test_a_lock_of_another_host_counts_as_long_as_it_is_renewed(tmp_path, age, runs):
    write(tmp_path / "lock", ELSEWHERE, age)
    assert bool(running_process(tmp_path).holder) == runs
