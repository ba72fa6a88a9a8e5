"""The cluster of the tests is a real one, and the scheduler keeps its contract on it."""

from __future__ import annotations

import pytest

from aims_pax.schedulers.base import Phase, Refused
from aims_pax.schedulers.registry import known_schedulers
from tests.batch.contract import Jobs, check_contract

SGE = known_schedulers()["sge"]


def header(seconds: int) -> str:
    return f"#$ -l h_rt={seconds} -q all.q\n#$ -pe smp 1\n"


def test_grid_engine_keeps_the_contract_of_schedulers(gridengine, tmp_path):
    folder = tmp_path / "runs: a, $b and 'c'"
    folder.mkdir()
    check_contract(SGE, folder, header, header(300) + "#$ -P nobodys_project\n")


def test_a_job_without_a_place_waits_and_is_gone_when_it_is_deleted(gridengine, tmp_path):
    jobs = Jobs(SGE, tmp_path, "#$ -pe smp 3 -q a.q -l h_rt=60")
    job, _ = jobs.submit("true")
    assert jobs.state(job).phase == Phase.WAITING
    SGE.cancel([job])
    assert jobs.state(job).phase == Phase.ENDING  # accounting follows some seconds later, if at all
    assert jobs.end(job).phase == Phase.CANCELLED
    SGE.cancel([job])


def test_a_master_that_is_away_is_no_mistake_of_the_user(gridengine):
    gridengine.stop_master()
    with pytest.raises(Refused) as error:
        SGE.jobs_named(".x.")
    assert error.value.passing
    assert SGE.alive(["1"]) == {"1"}
    gridengine.start_master()
    gridengine.until(lambda: set(gridengine.states().values()) == {""}, 120)
