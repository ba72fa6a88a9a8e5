"""Mistakes in shell commands are found by `check` and at the start, not in a block after its wait in the queue."""

import pytest

from aims_pax.commands.check.shell_syntax import check_shell_syntax
from aims_pax.errors import SettingsError
from tests.labelling.test_factory import SLURM, aims_project


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"worker_str": 'module load x\nexport A="x\n'},
            r"CLUSTER\.worker_str: bash cannot read it: line 2: unexpected",
        ),
        ({"worker_str": "cat <<END\nmodule load x\n"}, r"CLUSTER\.worker_str: .*here-document"),
        (
            {"launch_str": "srun aims.x > 'aims.out"},
            r"CLUSTER\.launch_str: bash cannot read it: line 1: unexpected",
        ),
        ({"launch_str": "(srun aims.x > aims.out"}, r"CLUSTER\.launch_str: .*end of file"),
    ],
)
def test_a_quote_or_a_bracket_that_stays_open_is_refused(tmp_path, changes, said):
    told = aims_project(tmp_path, **{**SLURM, **changes})
    with pytest.raises(SettingsError, match=said):
        check_shell_syntax(told, ())


def test_commands_in_order_are_not_run(tmp_path):
    commands = f"touch {tmp_path}/ran\n[[ -d /x ]] && export A=$(touch {tmp_path}/ran)\nulimit -s unlimited"
    check_shell_syntax(aims_project(tmp_path, **SLURM, **{"launch_str": commands}), ())
    check_shell_syntax(aims_project(tmp_path, **{**SLURM, "worker_str": commands}), ())
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("launch", "said"),
    [
        ("sbatch job.sh", "sbatch submits a job and does not wait"),
        ("cp /x/job.sh . && A=1 /opt/bin/qsub -V job.sh", "qsub submits a job and does not wait"),
        ("srun aims.x > aims.out &", "it ends with &"),
        ("module load aims\nsrun aims.x > aims.out 2>&1 &\n", "it ends with &"),
        ("srun aims.x > /scratch/aims.out", "the output goes to /scratch/aims.out, one file for all"),
        ("srun aims.x > /scratch/aims.%j.out", "the output goes to /scratch/aims.%j.out, one file for all"),
        ("srun --output=/scratch/aims.out aims.x", "the output goes to /scratch/aims.out, one file for all"),
    ],
)
def test_a_launch_command_that_cannot_label_is_refused(tmp_path, launch, said):
    with pytest.raises(SettingsError, match=said):
        check_shell_syntax(aims_project(tmp_path, **SLURM, launch_str=launch), ())


@pytest.mark.parametrize(
    "launch",
    [
        "sbatch --wait job.sh",
        "qsub -sync y job.sh",
        "srun aims.x > aims.out & wait",
        "watch.sh &\nsrun aims.x > aims.out",
        "date >> /scratch/times\nsrun aims.x > aims.out",
        "srun --output=/scratch/aims.%j.out aims.x",
        "srun aims.x | tee /scratch/aims.out",
        "srun aims.x > aims.out 2> /scratch/errors",
        "echo 'sbatch job.sh'; srun aims.x",
        "srun aims.x >& aims.out",
        "srun aims.x 2>&1 > aims.out && true",
    ],
)
def test_other_launch_commands_are_not(tmp_path, launch):
    check_shell_syntax(aims_project(tmp_path, **SLURM, launch_str=launch), ())
