"""Options of several commands."""

import pytest

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
