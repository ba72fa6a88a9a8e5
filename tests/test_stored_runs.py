"""Runs that an older version began are continued to the end, label nothing twice, and get their report."""

import json
import tarfile
from pathlib import Path

import ase.io
import pytest

from tests.projects import command

STORED = Path(__file__).with_name("stored_runs")


def unpacked(name: str, target: Path) -> Path:
    with tarfile.open(STORED / f"{name}.tar.xz") as archive:
        archive.extractall(target, filter="data")
    return target / name


def labels(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.glob("data/labels/*/*.json") if p.name != "method.json"}


@pytest.mark.parametrize("stage", ["initial", "explore", "converge"])
def test_a_run_stopped_by_an_older_version_is_continued_to_its_end(stage, tmp_path):
    folder = unpacked(stage, tmp_path)
    before = labels(folder)
    result = command(folder=folder)
    assert result.returncode == 0, result.stdout + result.stderr
    assert before.items() <= labels(folder).items(), "labels of the old run are kept as they were"
    assert len(ase.io.read(folder / "results" / "training.xyz", ":")) > 0
    assert list((folder / "results").glob("*.model"))
    if stage != "converge":
        return
    report = command("report", folder=folder)
    assert report.returncode == 0, report.stdout + report.stderr
    assert (folder / "report.html").stat().st_size > 10_000


def test_a_run_that_an_older_version_finished_computes_no_label_again_and_is_reported(tmp_path):
    folder = unpacked("finished", tmp_path)
    before = labels(folder)
    result = command(folder=folder)
    assert result.returncode == 0, result.stdout + result.stderr
    assert labels(folder) == before
    assert command("status", folder=folder).returncode == 0
    report = command("report", folder=folder)
    assert report.returncode == 0, report.stdout + report.stderr


def test_a_recalculation_that_an_older_version_began_is_continued(tmp_path):
    folder = unpacked("recalc", tmp_path)
    before = labels(folder)
    assert before
    result = command("old.xyz", "-o", "new.xyz", folder=folder, name="aims-PAX-recalc")
    assert result.returncode == 0, result.stdout + result.stderr
    assert before.items() <= labels(folder).items()
    assert len(ase.io.read(folder / "new.xyz", ":")) == 8


def test_the_stored_journals_are_of_the_first_format(tmp_path):
    folder = unpacked("converge", tmp_path)
    lines = (folder / "restart" / "journal.jsonl").read_text().splitlines()
    assert {"initial", "explore", "converge"} <= {json.loads(line)["stage"] for line in lines}
