"""What a block is asked for, without a Slurm; the rest is in tests/slurm."""

import math
from pathlib import Path

import pytest

from aims_pax.errors import SetupError
from aims_pax.labelling import slurm
from aims_pax.labelling.blocks import Blocks, job_script
from aims_pax.labelling.slurm_executor import SlurmExecutor
from aims_pax.settings.sbatch import walltime

PATH = Path("/runs/blocks/p.1")


def script(header, **changes):
    return job_script(Blocks(header, **changes), "p.1", PATH, "prepare", "pool").splitlines()


def test_the_users_header_is_kept_and_what_must_be_ours_is_ours():
    lines = script(
        "#!/bin/bash -l\n#SBATCH -p fast -J mine --mem=3G\n#SBATCH --output=o.txt --requeue\n"
        "#SBATCH --time=90\nmodule load x\n",
        nodes=2,
    )
    assert lines[0] == "#!/bin/bash -l"
    assert "#SBATCH --job-name=p.1" in lines
    assert "#SBATCH --error=/runs/blocks/p.1.err" in lines
    assert "#SBATCH --nodes=2" in lines
    assert "#SBATCH --time=0-01:30:00" in lines
    assert "#SBATCH --partition=fast --mem=3G" in lines
    assert not [line for line in lines if "mine" in line or "o.txt" in line or line.endswith("--requeue")]
    end = lines.index("module load x")
    assert lines[end + 1 : end + 3] == ["export AIMS_PAX_BLOCK_END=$(( $(date +%s) + 5400 ))", "prepare"]
    assert lines[-1] == "pool"


def test_preparations_that_take_long_do_not_delay_the_drain():
    lines = job_script(
        Blocks("#SBATCH -t 10", longest=60), "p.1", PATH, "prepare", "pool --drain_period=480 -x"
    )
    text = lines.splitlines()
    assert "DRAIN=$(( AIMS_PAX_BLOCK_END - $(date +%s) - 120 ))" in text
    assert text[-1] == "pool --drain_period=$DRAIN -x"


def test_the_users_number_of_nodes_wins():
    assert not [line for line in script("#SBATCH -N 4", nodes=2) if "--nodes" in line]


@pytest.mark.parametrize(
    ("time", "longest", "drain"),
    [
        ("24:00:00", 3600.0, 86400 - 3600 - 120),
        ("1:00", 12.0, 60 - 6 - 12),
        ("24:00:00", math.inf, (86400 - 120) // 2),
        ("UNLIMITED", 3600.0, None),
    ],
)
def test_a_block_takes_no_work_it_cannot_finish(time, longest, drain):
    assert Blocks(f"#SBATCH --time={time}", longest=longest).drain == drain


def test_without_a_time_the_partition_decides():
    assert Blocks("").drain is None
    assert not [line for line in script("") if "--time" in line or "BLOCK_END" in line]


@pytest.mark.parametrize("text", ["", "1:2:3:4", "soon", "-5", "1-", "1-2:3:4:5", "1.5"])
def test_what_is_no_time_of_slurm_is_refused(text):
    with pytest.raises(ValueError, match="not a time of Slurm"):
        walltime(text)


def test_where_there_is_no_slurm_the_run_ends_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError, match="there is no squeue on this machine"):
        SlurmExecutor(Blocks(""), tmp_path / "parsl").__enter__()


def test_steps_share_a_job_only_when_they_must():
    job = {"SLURM_JOB_ID": "7", "SLURM_NTASKS_PER_NODE": "4", "SLURM_MEM_PER_CPU": "100", "HOME": "/"}
    assert slurm.steps_environment({"HOME": "/"}, True) == {"HOME": "/"}
    alone = slurm.steps_environment(job, False)
    assert alone == {"SLURM_JOB_ID": "7", "SLURM_MEM_PER_CPU": "100", "HOME": "/"}
    shared = slurm.steps_environment(job, True)
    assert (shared["SLURM_EXACT"], shared["SLURM_MEM_PER_NODE"]) == ("1", "0")
    assert "SLURM_MEM_PER_CPU" not in shared


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
    assert slurm.Refused(said).passing == passing
