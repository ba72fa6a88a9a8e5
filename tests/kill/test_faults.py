"""The disk is full, read-only or gone, the clock jumps, files are damaged: one clear error, nothing damaged."""

import errno
import os

import pytest

from tests.kill.harness import Ledger, attempt, outcome, project
from tests.projects import command, write_project
from tests.worlds import CONTROL, launch, write_species

pytestmark = pytest.mark.kill


@pytest.mark.parametrize("at", [3, 130, 351])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS], ids=["full", "read-only"])
def test_a_disk_that_refuses_ends_the_run_with_one_line_and_nothing_is_damaged(
    tmp_path, undisturbed, at, error
):
    folder, ledger = project(tmp_path, "inline"), Ledger()
    code = attempt(folder, ledger, at_write=at, error=error)
    output = (folder / "output.txt").read_text()
    assert code == 1, output
    assert os.strerror(error) in output
    assert "Traceback" not in output
    assert attempt(folder, ledger) == 0, (folder / "output.txt").read_text()
    assert ledger.repeated == ledger.lost == []
    sets, weights = outcome(folder)
    assert sets == undisturbed[0][0]


def test_a_clock_that_jumps_backwards_changes_nothing(tmp_path, undisturbed):
    folder, ledger = project(tmp_path, "inline"), Ledger()
    assert attempt(folder, ledger, clock=-86400.0) == 0, (folder / "output.txt").read_text()
    assert outcome(folder)[0] == undisturbed[0][0]


def test_a_vanished_calc_dir_is_made_again(tmp_path):
    write_species(tmp_path / "species")
    folder = write_project(
        tmp_path,
        {
            "REFERENCE": None,
            "CLUSTER": {
                "executor": "inline",
                "calc_dir": "calc",
                "launch_str": "rm -rf ../../calc/../gone; " + launch("emt"),
            },
            "INITIAL_DATASET_GENERATION": {"species_dir": "species", "n_points_per_sampling_step_idg": 2},
            "ACTIVE_LEARNING": {"species_dir": "species", "max_MD_steps": 10},
        },
    )
    (folder / "control.in").write_text(CONTROL)
    first = command(folder=folder, name="aims-PAX-initial-ds")
    assert first.returncode == 0, first.stderr
    if (folder / "calc").exists():
        (folder / "calc").rmdir()
    second = command(folder=folder, name="aims-PAX-al")
    assert second.returncode == 0, second.stderr


@pytest.mark.parametrize("file", ["splits.jsonl", "labelled.xyz"])
def test_an_unreadable_line_of_the_dataset_is_named(tmp_path, file):
    folder = project(tmp_path, "inline")
    assert attempt(folder, Ledger()) == 0
    path = folder / "data" / file
    lines = path.read_text().splitlines(keepends=True)
    lines[3] = "what is this?\n"
    path.write_text("".join(lines))
    before = {p: p.read_bytes() for p in (folder / "results").rglob("*") if p.is_file()}
    code = attempt(folder, Ledger())
    output = (folder / "output.txt").read_text()
    assert code == 1, output
    assert file in output.splitlines()[-1]
    assert before == {p: p.read_bytes() for p in (folder / "results").rglob("*") if p.is_file()}
