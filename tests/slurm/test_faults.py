"""What a cluster does to jobs: the run goes on or ends with one message, no label is lost, nothing stays.

All drivers start together and suffer side by side; each test then looks at its own.
"""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from aims_pax.labelling.references.aims_input import geometry_text
from aims_pax.schedulers.base import Refused
from tests import stand_in_aims
from tests.batch import stories
from tests.batch.driver import Driver, frames
from tests.batch.machine import processes
from tests.batch.sites import SLURM
from tests.batch.stories import PATIENCE, begun, running, tidy, until, whole
from tests.slurm.cluster import Cluster

HEADER = SLURM.header + "#SBATCH --exclude=dev4\n"
COMMON = {"scheduler": "slurm", "launch": SLURM.launch, "header": HEADER}

PLANS = {
    "plain": {"frames": 6, "seconds": 4.0},
    "scaling": {"frames": 4, "jobs": 1, "most": 2, "idle": 6.0, "seconds": 6.0, "stay": 2},
    "mpi": {
        "mpi": True,
        "nodes": 2,
        "header": "#SBATCH --time=10 --ntasks-per-node=1 --mem=200\n#SBATCH --exclude=dev4\n",
        "launch": "$PARSL_MPI_PREFIX --overlap",
    },
    "walltime": {"header": HEADER.replace("--time=10", "-t 2"), "seconds": 4.0, "frames": 24},
    "cancelled": {"seconds": 10.0},
    "node": {"header": HEADER.replace("--exclude", "--nodelist"), "seconds": 15.0},
    "worker": {"seconds": 10.0},
    "controller": {"seconds": 5.0, "jobs": 1, "most": 2, "frames": 12},
    "preparation": {"worker": "echo 'module: no such thing' >&2\nexit 7"},
    "missing": {"launch": "srun --ntasks=1 /no/such/aims.x"},
    "partition": {"header": HEADER + "#SBATCH --partition=nowhere\n"},
    "limit": {"fault": "hang:0.4", "limit": 15.0, "frames": 6, "jobs": 3},
    "killed": {"seconds": 20.0, "frames": 4},
    "abandoned": {"seconds": 15.0, "frames": 4},
}


@pytest.fixture(scope="module")
def drivers(slurm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    started = {name: Driver(folder / name, **{**COMMON, **plan}) for name, plan in PLANS.items()}
    with ThreadPoolExecutor(len(FAULTS)) as threads:
        faults = [threads.submit(fault, slurm, started) for fault in FAULTS]
        yield started
        for fault in faults:
            fault.result()
    for driver in started.values():
        if driver.process.poll() is None:
            driver.process.terminate()
            driver.process.wait(30)


# the faults, each in a thread of its own ------------------------------------------------------------------


def kill_the_node(slurm: Cluster, drivers: dict[str, Driver]) -> None:
    running(drivers["node"])
    drivers["node"].hit = drivers["node"].working().keys() & set(drivers["node"].begun())
    slurm.kill_node("dev4")
    until(lambda: slurm.states()["dev4"].startswith("down"), PATIENCE)
    slurm.start_node("dev4")


def restart_the_controller(slurm: Cluster, drivers: dict[str, Driver]) -> None:
    for driver in drivers.values():  # after a restart Slurm starts no steps for a minute or so
        if driver.folder.name not in ("preparation", "missing", "partition"):
            begun(driver, 1)
    slurm.stop_controller()
    time.sleep(12)
    slurm.start_controller()


def count_the_steps(slurm: Cluster, drivers: dict[str, Driver]) -> None:
    driver = drivers["plain"]
    driver.steps = 0
    while driver.process.poll() is None:
        with suppress(Refused, subprocess.SubprocessError):
            for job in driver.jobs():
                listed = slurm.run("squeue", "--steps", "--noheader", "--format=%i", f"--jobs={job}").split()
                driver.steps = max(driver.steps, sum(step.rpartition(".")[2].isdigit() for step in listed))
        time.sleep(0.3)


def of(name: str, story: Callable[[Driver], None]) -> Callable[[Cluster, dict[str, Driver]], None]:
    return lambda _, drivers: story(drivers[name])


FAULTS = [
    count_the_steps,
    kill_the_node,
    restart_the_controller,
    of("cancelled", stories.cancel_the_block),
    of("worker", stories.kill_a_worker),
    of("killed", stories.kill_the_driver_and_start_it_again),
    of("abandoned", stories.kill_the_driver),
]


# what must hold -------------------------------------------------------------------------------------------


def test_two_jobs_run_at_once_inside_one_block(slurm, drivers):
    result = whole(drivers["plain"])
    assert result["calls"]["begun"] == 6
    assert drivers["plain"].log().count("submitted (block") == 1  # one block
    assert drivers["plain"].steps == 2
    tidy(drivers["plain"])


def test_blocks_are_asked_for_with_the_work_and_given_back_without_it(slurm, drivers):
    driver = drivers["scaling"]
    whole(driver)  # it does not leave before both are given back
    log = driver.log()
    assert (log.count("submitted (block"), log.count("cancelled by aims-PAX")) == (2, 2)
    tidy(driver)


def test_the_mpi_executor_gives_each_calculation_its_nodes(slurm, drivers):
    whole(drivers["mpi"])
    tidy(drivers["mpi"])


def test_a_broken_preparation_ends_the_run_with_what_the_block_said(slurm, drivers):
    result = drivers["preparation"].result(PATIENCE)
    for words in ("3 Slurm blocks in a row", "module: no such thing", "worker_str"):
        assert words in result["error"]
    tidy(drivers["preparation"])


def test_a_wrong_partition_ends_the_run_with_what_slurm_said(slurm, drivers):
    result = drivers["partition"].result(PATIENCE)
    for words in ("refused 3 blocks", "invalid partition", "slurm_str"):
        assert words in result["error"]
    assert "\n" not in result["error"]
    tidy(drivers["partition"])


def test_a_missing_program_ends_the_run_at_once(slurm, drivers):
    result = drivers["missing"].result(PATIENCE)
    for words in ("launch_str", "/no/such/aims.x", "No such file"):
        assert words in result["error"]
    tidy(drivers["missing"])


def test_a_calculation_over_its_limit_is_killed_with_its_children(slurm, drivers):
    driver = drivers["limit"]
    result = driver.result(PATIENCE)
    assert result["error"] is None
    hanging = {f.id for f in frames(6) if stand_in_aims._chosen("hang:0.4", geometry_text(f)) == "hang"}
    assert 0 < len(hanging) < 6
    assert {f: kind for f, (kind, _) in result["failures"].items()} == dict.fromkeys(hanging, "TimedOut")
    assert len(result["labels"]) == 6 - len(hanging)
    until(lambda: not [line for line in processes().values() if "time.sleep(600)" in line], PATIENCE)
    tidy(driver)


def test_a_worker_killed_costs_its_calculation_and_no_more(slurm, drivers):
    stories.check_worker_killed(drivers["worker"])


def test_workers_whose_driver_is_killed_finish_store_and_leave(slurm, drivers):
    stories.check_stored_and_left(drivers["abandoned"])


def test_a_restarted_driver_harvests_what_the_old_workers_finish(slurm, drivers):
    stories.check_harvested(drivers["killed"])


def test_the_controller_may_be_away_for_a_while(slurm, drivers):
    driver = drivers["controller"]
    whole(driver)
    assert set(Counter(driver.begun()).values()) == {1}
    tidy(driver)


def test_a_block_takes_no_work_it_cannot_finish(slurm, drivers):
    stories.check_no_work_cut_off(drivers["walltime"])


def test_a_cancelled_block_is_replaced(slurm, drivers):
    stories.check_replaced(drivers["cancelled"], ("CANCELLED",))


def test_a_killed_node_loses_no_label(slurm, drivers):
    driver = drivers["node"]
    whole(driver)
    assert driver.hit
    assert {f for f, n in Counter(driver.begun()).items() if n > 1} == driver.hit
    tidy(driver)
