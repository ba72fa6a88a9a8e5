"""Zeros that are no forces are told from those by symmetry."""

import numpy as np
import pytest

from aims_pax.commands.gpr.data_checks import refuse_zero_forces
from aims_pax.errors import SettingsError
from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.settings.gpr_input import read_gpr_input


@pytest.mark.parametrize(("shift", "refused"), [(0.0, False), (0.1, True)])
def test_atoms_of_a_crystal_that_only_changes_its_cell_may_have_no_forces(tmp_path, shift, refused):
    (tmp_path / "train.in").write_text("train_file x\n")
    settings = read_gpr_input(tmp_path / "train.in")
    data = [
        LabelledFrame(
            Frame([55, 17], [[0, 0, 0], [a / 2 + shift * k, a / 2, a / 2]], np.eye(3) * a, True),
            Label(-1.0 * k, np.zeros((2, 3))),
        )
        for k, a in enumerate((4.0, 4.1))
    ]
    if refused:
        with pytest.raises(SettingsError, match="all forces of 2 of 2 structures are exactly zero"):
            refuse_zero_forces(settings, "train_file", data)
    else:
        refuse_zero_forces(settings, "train_file", data)
