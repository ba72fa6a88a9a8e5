"""A label that was paid for is stored, or kept where it was computed and found by the next who asks."""

import errno
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from aims_pax.errors import NotStored, SetupError
from aims_pax.frames import Label
from aims_pax.labelling.references.fhi_aims import AimsReference
from aims_pax.labelling.store import LabelStore, method_hash
from aims_pax.labelling.worker import Task, label_task
from aims_pax.settings.control_in import parse_control
from tests import worlds

FRAME = worlds.dimer("Cu", 2.6)
FULL = [errno.EDQUOT, errno.ENOSPC, errno.EIO, errno.EROFS]


@dataclass(frozen=True)
class Counting:
    """A calculator that leaves no files."""

    scratch: Path | None = None
    asked: list = field(default_factory=list)
    quick = True

    def describe(self):
        return {"type": "counting"}

    def label(self, frame):
        self.asked.append(frame.id)
        return Label(-1.25, np.full((len(frame), 3), 0.5))


@pytest.fixture
def refusing(monkeypatch, tmp_path):
    """A switch: every write below data/ fails, as on a full disk."""
    broken = {}
    replace = os.replace

    def refuse(source, target):
        if (broken and str(target).startswith(str(tmp_path / "data"))) or broken.get("all"):
            raise OSError(broken["errno"], os.strerror(broken["errno"]))
        return replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return broken


def task(reference, tmp_path):
    store = LabelStore(tmp_path / "data", method_hash(reference.describe()))
    return Task(FRAME, reference, store, tmp_path / "unwanted")


def aims(tmp_path):
    return AimsReference(
        control=parse_control("xc pbe"),
        species_dir=worlds.write_species(tmp_path / "species"),
        launch=worlds.launch("emt", count=tmp_path / "count"),
        calc_dir=tmp_path / "calc",
    )


@pytest.mark.parametrize("code", FULL)
def test_a_calculation_stays_until_its_label_is_stored(tmp_path, refusing, code):
    work = task(aims(tmp_path), tmp_path)
    refusing["errno"] = code
    failed = label_task(work)
    assert isinstance(failed.error, NotStored)
    (left,) = (tmp_path / "calc").iterdir()
    assert "Have a nice day." in (left / "aims.out").read_text()
    assert str(left) in str(failed.error)
    assert os.strerror(code) in str(failed.error)
    again = label_task(work)  # still full: found, not computed, and kept again
    assert isinstance(again.error, NotStored)
    refusing.clear()
    label = label_task(work).label
    assert label is not None
    assert work.store.get(FRAME.id).energy == label.energy
    assert len((tmp_path / "count").read_text().splitlines()) == 1
    assert list((tmp_path / "calc").iterdir()) == []


@pytest.mark.parametrize("code", FULL)
@pytest.mark.parametrize("scratch", [True, False])
def test_a_calculators_label_waits_elsewhere(tmp_path, refusing, code, scratch):
    (tmp_path / "tmp").mkdir()
    reference = Counting(tmp_path / "calc" if scratch else None)
    work = task(reference, tmp_path)
    refusing["errno"] = code
    failed = label_task(work)
    assert isinstance(failed.error, NotStored)
    (waiting,) = [p for p in tmp_path.rglob(f"{FRAME.id}.json")]
    assert waiting.is_relative_to(tmp_path / ("calc/unstored" if scratch else f"tmp/aims-PAX-{os.getuid()}"))
    assert str(waiting) in str(failed.error)
    assert isinstance(label_task(work).error, NotStored)
    refusing.clear()
    found = label_task(work)
    assert found.label.energy == -1.25
    assert found.label.forces.tolist() == [[0.5] * 3] * 2
    assert reference.asked == [FRAME.id]
    assert work.store.get(FRAME.id).energy == -1.25
    assert not waiting.exists()


def test_where_nothing_can_be_written_the_loss_is_said(tmp_path, refusing):
    refusing.update(errno=errno.ENOSPC, all=True)
    failed = label_task(task(Counting(tmp_path / "calc"), tmp_path))
    assert "is lost: it could not be saved elsewhere" in str(failed.error)


def test_a_waiting_label_of_another_method_does_not_count(tmp_path, refusing):
    (tmp_path / "tmp").mkdir()
    reference = Counting(tmp_path / "calc")
    refusing["errno"] = errno.ENOSPC
    label_task(task(reference, tmp_path))
    refusing.clear()
    other = Task(FRAME, reference, LabelStore(tmp_path / "data", "ddddeeeeffff"), tmp_path / "unwanted")
    assert label_task(other).label is not None
    assert len(reference.asked) == 2


def test_a_claim_that_cannot_be_written_costs_no_calculation(tmp_path):
    reference = Counting()
    (tmp_path / "data").write_text("a file where a folder should be")
    store = LabelStore(tmp_path / "data", "aaaabbbbcccc")
    assert isinstance(
        label_task(Task(FRAME, reference, store, tmp_path / "unwanted", "run")).error, SetupError
    )
    assert reference.asked == []
