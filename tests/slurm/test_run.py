"""Complete runs: `aims-PAX` with the stand-in aims.x under srun, from the settings to the results."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.batch.machine import processes
from tests.batch.runs import (
    check_failing,
    check_healthy,
    check_killed,
    check_quarantine,
    failing,
    healthy,
    killed,
)
from tests.batch.sites import SLURM
from tests.batch.stories import PATIENCE


@pytest.fixture(scope="module", autouse=True)
def runs(slurm, tmp_path_factory):
    """Three runs side by side on one cluster; each gives its folder and how its command ended."""
    with ThreadPoolExecutor(3) as threads:
        yield {
            run.__name__: threads.submit(run, tmp_path_factory.mktemp(run.__name__) / "run", SLURM)
            for run in (healthy, failing, killed)
        }


def test_a_molecule_and_a_crystal_with_stress_from_settings_to_results(runs):
    folder, told = runs["healthy"].result(PATIENCE)
    check_healthy(folder, told)
    assert "Slurm job" in told.stdout


def test_a_reference_that_fails_in_all_ways_does_not_stop_the_run(runs):
    check_failing(*runs["failing"].result(PATIENCE))


def test_the_quarantine_lists_every_failure_with_its_class_and_its_files(runs):
    check_quarantine(*runs["failing"].result(PATIENCE))


def test_a_driver_killed_within_a_run_goes_on_and_pays_nothing_twice(runs):
    check_killed(*runs["killed"].result(PATIENCE))


def test_nothing_stays_running_when_all_runs_have_ended(slurm, runs):
    folders = [str(run.result(PATIENCE)[0]) for run in runs.values()]
    assert [line for line in processes().values() if any(f in line for f in folders)] == []
    assert slurm.jobs() == {}
