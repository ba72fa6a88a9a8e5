"""Folders of earlier runs: refused, or emptied of the files of this command alone."""

import numpy as np
import pytest

from aims_pax.commands.gpr.output_files import per_structure, write_structures
from aims_pax.errors import SettingsError
from aims_pax.settings.gpr_input import read_gpr_input
from tests.models.gp import systems


def test_other_files_in_the_folder_are_not_removed(tmp_path):
    (tmp_path / "train.in").write_text("train_file x\n")
    settings = read_gpr_input(tmp_path / "train.in")
    folder, data = tmp_path / "out", systems.h2([1.0, 1.1])
    write_structures(settings, folder, data, ["", "a remark"])
    assert "# a remark" in (folder / "file_00001.xsf").read_text()
    write_structures(settings, folder, data[:1], [""])
    assert [p.name for p in folder.iterdir()] == ["file_00000.xsf"]
    (folder / "mine.txt").write_text("x")
    with pytest.raises(SettingsError, match=r"mine.txt: not written by this command"):
        write_structures(settings, folder, data, ["", ""])


def test_forces_have_one_axis_for_structures_where_these_are_of_one_size():
    frames = [x.frame for x in systems.h2([1.0, 1.1])]
    assert per_structure(frames, np.zeros((4, 3))).shape == (2, 2, 3)
    assert per_structure([*frames, systems.cu13(1)[0].frame], np.zeros((17, 3))).shape == (17, 3)
