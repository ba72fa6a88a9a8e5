"""Complete runs on Grid Engine: from the settings to the results, also when the driver is killed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.batch.machine import processes
from tests.batch.runs import check_healthy, check_killed, healthy, killed
from tests.batch.sites import GRID_ENGINE
from tests.batch.stories import PATIENCE


@pytest.fixture(scope="module", autouse=True)
def runs(gridengine, tmp_path_factory):
    """Two runs side by side on one cluster; each gives its folder and how its command ended."""
    with ThreadPoolExecutor(2) as threads:
        yield {
            run.__name__: threads.submit(run, tmp_path_factory.mktemp(run.__name__) / "run", GRID_ENGINE)
            for run in (healthy, killed)
        }


def test_a_molecule_and_a_crystal_with_stress_from_settings_to_results(runs):
    folder, done = runs["healthy"].result(PATIENCE)
    check_healthy(folder, done)
    assert "Grid Engine job" in done.stdout


def test_a_driver_killed_within_a_run_continues_and_pays_nothing_twice(runs):
    check_killed(*runs["killed"].result(PATIENCE))


def test_nothing_stays_running_when_all_runs_have_ended(gridengine, runs):
    folders = [str(run.result(PATIENCE)[0]) for run in runs.values()]
    assert [line for line in processes().values() if any(f in line for f in folders)] == []
    assert gridengine.jobs() == {}
