"""What a block is asked for, and its job script."""

import math
import subprocess
from pathlib import Path

import pytest

from aims_pax.labelling.executors.block_request import Blocks, job_script
from aims_pax.schedulers.registry import known_schedulers

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
    assert lines[end + 2 : end + 4] == ["export AIMS_PAX_BLOCK_END=$(( $(date +%s) + 5400 ))", "prepare"]
    assert lines[-1] == "pool"


def test_a_backslash_at_the_end_of_the_users_text_does_not_swallow_our_commands():
    text = job_script(Blocks(SLURM, "#SBATCH -t 5\nmodule load x \\\n"), "p.1", PATH, "export A=1 \\", "pool")
    script = f"module() {{ echo $@; }}\npool() {{ echo $A; }}\n{text}"
    said = subprocess.run(["bash"], input=script, capture_output=True, text=True, check=True)
    assert said.stdout == "load x\n1\n"


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
