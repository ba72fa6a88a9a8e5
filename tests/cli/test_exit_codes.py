"""How a command ends."""

import subprocess
import sys

import pytest
import typer

from aims_pax.cli.exit_codes import Unexpected, exit_on_error, traceback_to_file
from aims_pax.errors import Busy, LabelError, RunInterrupted, SettingsError, SetupError


def test_a_mistake_of_ours_is_one_line_with_a_traceback_in_a_file(tmp_path, monkeypatch):
    code = (
        "import sys; sys.argv = ['aims-PAX', 'report']\nimport aims_pax.report.html_page as page\n"
        "def broken(folder): raise ZeroDivisionError('so it is')\npage.write_report = broken\n"
        "from aims_pax.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "ZeroDivisionError: so it is" in done.stderr
    assert "so it is" in (tmp_path / "logs" / "traceback.log").read_text()


def ends(error):
    """The exit code of a command that raises this."""

    def go():
        raise error

    with pytest.raises(typer.Exit) as end:
        exit_on_error(go)
    return end.value.exit_code


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (SettingsError("MD.timestep", "too long"), 2, "aims-PAX: MD.timestep: too long\n"),
        (SetupError("no aims.x"), 1, "aims-PAX: no aims.x\n"),
        (LabelError("nothing worked"), 1, "aims-PAX: nothing worked\n"),
        (Busy("another run works here"), 1, "aims-PAX: another run works here\n"),
        (
            KeyboardInterrupt(),
            3,
            "aims-PAX: stopped at once; run the same command again to continue from what was saved\n",
        ),
        (RunInterrupted("stopped by the user", 3), 3, ""),
        (RunInterrupted("SIGTERM", 75), 75, ""),
    ],
)
def test_the_code_tells_why_a_command_ended_and_one_line_what_was_wrong(
    tmp_path, monkeypatch, capsys, error, code, said
):
    monkeypatch.chdir(tmp_path)
    assert ends(error) == code
    assert capsys.readouterr() == ("", said)


def test_a_command_that_is_done_ends_without_a_word(capsys):
    exit_on_error(lambda: None)
    assert capsys.readouterr() == ("", "")


def test_an_unexpected_error_is_one_line_and_its_traceback_a_file(tmp_path):
    path = tmp_path / "logs" / "traceback.log"
    said = rf"^ZeroDivisionError: so it is \(traceback in {path}; please report it\)$"
    with pytest.raises(Unexpected, match=said), traceback_to_file(path):
        raise ZeroDivisionError("so it is")
    assert path.read_text().startswith("Traceback (most recent call last)")
    assert "so it is" in path.read_text()


def test_where_the_traceback_cannot_be_written_that_is_said(tmp_path):
    (tmp_path / "logs").write_text("in the way")
    path = tmp_path / "logs" / "traceback.log"
    said = r"KeyError: 'x' \(no traceback: .*traceback\.log: "
    with pytest.raises(Unexpected, match=said), traceback_to_file(path):
        raise KeyError("x")


@pytest.mark.parametrize(
    "error", [SettingsError("x"), RunInterrupted("x", 3), BrokenPipeError(), typer.Exit(2)]
)
def test_errors_that_are_meant_for_the_user_leave_no_traceback(tmp_path, error):
    with pytest.raises(type(error)), traceback_to_file(tmp_path / "logs" / "traceback.log"):
        raise error
    assert list(tmp_path.iterdir()) == []
