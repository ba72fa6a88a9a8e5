"""What a block is asked for, without a Slurm; the rest is in tests/slurm."""

import os
import shutil
import socket
import subprocess

import pytest

from aims_pax.errors import SetupError
from aims_pax.labelling.executors.block_request import Blocks, job_script
from aims_pax.labelling.executors.parsl_blocks import BlockExecutor, _addresses, _free_port, cancel_left
from aims_pax.schedulers.base import JobState, NamedJob, Phase
from aims_pax.schedulers.registry import known_schedulers
from aims_pax.schedulers.slurm import Slurm

SLURM = known_schedulers()["slurm"]


def test_an_interface_that_is_not_there_and_ports_that_are_taken_are_said():
    with pytest.raises(SetupError, match=r"parsl_options\.interface: ib7 has no IPv4 address.*lo"):
        _addresses(Blocks(SLURM, "", interface="ib7"))
    assert _addresses(Blocks(SLURM, "", interface="lo")) == ("127.0.0.1", {"127.0.0.1"})
    assert _addresses(Blocks(SLURM, "", address="login1.ib")) == (None, {"login1.ib"})
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SetupError, match=rf"port_range: no port of {port}-{port} is free"):
            _free_port("127.0.0.1", (port, port))
        assert _free_port("127.0.0.1", (port, port + 20)) in range(port + 1, port + 21)


def test_the_port_is_chosen_by_who_binds_it(tmp_path):
    """One chosen here may be taken by another run, or by any connection of this machine, before it is bound."""
    backend = BlockExecutor(Blocks(SLURM, "", ports=(54100, 54101)), tmp_path / "parsl", tmp_path)._backend()
    assert (backend.worker_port, backend.worker_port_range) == (None, (54100, 54102))


@pytest.mark.parametrize("how", ["the same", "copied", "moved", "linked"])
def test_the_jobs_of_a_run_are_not_those_of_a_copy_of_its_folder(tmp_path, monkeypatch, how):
    restart, other = tmp_path / "run" / "restart", tmp_path / "other" / "restart"
    executor = BlockExecutor(Blocks(SLURM, ""), tmp_path / "parsl", tmp_path / "run", restart)
    executor._record(executor._ours())
    cancelled = []
    named = {"7": NamedJob(f"p.{executor.token}.1", JobState(Phase.RUNNING, "RUNNING"))}
    monkeypatch.setattr(Slurm, "jobs_named", lambda _, part: {} if cancelled else named)
    monkeypatch.setattr(Slurm, "alive", lambda _, jobs: set())
    monkeypatch.setattr(Slurm, "cancel", lambda _, jobs: cancelled.extend(jobs))
    {
        "the same": lambda: None,
        "copied": lambda: shutil.copytree(restart.parent, other.parent),
        "moved": lambda: restart.parent.rename(other.parent),
        "linked": lambda: other.parent.symlink_to(restart.parent),
    }[how]()
    next_run = BlockExecutor(
        Blocks(SLURM, ""), tmp_path / "parsl", tmp_path, restart if how == "the same" else other
    )
    assert [r["token"] for r in next_run.files.runs()] == ([] if how == "copied" else [executor.token])
    cancel_left(next_run.files.folder)
    assert cancelled == ([] if how == "copied" else ["7"])


@pytest.mark.parametrize(
    ("line", "threads"),
    [
        ("export OMP_NUM_THREADS=4", "4 1"),
        ("#SBATCH --export=ALL,OMP_NUM_THREADS=4", "8 1"),  # as sbatch has set it
        ("# export OMP_NUM_THREADS=4", "1 1"),
        ("", "1 1"),
    ],
)
def test_threads_that_the_header_asks_for_stay(tmp_path, line, threads):
    blocks = Blocks(SLURM, f"#!/bin/bash\n#SBATCH --time=5\n{line}\n")
    executor = BlockExecutor(blocks, tmp_path / "parsl", tmp_path)
    executor._backend()
    path = tmp_path / "script"
    end = "echo $OMP_NUM_THREADS $MKL_NUM_THREADS"
    path.write_text(job_script(blocks, "p.1", path, executor._blocks.start, end))
    environment = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "8"}
    said = subprocess.run(["bash", path], capture_output=True, text=True, check=True, env=environment).stdout
    assert said == f"{threads}\n"


def test_where_there_is_no_slurm_the_run_ends_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError, match="there is no squeue on this machine"):
        BlockExecutor(Blocks(SLURM, ""), tmp_path / "parsl").__enter__()
