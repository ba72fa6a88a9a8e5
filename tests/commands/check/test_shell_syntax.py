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
