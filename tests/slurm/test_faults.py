"""What a cluster does to jobs: the run goes on or ends with one message, no label is lost, nothing stays.

All drivers start together and suffer side by side; each test then looks at its own.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from aims_pax.labelling.calculator import CalculatorReference
from tests import worlds
from tests.slurm.cluster import Cluster, processes
from tests.slurm.driver import HEADER, Driver, frames

PATIENCE = 300

PLANS = {
    "plain": {"frames": 6},
    "scaling": {"frames": 4, "jobs": 1, "most": 2, "idle": 6.0, "seconds": 6.0, "stay": 30.0},
    "mpi": {
        "mpi": True,
        "nodes": 2,
        "header": "#SBATCH --time=10 --ntasks-per-node=1 --mem=200\n#SBATCH --exclude=dev4\n",
        "launch": "$PARSL_MPI_PREFIX --overlap",
    },
    "walltime": {"header": HEADER.replace("--time=10", "-t 1"), "seconds": 4.0, "limit": 20.0, "frames": 16},
    "cancelled": {"seconds": 10.0},
    "node": {"header": HEADER.replace("--exclude", "--nodelist"), "seconds": 15.0},
    "worker": {"seconds": 10.0},
    "controller": {"seconds": 5.0, "jobs": 1, "most": 2, "frames": 12},
    "preparation": {"worker": "echo 'module: no such thing' >&2\nexit 7"},
    "missing": {"launch": "srun --ntasks=1 /no/such/aims.x"},
    "partition": {"header": HEADER + "#SBATCH --partition=nowhere\n"},
    "limit": {"fault": "hang:0.4", "limit": 5.0, "frames": 6, "jobs": 3},
    "killed": {"seconds": 20.0, "frames": 4},
    "abandoned": {"seconds": 15.0, "frames": 4},
    "stopped": {"seconds": 300.0, "limit": 400.0, "frames": 3},
}


@pytest.fixture(scope="module")
def drivers(slurm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    started = {name: Driver(folder / name, **plan) for name, plan in PLANS.items()}
    faults = [threading.Thread(target=fault, args=(slurm, started)) for fault in FAULTS]
    for fault in faults:
        fault.start()
    yield started
    for fault in faults:
        fault.join()
    for driver in started.values():
        if driver.process.poll() is None:
            driver.process.terminate()
            driver.process.wait(30)


# the faults, each in a thread of its own ------------------------------------------------------------------


def running(driver: Driver, n: int = 2) -> None:
    """Until so many calculations have begun."""
    deadline = time.monotonic() + 240
    while len(driver.begun()) < n:
        assert time.monotonic() < deadline, driver.log()
        time.sleep(0.2)


def cancel_the_block(slurm: Cluster, drivers: dict[str, Driver]) -> None:
    running(drivers["cancelled"])
    slurm.run("scancel", *drivers["cancelled"].jobs(slurm))


def kill_the_node(slurm: Cluster, drivers: dict[str, Driver]) -> None:
    running(drivers["node"])
    slurm.kill_node("dev4")
    time.sleep(20)
    slurm.start_node("dev4")


def kill_a_worker(slurm: Cluster, drivers: dict[str, Driver]) -> None:
    running(drivers["worker"])
    claims = list((drivers["worker"].folder / "data").rglob("*.claim"))
    os.kill(json.loads(claims[0].read_text())["pid"], signal.SIGKILL)


def restart_the_controller(slurm: Cluster, drivers: dict[str, Driver]) -> None:
    running(drivers["controller"], 1)
    time.sleep(15)  # the others have begun: after a restart Slurm starts no steps for a minute or so
    slurm.stop_controller()
    time.sleep(12)
    slurm.start_controller()


def kill_the_driver_and_start_it_again(slurm: Cluster, drivers: dict[str, Driver]) -> None:
    running(drivers["killed"])
    time.sleep(3)
    drivers["killed"].kill()
    time.sleep(2)
    drivers["killed"].start()


def kill_the_driver(slurm: Cluster, drivers: dict[str, Driver]) -> None:
    running(drivers["abandoned"])
    drivers["abandoned"].kill()


def stop_the_driver(slurm: Cluster, drivers: dict[str, Driver]) -> None:
    running(drivers["stopped"])
    drivers["stopped"].process.terminate()


FAULTS = [cancel_the_block, kill_the_node, kill_a_worker, restart_the_controller,
          kill_the_driver_and_start_it_again, kill_the_driver, stop_the_driver]  # fmt: skip


# what must hold -------------------------------------------------------------------------------------------


def whole(driver: Driver) -> dict:
    """The result of a run that must have labelled everything, each label equal to a recomputation."""
    result = driver.result(PATIENCE)
    assert result["error"] is None, driver.log()
    assert result["failures"] == {}
    truth = CalculatorReference(worlds.EMT["factory"])
    expected = frames(driver.plan["frames"])
    assert set(result["labels"]) == {f.id for f in expected}
    for frame in expected:
        exact = truth.label(frame)
        energy, forces = result["labels"][frame.id]
        assert abs(energy - exact.energy) < 1e-6
        np.testing.assert_allclose(forces, exact.forces, atol=1e-6)
    return result


def left(folder: Path) -> list[str]:
    """Processes that know this folder, a few seconds after the driver's end."""
    for _ in range(100):
        found = [line for line in processes().values() if f"{folder}/" in line and "pytest" not in line]
        if not found:
            return []
        time.sleep(0.2)
    return found


def tidy(slurm: Cluster, driver: Driver) -> None:
    slurm.until(lambda: driver.jobs(slurm) == {}, 90)  # a cancelled job shows as COMPLETING for a while
    assert left(driver.folder) == []
    assert list((driver.folder / "data").rglob("*.claim")) == []
    assert not (driver.folder / "parsl" / "runs.json").exists()


def test_two_jobs_run_at_once_inside_one_block(slurm, drivers):
    result = whole(drivers["plain"])
    assert result["calls"]["begun"] == 6
    assert len(drivers["plain"].log().split("asked for")) == 2  # one block
    tidy(slurm, drivers["plain"])


def test_blocks_are_asked_for_with_the_work_and_given_back_without_it(slurm, drivers):
    driver = drivers["scaling"]
    result = whole(driver)
    log = driver.log()
    assert (log.count("asked for"), log.count("given back")) == (2, 2)
    last = [line for line in log.splitlines() if "given back" in line][-1]
    asked = next(line for line in log.splitlines() if "asked for" in line)
    assert seconds(last) - seconds(asked) < result["seconds"] - 5  # not only at the end
    tidy(slurm, driver)


def seconds(line: str) -> float:
    hours, minutes, rest = line.split()[1].replace(",", ".").split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(rest)


def test_the_mpi_executor_gives_each_calculation_its_nodes(slurm, drivers):
    whole(drivers["mpi"])
    tidy(slurm, drivers["mpi"])


def test_a_broken_preparation_ends_the_run_with_what_the_block_said(slurm, drivers):
    result = drivers["preparation"].result(PATIENCE)
    for words in ("3 Slurm blocks in a row", "module: no such thing", "worker_str"):
        assert words in result["error"]
    tidy(slurm, drivers["preparation"])


def test_a_wrong_partition_ends_the_run_with_what_slurm_said(slurm, drivers):
    result = drivers["partition"].result(PATIENCE)
    for words in ("refused 3 blocks", "invalid partition", "slurm_str"):
        assert words in result["error"]
    assert "\n" not in result["error"]
    tidy(slurm, drivers["partition"])


def test_a_missing_program_ends_the_run_at_once(slurm, drivers):
    result = drivers["missing"].result(PATIENCE)
    for words in ("launch_str", "/no/such/aims.x", "No such file"):
        assert words in result["error"]
    tidy(slurm, drivers["missing"])


def test_a_calculation_over_its_limit_is_killed_with_its_children(slurm, drivers):
    driver = drivers["limit"]
    result = driver.result(PATIENCE)
    assert result["error"] is None
    assert {kind for kind, _ in result["failures"].values()} == {"TimedOut"}
    assert len(result["failures"]) + len(result["labels"]) == 6
    assert not [line for line in processes().values() if "time.sleep(600)" in line]
    tidy(slurm, driver)


def test_a_worker_killed_costs_its_calculation_and_no_more(slurm, drivers):
    driver = drivers["worker"]
    whole(driver)
    assert sorted(Counter(driver.begun()).values()) == [1, 1, 1, 2]
    assert "computed again" in driver.log()
    tidy(slurm, driver)


def test_stopped_by_sigterm_nothing_stays_running(slurm, drivers):
    driver = drivers["stopped"]
    assert driver.process.wait(PATIENCE) == 128 + signal.SIGTERM
    tidy(slurm, driver)


def test_workers_whose_driver_is_killed_finish_store_and_leave(slurm, drivers):
    driver = drivers["abandoned"]
    slurm.until(lambda: len(driver.begun()) >= 2 and not driver.jobs(slurm), 120)
    assert len(list((driver.folder / "data").rglob("*.json"))) == 3  # two labels and method.json
    assert left(driver.folder) == []
    driver.start()
    whole(driver)
    assert set(Counter(driver.begun()).values()) == {1}
    tidy(slurm, driver)


def test_a_restarted_driver_harvests_what_the_old_workers_finish(slurm, drivers):
    driver = drivers["killed"]
    slurm.until(lambda: (driver.folder / "result.json").exists(), PATIENCE)
    result = whole(driver)
    # what the old workers finished before the new driver looked is found in the store instead
    assert result["calls"]["harvested"] + result["calls"]["reused"] == 2
    assert set(Counter(driver.begun()).values()) == {1}  # nothing was begun twice
    tidy(slurm, driver)


def test_the_controller_may_be_away_for_a_while(slurm, drivers):
    driver = drivers["controller"]
    whole(driver)
    assert set(Counter(driver.begun()).values()) == {1}
    tidy(slurm, driver)


def test_a_block_takes_no_work_it_cannot_finish(slurm, drivers):
    driver = drivers["walltime"]
    whole(driver)
    assert set(Counter(driver.begun()).values()) == {1}
    assert len(driver.log().split("asked for")) > 2  # more than one block
    tidy(slurm, driver)


def test_a_cancelled_block_is_replaced(slurm, drivers):
    driver = drivers["cancelled"]
    whole(driver)
    assert len(driver.log().split("asked for")) > 2
    tidy(slurm, driver)


def test_a_killed_node_loses_no_label(slurm, drivers):
    driver = drivers["node"]
    whole(driver)
    assert sorted(Counter(driver.begun()).values()) == [1, 1, 2, 2]
    tidy(slurm, driver)
