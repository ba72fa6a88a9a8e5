"""Folders of calculations: shared by runs, taken over from dead owners only."""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace

import pytest

from aims_pax.labelling import calculation_folders
from aims_pax.labelling.calculation_folders import OWNER, CalculationFolders, read_owner
from aims_pax.labelling.claims import Claim, process_started
from aims_pax.schedulers.slurm import Slurm

FRAME, METHOD = "0123456789abcdef0123", "aaaabbbbcccc"


@pytest.fixture
def folders(tmp_path):
    return CalculationFolders(tmp_path / "calc", METHOD)


def owned_by(folders, **changes):
    """A folder of the frame with this owner, as another process would leave it."""
    folder = folders.calc_dir / f"{FRAME}.{METHOD}.0badcafe"
    folder.mkdir(parents=True)
    (folder / "aims.out").write_text("half")
    claim = replace(Claim.mine("", None), **changes)
    (folder / OWNER).write_text(json.dumps({"frame_id": FRAME, **asdict(claim)}))
    return folder


def test_a_folder_says_frame_and_method_and_who_works_in_it(folders):
    folder = folders.make(FRAME, 60.0)
    assert folder.name.startswith(f"{FRAME}.{METHOD}.")
    owner = read_owner(folder)
    assert (owner.pid, owner.started) == (os.getpid(), process_started(os.getpid()))
    assert owner.deadline == pytest.approx(time.time() + 60, abs=5)
    assert folders.make(FRAME, None) != folder


def test_a_living_owner_keeps_its_folder(folders):
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        folder = owned_by(folders, pid=process.pid, started=process_started(process.pid))
        assert list(folders.left(FRAME, None)) == []
        assert (folder / "aims.out").read_text() == "half"
    finally:
        process.kill()
        process.wait()
    (taken,) = folders.left(FRAME, None)
    assert not folder.exists()
    assert (taken / "aims.out").read_text() == "half"
    assert read_owner(taken).pid == os.getpid()


def test_this_process_does_not_take_what_it_works_in_and_finds_what_it_left(folders):
    folder = folders.make(FRAME, None)
    assert list(folders.left(FRAME, None)) == []
    folders.leave(folder)
    assert len(list(folders.left(FRAME, None))) == 1


@pytest.mark.parametrize(
    ("changes", "age", "taken"),
    [
        ({"deadline": None}, 0.0, False),
        ({"deadline": 1.0}, 0.0, True),  # over since 1970
        ({"deadline": None}, calculation_folders.FORSAKEN + 60, True),
    ],
)
def test_an_owner_on_another_machine_is_believed_until_its_deadline(folders, changes, age, taken):
    folder = owned_by(folders, host="elsewhere", job=None, **changes)
    then = time.time() - age
    for path in (*folder.iterdir(), folder):
        os.utime(path, (then, then))
    assert bool(list(folders.left(FRAME, None))) is taken


@pytest.mark.parametrize("there", [True, False])
def test_an_owner_in_a_slurm_job_lives_as_long_as_the_job(folders, monkeypatch, there):
    monkeypatch.setattr(Slurm, "alive", lambda _, jobs: set(jobs) if there else set())
    owned_by(folders, host="node7", job="42", deadline=None)
    assert bool(list(folders.left(FRAME, None))) is not there


def test_folders_of_other_methods_and_without_a_mark_are_nobodys(folders):
    owned_by(folders, pid=1, started="another boot:17")
    assert list(replace(folders, method="ddddeeeeffff").left(FRAME, None)) == []
    (folders.calc_dir / f"{FRAME}.{METHOD}.0badcafe" / OWNER).unlink()
    assert list(folders.left(FRAME, None)) == []


def test_two_who_want_one_folder_do_not_both_get_it(folders):
    owned_by(folders, pid=1, started="another boot:17")
    first, second = folders.left(FRAME, None), folders.left(FRAME, None)
    assert next(first, None) is not None
    assert next(second, None) is None
