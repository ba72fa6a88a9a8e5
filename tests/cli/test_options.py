"""Options of several commands."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from aims_pax.cli.options import MACE, PROJECT, settings_files
from tests.projects import command, write_project


@pytest.mark.parametrize(
    "words",
    [
        ["--mace-settings", "m.yaml", "--aimsPAX-settings", "a.yaml", "check"],
        ["check", "--mace_settings", "m.yaml", "--aimsPAX_settings", "a.yaml"],
        ["check", "--model-settings", "m.yaml", "--aimsPAX-settings", "a.yaml"],
    ],
)
def test_other_file_names_are_accepted_in_every_spelling(tmp_path, words):
    folder = write_project(tmp_path)
    (folder / "mace.yaml").rename(folder / "m.yaml")
    (folder / "aimsPAX.yaml").rename(folder / "a.yaml")
    done = command(*words, folder=folder)
    assert done.returncode == 0, done.stderr


def test_settings_files_named_behind_the_subcommand_come_before_those_named_ahead_of_it():
    before = SimpleNamespace(obj=(Path("m1.yaml"), Path("a1.yaml")))
    nothing = SimpleNamespace(obj=None)
    assert settings_files(nothing, MACE, PROJECT) == ("aimsPAX.yaml", "mace.yaml")
    assert settings_files(before, MACE, PROJECT) == ("a1.yaml", "m1.yaml")
    assert settings_files(before, Path("m2.yaml"), PROJECT) == ("a1.yaml", "m2.yaml")
    assert settings_files(before, Path("m2.yaml"), Path("a2.yaml")) == ("a2.yaml", "m2.yaml")
