"""What a block is asked for, without a Slurm; the rest is in tests/slurm."""

import math
import socket
from pathlib import Path

import pytest

from aims_pax.errors import SetupError
from aims_pax.labelling.executors.block_request import Blocks, job_script
from aims_pax.labelling.executors.parsl_blocks import BlockExecutor, _addresses, _free_port
from aims_pax.schedulers.registry import known_schedulers
from aims_pax.schedulers.slurm import clean_environment, refused
from aims_pax.schedulers.slurm_header import slurm_seconds

PATH = Path("/runs/blocks/p.1")
SLURM = known_schedulers()["slurm"]


def script(header, **changes):
    return job_script(Blocks(SLURM, header, **changes), "p.1", PATH, "prepare", "pool").splitlines()


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


def test_paths_and_values_are_quoted_as_sbatch_reads_them():
    path = Path('/scratch/my project/100%/say "x"/p.1')
    lines = job_script(
        Blocks(SLURM, "#SBATCH --comment='two words' -t 5 --gres=gpu:1"), "p.1", path, "prepare", "pool"
    ).splitlines()
    assert '#SBATCH --output="/scratch/my project/100%%/say \\"x\\"/p.1.out"' in lines
    assert '#SBATCH --comment="two words" --gres=gpu:1' in lines
    assert lines.count("#SBATCH --time=0-00:05:00") == 1


def test_the_last_time_of_the_header_counts_whichever_way_it_is_written():
    assert "#SBATCH --time=0-01:00:00" in script("#SBATCH -t 10\n#SBATCH --time=1:00:00")
    assert "#SBATCH --time=0-00:10:00" in script("#SBATCH --time=1:00:00\n#SBATCH -t10")
    assert "#SBATCH --time=0-00:10:00" in script("#SBATCH --time=1:00:00 -Ht10")  # grouped letters
    lines = script("#SBATCH --job=mine --err=x --requ --time=5")  # abbreviations
    assert not [line for line in lines if "mine" in line or "requ" in line.replace("no-requeue", "")]


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


def test_blocks_of_one_shape_stand_in_for_each_other():
    one = Blocks(SLURM, "#SBATCH -t 10", "module load x", jobs=2)
    assert (
        one.shape
        == Blocks(SLURM, "#SBATCH -t 10", "module load x", jobs=2, idle=5.0, most=7, longest=60.0).shape
    )
    for other in (
        Blocks(SLURM, "#SBATCH -t 20", "module load x", jobs=2),
        Blocks(SLURM, "#SBATCH -t 10", "module load y", jobs=2),
        Blocks(SLURM, "#SBATCH -t 10", "module load x", jobs=4),
        Blocks(SLURM, "#SBATCH -t 10", "module load x", jobs=2, nodes=2),
    ):
        assert other.shape != one.shape


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
    assert Blocks(SLURM, f"#SBATCH --time={time}", longest=longest).drain == drain


def test_without_a_time_the_partition_decides():
    assert Blocks(SLURM, "").drain is None
    assert not [line for line in script("") if "--time" in line or "BLOCK_END" in line]


@pytest.mark.parametrize("text", ["", "1:2:3:4", "soon", "-5", "1-", "1-2:3:4:5", "1.5"])
def test_what_is_no_time_of_slurm_is_refused(text):
    with pytest.raises(ValueError, match="not a time of Slurm"):
        slurm_seconds(text)


def test_where_there_is_no_slurm_the_run_ends_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError, match="there is no squeue on this machine"):
        BlockExecutor(Blocks(SLURM, ""), tmp_path / "parsl").__enter__()


def test_steps_share_a_job_only_when_they_must():
    job = {"SLURM_JOB_ID": "7", "SLURM_NTASKS_PER_NODE": "4", "SLURM_MEM_PER_CPU": "100", "HOME": "/"}
    alone = SLURM.step_environment(job, False)
    assert alone == {"SLURM_JOB_ID": "7", "SLURM_MEM_PER_CPU": "100", "HOME": "/"}
    shared = SLURM.step_environment(job, True)
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
    assert refused(said).passing == passing
