"""What happens to drivers and blocks on Grid Engine: the run ends well, no label is lost, nothing stays.

All drivers start together and suffer side by side; each test then looks at its own.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from tests.batch import stories
from tests.batch.driver import Driver
from tests.batch.sites import GRID_ENGINE
from tests.batch.stories import PATIENCE, begun, tidy, whole
from tests.gridengine.cluster import Cluster

HEADER = GRID_ENGINE.header + "#$ -q all.q\n"
PORTS = [53400, 53440]  # two for each driver: those that start at the same moment must not want the same one
COMMON = {"scheduler": "sge", "launch": GRID_ENGINE.launch, "header": HEADER, "ports": PORTS}
BOTH = {"frames": 4, "most": 2, "seconds": 20.0, "patience": 60.0}
PLANS: dict[str, dict[str, Any]] = {
    "plain": {"frames": 6, "seconds": 4.0},
    "walltime": {"header": HEADER.replace("0:10:0", "0:2:0"), "seconds": 4.0, "frames": 24},
    "cancelled": {"seconds": 10.0},
    "worker": {"seconds": 10.0},
    "preparation": {"worker": "echo 'module: no such thing' >&2\nexit 7"},
    "queue": {"header": HEADER + "#$ -l nosuch=1\n"},
    "killed": {"seconds": 20.0, "frames": 4},
    "abandoned": {"seconds": 15.0, "frames": 4},
    "term": {**BOTH, "header": GRID_ENGINE.header + "#$ -q a.q\n"},
    "limit": {
        **BOTH,
        "header": GRID_ENGINE.header + "#$ -q b.q\n",
        "walltime": 30.0,
        "walltime_from": 2,
        "seconds": 90.0,
        "limit": 400.0,
    },
    "stopped": {"seconds": 300.0, "limit": 400.0, "frames": 2, "cancel": True},
    "interrupted": {"seconds": 300.0, "limit": 400.0, "frames": 3},
}


def count_at_once(driver: Driver) -> None:
    driver.steps = 0
    while driver.process.poll() is None:
        driver.steps = max(driver.steps, len(driver.working()))
        time.sleep(0.2)


STORIES: dict[str, Callable[[Driver], Any]] = {
    "plain": count_at_once,
    "cancelled": stories.cancel_the_block,
    "worker": stories.kill_a_worker,
    "killed": stories.kill_the_driver_and_start_it_again,
    "abandoned": stories.kill_the_driver,
    "term": stories.stopped_and_started(signal.SIGTERM),
    "limit": stories.stopped_and_started(None),
    "stopped": stories.cancelled,
    "interrupted": stories.interrupted_then_cancelled,
}
Seen = dict[str, "Future[Any]"]


@pytest.fixture(scope="module")
def drivers(gridengine: Cluster, tmp_path_factory) -> Iterator[tuple[dict[str, Driver], Seen]]:
    folder = tmp_path_factory.mktemp("drivers")
    started = {name: Driver(folder / name, **{**COMMON, **plan}) for name, plan in PLANS.items()}
    with ThreadPoolExecutor(len(STORIES)) as threads:
        seen = {name: threads.submit(story, started[name]) for name, story in STORIES.items()}
        yield started, seen
    for driver in started.values():
        end(driver)


def end(driver: Driver) -> None:
    if driver.process.poll() is None:
        with suppress(ProcessLookupError):
            driver.process.terminate()
        driver.process.wait(30)


def story(drivers: tuple[dict[str, Driver], Seen], name: str) -> tuple[Driver, Any]:
    """A driver and what its story has seen."""
    return drivers[0][name], drivers[1][name].result(PATIENCE)


def test_two_jobs_run_at_once_inside_one_block(drivers):
    driver, _ = story(drivers, "plain")
    result = whole(driver)
    assert result["calls"]["begun"] == 6
    assert driver.log().count("submitted (block") == 1  # one block
    assert driver.steps == 2
    tidy(driver)


def test_a_block_takes_no_work_it_cannot_finish_before_h_rt(drivers):
    stories.check_no_work_cut_off(drivers[0]["walltime"])


def test_a_deleted_block_is_replaced(drivers):
    driver, _ = story(drivers, "cancelled")
    stories.check_replaced(driver, ("exit status 137",))


def test_a_worker_killed_costs_its_calculation_and_no_more(drivers):
    driver, _ = story(drivers, "worker")
    stories.check_worker_killed(driver)


def test_a_broken_preparation_ends_the_run_with_what_the_block_said(drivers):
    driver = drivers[0]["preparation"]
    result = driver.result(PATIENCE)
    for words in ("3 Grid Engine blocks in a row", "exit status 7", "module: no such thing", "worker_str"):
        assert words in result["error"]
    tidy(driver)


def test_a_wrong_resource_ends_the_run_with_what_grid_engine_said(drivers):
    driver = drivers[0]["queue"]
    result = driver.result(PATIENCE)
    for words in ("Grid Engine refused 3 blocks", 'unknown resource "nosuch"', "sge_str"):
        assert words in result["error"]
    assert "\n" not in result["error"]
    tidy(driver)


def test_workers_whose_driver_is_killed_finish_store_and_leave(drivers):
    driver, _ = story(drivers, "abandoned")
    stories.check_stored_and_left(driver)


def test_a_restarted_driver_harvests_what_the_old_workers_finish(drivers):
    driver, _ = story(drivers, "killed")
    stories.check_harvested(driver)


@pytest.mark.parametrize("name", ["term", "limit"])
def test_the_next_driver_takes_over_two_running_calculations_and_a_queued_block(drivers, name):
    driver, seen = story(drivers, name)
    stories.check_taken_over(driver, seen, soon=name == "term")


def test_stop_cancel_ends_what_runs_and_what_waits(drivers):
    driver, seen = story(drivers, "stopped")
    assert seen["code"] == 3
    tidy(driver)


def test_what_a_stopped_run_has_left_can_be_cancelled_afterwards(drivers):
    driver, seen = story(drivers, "interrupted")
    stories.check_cancelled_afterwards(driver, seen)


def test_the_master_may_be_away_for_a_while(gridengine, drivers, tmp_path):
    for name in drivers[0]:  # they want a master: their stories end before it goes away
        drivers[0][name].process.wait(PATIENCE)
    driver = Driver(tmp_path / "master", **COMMON, seconds=5.0, jobs=1, most=2, frames=12)
    try:
        begun(driver, 2)
        gridengine.stop_master()
        time.sleep(12)
        seen = len(driver.begun())
        gridengine.start_master()
        result = whole(driver)
    finally:
        end(driver)
    assert 2 < seen < 12, "calculations go on without a master, and some wait for it"
    assert result["calls"]["begun"] == 12
    tidy(driver)
