"""A package outside ours brings a scheduler in one file, `plugin/background_jobs.py`: nothing else is touched."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from aims_pax.schedulers import registry
from tests import worlds
from tests.batch.contract import check_contract
from tests.batch.driver import Driver
from tests.batch.folders import write_aims_project
from tests.batch.sites import Site
from tests.batch.stories import PATIENCE, left
from tests.projects import ROOT

FILE = Path(__file__).parent / "plugin" / "background_jobs.py"
BACKGROUND = Site("background", "Background", "#JOB time=600\n")


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The file as an installed package with an entry point, for this process and those that it starts."""
    place = tmp_path / "site"
    information = place / "background_jobs-1.0.dist-info"
    information.mkdir(parents=True)
    shutil.copy(FILE, place)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: background-jobs\nVersion: 1.0\n")
    entry = "[aims_pax.schedulers]\nbackground = background_jobs:BackgroundJobs\n"
    (information / "entry_points.txt").write_text(entry)
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    monkeypatch.setenv("BACKGROUND_JOBS", str(jobs))
    monkeypatch.setenv("PYTHONPATH", f"{place}:{ROOT}")
    monkeypatch.syspath_prepend(place)
    monkeypatch.delitem(sys.modules, "background_jobs", raising=False)
    registry._loaded.cache_clear()
    yield information
    registry._loaded.cache_clear()


def read_in(folder: Path) -> subprocess.CompletedProcess[str]:
    """The settings of a folder, read by a fresh interpreter: their keys are made when they are imported."""
    code = "from aims_pax.settings import read_settings; c = read_settings('.').cluster; print(c.type, repr(c.header))"
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120
    )


def test_it_keeps_the_contract_of_schedulers(installed, tmp_path):
    found = registry.known_schedulers()["background"]
    check_contract(found, tmp_path, lambda seconds: f"#JOB time={seconds}\n", None)


def test_labels_come_from_its_jobs(installed, tmp_path):
    driver = Driver(
        tmp_path / "run", scheduler="background", header=BACKGROUND.header, frames=3, ports=[53900, 53940]
    )
    try:
        result = driver.result(PATIENCE)
    finally:
        driver.process.kill()
        driver.process.wait()
    assert result["error"] is None, driver.log()
    assert len(result["labels"]) == 3
    assert set(Counter(driver.begun()).values()) == {1}
    assert "Background job" in driver.log()
    assert left(driver.folder) == []


def test_its_type_and_its_header_are_settings(installed, tmp_path):
    folder = write_aims_project(tmp_path / "run", BACKGROUND, worlds.launch("emt"))
    read = read_in(folder)
    assert read.stdout == "background '#!/bin/bash\\n#JOB time=600\\n'\n", read.stderr
    path = folder / "aimsPAX.yaml"
    path.write_text(path.read_text().replace("#JOB time=600", "#JOB time=soon"))
    said = "CLUSTER.background_str: cannot be read: '#JOB time=soon': expected #JOB time=SECONDS"
    assert said in read_in(folder).stderr


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("no_such_module:Thing", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("os.path:join", "expected a subclass of aims_pax.schedulers.base.Scheduler"),
        ("aims_pax.schedulers.slurm:Slurm", "name 'slurm': expected letters, digits and _"),
    ],
)
def test_one_that_cannot_be_used_is_said_to_who_asks_for_it(installed, tmp_path, value, words):
    (installed / "entry_points.txt").write_text(f"[aims_pax.schedulers]\nbackground = {value}\n")
    registry._loaded.cache_clear()
    assert words in registry.failed_schedulers()["background"]
    folder = write_aims_project(tmp_path / "run", BACKGROUND, worlds.launch("emt"))
    said = read_in(folder).stderr
    assert "CLUSTER.type: background is installed but cannot be used" in said
    assert words.split(":")[0] in said
