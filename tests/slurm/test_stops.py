"""A driver that is stopped leaves running calculations and queued blocks to the next one, which takes them over.

Each driver has a node to itself, on which one block runs with two calculations and another one waits in the queue.
All start together; each test then looks at its own.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from tests.batch import stories
from tests.batch.driver import Driver
from tests.batch.sites import SLURM
from tests.batch.stories import PATIENCE, running, tidy, until, whole
from tests.slurm.cluster import Cluster
from tests.slurm.test_faults import HEADER


def on(node: str) -> str:
    """So much memory that a node holds one block."""
    return f"#SBATCH --time=10 --ntasks=2 --mem=2500\n#SBATCH --nodelist={node}\n"


PORTS = [53200, 53215]  # two for each driver: those that start at the same moment must not want the same one
COMMON = {"scheduler": "slurm", "launch": SLURM.launch, "header": HEADER, "ports": PORTS}
BOTH = {"frames": 4, "most": 2, "seconds": 20.0, "patience": 60.0}
PLANS = {
    "term": {**BOTH, "header": on("dev1")},
    "hup": {**BOTH, "header": on("dev2")},
    "walltime": {
        **BOTH,
        "header": on("dev3"),
        "walltime": 30.0,
        "walltime_from": 2,
        "seconds": 90.0,
        "limit": 400.0,
    },
    "queue": {
        "header": on("dev4"),
        "frames": 5,
        "seconds": 2.0,
        "walltime": 15.0,
        "walltime_from": "submitted",
        "patience": 15.0,
    },
    "cancelled": {"seconds": 300.0, "limit": 400.0, "frames": 2, "cancel": True},
    "interrupted": {"seconds": 300.0, "limit": 400.0, "frames": 3},
    "machine": {"seconds": 80.0, "limit": 300.0, "frames": 2},
}


@pytest.fixture(scope="module")
def ends(slurm, tmp_path_factory):
    """Name → (driver, what was seen)."""
    folder = tmp_path_factory.mktemp("stops")
    words = ("--nodelist=dev4", "--mem=3000", "--output=/dev/null", "--wrap", "sleep 900")
    blocker = slurm.run("sbatch", "--parsable", *words).strip()
    drivers = {name: Driver(folder / name, **{**COMMON, **plan}) for name, plan in PLANS.items()}
    with ThreadPoolExecutor(len(PLANS)) as threads:
        seen = {
            name: threads.submit(STORIES[name], slurm, driver, blocker) for name, driver in drivers.items()
        }
        yield {name: (drivers[name], seen[name]) for name in PLANS}
    slurm.run("scancel", blocker)
    for driver in drivers.values():
        if driver.process.poll() is None:
            driver.process.kill()
            driver.process.wait(30)


# the stories, each in a thread of its own -------------------------------------------------------------------


def in_the_queue_for_longer_than_drivers_live(slurm: Cluster, driver: Driver, blocker: str) -> dict:
    codes = [driver.process.wait(PATIENCE)]
    queued = set(stories.jobs(driver))
    driver.start()
    codes.append(driver.process.wait(PATIENCE))
    still = set(stories.jobs(driver))
    slurm.run("scancel", blocker)
    until(lambda: not driver.jobs(), PATIENCE)  # it has met no driver
    labels = driver.labels()
    driver.start()
    return {"codes": codes, "queued": queued, "still": still, "labels": labels}


def killed_with_its_interchange(slurm: Cluster, driver: Driver, _: str) -> dict:
    """As when the machine of the driver, or its own job, has ended."""
    running(driver, 2)
    (run,) = json.loads((driver.folder / "restart" / "runs.json").read_text())
    driver.kill()
    with suppress(ProcessLookupError):
        os.kill(run["interchange"], signal.SIGKILL)
    at_work = set(driver.working())
    time.sleep(70)  # Parsl's pools kill their workers when they have not heard of it for 60 s
    driver.start()
    return {"at work": at_work}


def alone(story: stories.Story) -> Callable[[Cluster, Driver, str], dict]:
    return lambda slurm, driver, blocker: story(driver)


STORIES = {
    "term": alone(stories.stopped_and_started(signal.SIGTERM)),
    "hup": alone(stories.stopped_and_started(signal.SIGHUP)),
    "walltime": alone(stories.stopped_and_started(None)),
    "queue": in_the_queue_for_longer_than_drivers_live,
    "cancelled": alone(stories.cancelled),
    "interrupted": alone(stories.interrupted_then_cancelled),
    "machine": killed_with_its_interchange,
}


# what must hold -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["term", "hup", "walltime"])
def test_the_next_driver_takes_over_two_running_calculations_and_a_queued_block(slurm, ends, name):
    driver, seen = ends[name]
    stories.check_taken_over(driver, seen.result(PATIENCE), soon=name != "walltime")


def test_a_wait_in_the_queue_longer_than_the_walltime_of_drivers_ends_in_labels(slurm, ends):
    driver, seen = ends["queue"]
    seen = seen.result(PATIENCE)
    assert seen["codes"] == [75, 75]
    assert len(seen["queued"]) == 1
    assert seen["still"] == seen["queued"], "the place in the queue is kept"
    assert seen["labels"] == set(driver.ids.values()), "the block computed them although no driver lived"
    result = whole(driver)
    assert (result["calls"]["begun"], result["calls"]["reused"]) == (0, 5)
    assert set(Counter(driver.begun()).values()) == {1}
    tidy(driver)


def test_stop_cancel_ends_what_runs_and_what_waits(slurm, ends):
    driver, seen = ends["cancelled"]
    assert seen.result(PATIENCE)["code"] == 3
    tidy(driver)


def test_what_a_stopped_run_has_left_can_be_cancelled_afterwards(slurm, ends):
    driver, seen = ends["interrupted"]
    stories.check_cancelled_afterwards(driver, seen.result(PATIENCE))


def test_calculations_outlive_the_machine_of_the_driver(slurm, ends):
    driver, seen = ends["machine"]
    seen = seen.result(PATIENCE)
    result = whole(driver)
    assert result["calls"]["harvested"] + result["calls"]["reused"] == len(seen["at work"]) == 2
    assert set(Counter(driver.begun()).values()) == {1}
    tidy(driver)
