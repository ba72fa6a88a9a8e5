"""What is Slurm's alone; what all schedulers have in common is in test_contract."""

import os
import time
from pathlib import Path

import pytest

from aims_pax.engine.interrupts import remaining_walltime
from aims_pax.schedulers.base import Phase
from aims_pax.schedulers.registry import known_schedulers
from aims_pax.schedulers.slurm import clean_environment, job_state, refused

SLURM = known_schedulers()["slurm"]


def test_what_contradicts_a_block_does_not_reach_sbatch_from_the_environment(monkeypatch):
    """sbatch(1): variables override the options of the script."""
    for name, value in {
        "SBATCH_TIMELIMIT": "30", "SBATCH_JOB_NAME": "mine", "SBATCH_NO_REQUEUE": "1", "SBATCH_ARRAY_INX": "1-4",
        "SBATCH_OUTPUT": "o", "SBATCH_WAIT": "1", "SBATCH_SIGNAL": "TERM", "SBATCH_ACCOUNT": "proj",
        "SBATCH_PARTITION": "old", "SBATCH_MEM_PER_NODE": "1", "SQUEUE_STATES": "RUNNING", "SQUEUE_PARTITION": "x",
        "SCANCEL_INTERACTIVE": "1", "PMI_RANK": "0", "PMIX_RANK": "0", "SLURM_JOB_ID": "7", "SLURM_CONF": "/conf",
        "SLURMD_NODENAME": "n1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    kept = {"SBATCH_ACCOUNT", "SBATCH_PARTITION", "SBATCH_MEM_PER_NODE", "SLURM_CONF"}
    prefixes = ("SBATCH_", "SQUEUE_", "SCANCEL_", "SLURM", "PMI")
    assert {k for k in clean_environment() if k.startswith(prefixes)} == kept
    written = clean_environment(["partition", "mem"])  # what the header says counts
    assert {k for k in written if k.startswith(prefixes)} == {"SBATCH_ACCOUNT", "SLURM_CONF"}
    assert "SBATCH_TIMELIMIT=30" in SLURM.not_passed_on("")


def test_steps_share_a_job_only_when_they_must():
    job = {"SLURM_JOB_ID": "7", "SLURM_NTASKS_PER_NODE": "4", "SLURM_MEM_PER_CPU": "100", "HOME": "/"}
    alone = SLURM.step_environment(job, False)
    assert alone == {"SLURM_JOB_ID": "7", "SLURM_MEM_PER_CPU": "100", "HOME": "/"}
    shared = SLURM.step_environment(job, True)
    assert (shared["SLURM_EXACT"], shared["SLURM_MEM_PER_NODE"]) == ("1", "0")
    assert "SLURM_MEM_PER_CPU" not in shared
    assert shared["OMPI_MCA_hwloc_base_binding_policy"] == "none"  # or all mpirun would use the first cores


def test_options_of_open_mpi_reach_blocks_unless_an_mpirun_has_set_them(monkeypatch):
    monkeypatch.setenv("OMPI_MCA_pml", "ucx")
    assert clean_environment()["OMPI_MCA_pml"] == "ucx"
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    assert not [name for name in clean_environment() if name.startswith("OMPI_")]


@pytest.mark.parametrize(
    ("said", "passing"),
    [
        ("Unable to contact slurm controller (connect failure)", True),
        ("Batch job submission failed: Socket timed out on send/recv operation", True),
        ("sbatch: error: QOSMaxSubmitJobPerUserLimit", True),
        ("Batch job submission failed: Invalid partition name specified", False),
        ("Batch job submission failed: Invalid account or account/partition combination specified", False),
    ],
)
def test_a_controller_that_is_away_is_no_mistake_in_the_settings(said, passing):
    assert refused(said).passing == passing


def test_a_heterogeneous_job_ends_with_its_first_component_whatever_the_user_likes_to_see(
    monkeypatch, tmp_path
):
    soon, later = (time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + s)) for s in (1000, 5000))
    squeue = tmp_path / "squeue"
    squeue.write_text(
        f"#!/bin/sh\n[ -z \"$SLURM_TIME_FORMAT$SQUEUE_STATES\" ] || exit 1\nprintf '{later}\\n{soon}\\n'\n"
    )
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    environment = {"SLURM_JOB_ID": "1", "SLURM_TIME_FORMAT": "relative", "SQUEUE_STATES": "PD"}
    assert remaining_walltime(None, {**os.environ, **environment}) == pytest.approx(1000, abs=5)


@pytest.mark.parametrize(
    ("words", "files"),
    [
        (["srun", "-n", "8", "-o", "aims.out", "aims.x"], ["aims.out"]),
        (["/opt/slurm/bin/srun", "--output=a.out", "--output", "b.out", "aims.x"], ["a.out", "b.out"]),
        (["srun", "-oaims.out", "--overlap", "aims.x"], ["aims.out"]),
        (["srun", "-o", "aims.%t.out", "aims.x"], []),  # a file a rank
        (["mpirun", "-o", "aims.out", "aims.x"], []),
        (["srun", "-o"], []),
    ],
)
def test_files_to_which_srun_writes_the_output_are_known(words, files):
    assert SLURM.launcher_outputs(words) == files


def test_a_header_with_its_own_nodes_or_without_a_time_gets_none_of_ours():
    def own(header):
        return SLURM.own_lines(header, "p.1", Path("/runs/p.1"), 3)

    assert "#SBATCH --nodes=3" in own("")
    assert not [line for line in own("#SBATCH -N 1") if "--nodes" in line]
    assert not [line for line in own("") if "--time" in line]
    assert "#SBATCH --time=1-02:03:04" in own("#SBATCH --time=1-02:03:04")
    assert "#SBATCH --time=UNLIMITED" in own("#SBATCH --time=UNLIMITED")


@pytest.mark.parametrize(
    ("launch", "slots"),
    [("srun -N 1 --ntasks-per-node=16 aims.x", 4), ("srun --ntasks-per-node=32 aims.x", 1),
     ("mpirun --np 16 aims.x", 4), ("mpirun aims.x", 1), ("nice -n 19 srun -n 32 aims.x", 2)],
)  # fmt: skip
def test_processes_of_a_launch_command_are_counted_however_it_gives_them(launch, slots):
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_CPUS_PER_NODE": "32(x2)", "SLURM_JOB_NUM_NODES": "2"}
    assert SLURM.allocation_slots(launch, job) == slots


def test_a_signal_before_the_walltime_would_kill_calculations_and_is_not_asked_for():
    header = "#SBATCH --signal=USR1@300 --time=60\n#SBATCH -n 4\n"
    assert SLURM.read_header(header).replaced == ("--signal",)
    assert "signal" not in "\n".join(SLURM.script_head(header, "p.1", Path("/runs/p.1"), 1))


@pytest.mark.parametrize(
    ("word", "phase"),
    [("RESV_DEL_HOLD", Phase.HELD), ("REQUEUE_HOLD", Phase.HELD), ("STOPPED", Phase.HELD),
     ("STAGE_OUT", Phase.ENDING), ("LAUNCH_FAILED", Phase.FAILED)],
)  # fmt: skip
def test_a_job_that_will_not_run_by_itself_does_not_count_as_running(word, phase):
    assert job_state(word).phase == phase


def test_an_error_of_srun_itself_is_told_from_one_of_its_program():
    assert SLURM.launch_failed("srun: error: Unable to create step for job 7: Memory required")
    assert SLURM.launch_failed("srun: Job 7 step creation temporarily disabled, retrying")
    assert not SLURM.launch_failed("srun: error: node1: task 3: Exited with exit code 2")
    assert not SLURM.launch_failed("aims.x: connection failure of an atom")


def test_a_step_that_slurm_ends_is_told_from_one_that_fails_by_itself():
    assert SLURM.ended_program("srun: error: Node failure on n12")
    assert SLURM.ended_program("*** STEP 7.3 ON n12 CANCELLED AT 2026-11-27T03:04:05 DUE TO TIME LIMIT ***")
    own = "*** STEP 7.3 ON n12 CANCELLED AT 2026-11-27T03:04:05 ***"  # after MPI_Abort, too
    assert not SLURM.ended_program(own)


def test_a_job_that_squeue_does_not_list_has_ended_and_others_keep_their_state(commands):
    called = commands(squeue="7 RUNNING\n9 SUSPENDED\n")
    states = SLURM.states(["9", "7", "8", "7"])
    assert {job: s.phase for job, s in states.items()} == {
        "7": Phase.RUNNING, "8": Phase.COMPLETED, "9": Phase.HELD
    }  # fmt: skip
    assert "--jobs=7,8,9" in called.read_text()
    assert SLURM.states([]) == {}
    assert called.read_text().count("squeue") == 1, "nobody is asked about no job"


@pytest.mark.parametrize(
    ("sinfo", "login"),
    [
        ("4\n2\n", True),
        ("", False),
        ("0\n", False),
        (("", "sinfo: fatal: Could not establish a configuration source\n", 1), False),
        (None, False),
    ],
)
def test_only_where_a_cluster_answers_is_a_login_node(commands, sinfo, login):
    """Debian's package slurm-client installs sbatch on any machine."""
    commands(sbatch="", **({} if sinfo is None else {"sinfo": sinfo}))
    assert SLURM.at_login(os.environ) == login
    assert not SLURM.at_login({**os.environ, "SLURM_JOB_ID": "7"})
