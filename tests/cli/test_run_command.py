"""How commands with settings begin."""

import os
import sys
from pathlib import Path

import pytest

from aims_pax.errors import Busy
from aims_pax.record.lock import Lock
from tests.projects import write_project


def test_what_noisy_packages_put_in_the_place_of_standard_output_does_not_get_the_live_view(monkeypatch):
    """The live view behind such a stand-in prints its control sequences as text."""
    import io

    from aims_pax.cli.run_command import console

    real, stand_in = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", real)
    terminal = console()
    monkeypatch.setattr(sys, "stdout", stand_in)
    terminal.print("a line of the run")
    assert (real.getvalue(), stand_in.getvalue()) == ("a line of the run\n", "")


def test_a_second_run_is_refused_before_anything_slow_is_loaded(tmp_path, monkeypatch):
    import sys

    from aims_pax.cli.run_command import run_command

    folder = write_project(tmp_path)
    monkeypatch.chdir(folder)
    monkeypatch.setitem(sys.modules, "aims_pax.commands.run", None)  # importing it would fail
    with (
        Lock(folder / "restart" / "lock").held(),
        pytest.raises(Busy, match=f"another aims-PAX works in this folder .pid {os.getpid()} on "),
    ):
        run_command("run_all", Path("mace.yaml"), Path("aimsPAX.yaml"))
