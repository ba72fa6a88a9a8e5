"""How commands with settings begin."""

import os
import sys
from pathlib import Path

import pytest

from aims_pax.cli.exit_codes import Unexpected
from aims_pax.cli.run_command import run_command, run_labelling_command
from aims_pax.errors import Busy
from aims_pax.record.lock import STARTING, Lock
from aims_pax.version import __version__
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


@pytest.mark.parametrize(("run", "announced"), [(run_command, True), (run_labelling_command, False)])
def test_a_command_gets_its_settings_and_a_run_is_announced_meanwhile(
    tmp_path, monkeypatch, capsys, run, announced
):
    folder = write_project(tmp_path)
    (folder / "restart").mkdir()  # of a run that goes on
    monkeypatch.chdir(folder)
    seen = []

    def command(settings, terminal):
        seen.append((settings.folder, (folder / "restart" / STARTING).exists()))

    run(command, Path("mace.yaml"), Path("aimsPAX.yaml"))
    assert seen == [(folder, announced)]
    assert not (folder / "restart" / STARTING).exists()
    assert capsys.readouterr().out == f"aims-PAX {__version__}\n"


def test_an_unexpected_error_of_a_command_has_its_traceback_in_the_folder_of_the_logs(tmp_path, monkeypatch):
    folder = write_project(tmp_path, {"MISC": {"log_dir": "my_logs"}})
    monkeypatch.chdir(folder)

    def broken(settings, terminal):
        raise ZeroDivisionError("so it is")

    with pytest.raises(Unexpected, match="ZeroDivisionError: so it is"):
        run_command(broken, Path("mace.yaml"), Path("aimsPAX.yaml"))
    assert "so it is" in (folder / "my_logs" / "traceback.log").read_text()
