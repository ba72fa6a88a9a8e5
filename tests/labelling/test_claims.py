"""Who computes what survives a crash: live claims are waited for, dead ones are begun anew."""

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import asdict, replace

import pytest

from aims_pax.errors import NotConverged
from aims_pax.labelling import Labeller, claims
from aims_pax.labelling.claims import Claim, Claims
from aims_pax.labelling.executors.inline import InlineExecutor
from aims_pax.labelling.references.ase_calculator import CalculatorReference
from aims_pax.processes import process_started
from aims_pax.schedulers.registry import find_scheduler
from aims_pax.schedulers.slurm import Slurm
from tests import worlds

FRAME = worlds.dimer("Cu", 2.6)
HERE = socket.gethostname()


class Outliving(InlineExecutor):
    """Inline, but as if its work went on without this process: it claims."""

    outlives = True


@pytest.fixture
def other():
    """Another process that lives until the end of the test."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process.pid
    process.kill()
    process.wait()


def claim_of(pid, **changes):
    return replace(Claim(HERE, pid, process_started(pid), run="another"), **changes)


def write(it, claim, frame=FRAME):
    it.store.folder.mkdir(parents=True, exist_ok=True)
    Claims(it.store.folder).path(frame.id).write_text(json.dumps(asdict(claim)))


def labeller(folder):
    return Labeller(CalculatorReference(worlds.EMT["factory"]), folder, Outliving())


def test_a_claim_is_taken_once_and_given_back(tmp_path, other):
    mine, theirs = Claim.mine("run", 60), claim_of(other)
    it = Claims(tmp_path)
    assert it.take("a", mine)
    assert not it.take("a", theirs)
    assert it.read("a") == mine
    assert mine.deadline > time.time() + 50
    it.release("a", theirs)
    assert it.ids() == ["a"]
    it.release("a", mine)
    assert it.ids() == []
    assert list(tmp_path.iterdir()) == []


def test_a_dead_process_of_this_machine_loses_its_claim(tmp_path, other):
    it = Claims(tmp_path)
    again = claim_of(other, started="another boot:1")  # the number is used again
    for dead in (again, Claim(HERE, 2**22 + 1, "x")):
        assert it.take("a", dead)
        assert it.alive("a") is None
        assert it.take("a", dead)
        assert it.take("a", Claim.mine("run", None))
        it.forget("a")


def test_on_another_machine_the_slurm_job_and_the_deadline_decide(tmp_path, monkeypatch):
    monkeypatch.setattr(Slurm, "alive", lambda _, jobs: set(jobs) & {"7"})
    far = Claim("elsewhere", 1, "x", job="7", deadline=time.time() + 60)
    for claim, alive in [
        (far, True),
        (replace(far, job="8"), False),
        (replace(far, deadline=time.time() - 2 * claims.GRACE), False),
        (replace(far, job=None), False),
        (replace(far, deadline=None), True),
    ]:
        it = Claims(tmp_path / str(hash(claim)))
        assert it.take("a", claim)
        assert (it.alive("a") is not None) == alive


@pytest.fixture
def no_squeue(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("PATH", str(tmp_path_factory.mktemp("empty")))


def aged(it, seconds):
    os.utime(it.path("a"), (time.time() - seconds,) * 2)


def test_without_squeue_a_claim_of_another_machine_is_said_and_given_up(tmp_path, no_squeue, caplog):
    """A folder taken from a cluster to another machine; the claim may be of any version."""
    for renewed in (False, True):
        it = Claims(tmp_path / str(renewed))
        assert it.take("a", Claim("node17", 4711, "x", job="123", renewed=renewed))
        caplog.clear()
        assert it.alive("a") is not None
        for words in (
            "process 4711 of Slurm job 123 on node17",
            "squeue is not available",
            f"remove {it.path('a')}",
        ):
            assert words in caplog.text
        assert it.alive("a") is not None
        assert caplog.text.count("squeue is not available") == 1
        aged(it, claims.STALE_AFTER + 60)
        assert it.alive("a") is None
        assert it.ids() == []


def test_a_claim_that_is_not_renewed_is_given_up_although_its_job_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(Slurm, "alive", lambda _, jobs: set(jobs))
    monkeypatch.setattr(Slurm, "available", lambda _: True)
    for renewed, alive in [(True, False), (False, True)]:  # earlier versions did not renew
        it = Claims(tmp_path / str(renewed))
        assert it.take("a", Claim("node17", 1, "x", job="7", renewed=renewed))
        aged(it, claims.STALE_AFTER - 60)
        assert it.alive("a") is not None
        aged(it, claims.STALE_AFTER + 60)
        assert (it.alive("a") is not None) == alive


def test_a_worker_renews_its_claim_while_it_computes(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "RENEW_EVERY", 0.05)
    it = Claims(tmp_path)
    assert it.take("a", Claim.mine("run", None))
    aged(it, 5000)
    with it.renewed("a"):
        time.sleep(0.3)
    assert time.time() - it.path("a").stat().st_mtime < 60
    assert it.read("a").renewed


def test_a_claim_of_an_earlier_version_is_read(tmp_path):
    it = Claims(tmp_path)
    it.path("a").write_text(
        json.dumps({"host": "x", "pid": 1, "started": "b:1", "job": "7", "deadline": None, "run": ""})
    )
    assert it.read("a") == Claim("x", 1, "b:1", job="7")
    assert find_scheduler(it.read("a").scheduler).name == "slurm"


def test_what_a_later_version_has_added_to_a_claim_is_passed_over(tmp_path):
    it = Claims(tmp_path)
    it.path("a").write_text(json.dumps({"host": "x", "pid": 1, "started": "b:1", "queue": "fast"}))
    assert it.read("a") == Claim("x", 1, "b:1")


def test_a_claim_names_the_scheduler_of_its_job(tmp_path, monkeypatch):
    monkeypatch.setenv("JOB_ID", "7")
    monkeypatch.setenv("NSLOTS", "2")
    it = Claims(tmp_path)
    assert it.take("a", Claim.mine("", None))
    assert (it.read("a").job, it.read("a").scheduler) == ("7", "sge")


def test_a_job_of_a_scheduler_that_nobody_knows_here_is_given_up_when_it_is_silent(tmp_path, caplog):
    it = Claims(tmp_path)
    assert it.take("a", Claim("node17", 1, "x", job="7", renewed=True, scheduler="htcondor"))
    assert it.alive("a") is not None
    assert "process 1 of htcondor job 7 on node17, and htcondor is not available here" in caplog.text
    aged(it, claims.STALE_AFTER + 60)
    assert it.alive("a") is None


def test_a_torn_claim_counts_as_none(tmp_path):
    it = Claims(tmp_path)
    for text in ("", "{", "[]", '{"host": 1}', '{"host": "x", "pid": "y", "started": null}'):
        it.path("a").write_text(text)
        assert it.read("a") is None
        assert it.alive("a") is None


def test_a_frame_under_a_live_claim_is_awaited_and_harvested(tmp_path, other):
    with labeller(tmp_path) as it:
        write(it, claim_of(other))
        future = it.submit(FRAME)
        time.sleep(1.5)
        assert not future.done()
        assert it.calls.begun == 0
        label = CalculatorReference(worlds.EMT["factory"]).label(FRAME)
        it.store.put(FRAME.id, label)
        assert future.result(5).energy == label.energy
        assert (it.calls.begun, it.calls.harvested) == (0, 1)


def test_when_the_other_worker_dies_the_frame_is_begun(tmp_path):
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    with labeller(tmp_path) as it:
        write(it, claim_of(other.pid))
        future = it.submit(FRAME)
        other.kill()
        other.wait()
        assert future.result(5)
        assert (it.calls.begun, it.calls.finished) == (1, 1)
        assert it.submit(FRAME).result(0)
    assert list(it.store.folder.glob("*.claim")) == []


def test_a_failure_nobody_has_heard_of_is_not_paid_for_again(tmp_path):
    with labeller(tmp_path) as it:
        Claims(it.store.folder).note_failure(FRAME.id, NotConverged("after 99 cycles", "/calc/x"))
        error = it.submit(FRAME).exception(5)
        assert (type(error), error.reason, error.folder) == (NotConverged, "after 99 cycles", "/calc/x")
        assert it.calls.begun == 0
        assert it.submit(FRAME).result(5)  # told once; asked again, it is tried again


def test_dropping_what_another_computes_leaves_it_alone(tmp_path, other):
    with labeller(tmp_path) as it:
        write(it, claim_of(other))
        future = it.submit(FRAME)
        it.drop(FRAME.id)
        assert future.cancelled()
        time.sleep(1.2)
        assert it.calls.begun == 0
        assert os.listdir(it.store.folder).count(f"{FRAME.id}.claim") == 1
