"""How a run ended, as its log tells it."""

import errno
import logging

import pytest

from aims_pax.engine.outcome import describe_os_error, log_outcome
from aims_pax.errors import NotStored, RunInterrupted, SettingsError, SetupError


def ended(error, caplog):
    """The record of the log and the exception of a run that ends with this one."""
    caplog.set_level(logging.INFO)
    caplog.clear()
    with pytest.raises((Exception, RunInterrupted)) as raised, log_outcome():
        raise error
    (record,) = caplog.records
    return record, raised.value


def test_a_stop_is_no_error_and_says_that_everything_is_saved(caplog):
    stop = RunInterrupted("stopped by SIGTERM", 75)
    record, raised = ended(stop, caplog)
    assert raised is stop
    assert (record.levelname, record.getMessage()) == (
        "INFO", "stopped by SIGTERM: everything is saved; run the same command again to continue"
    )  # fmt: skip


@pytest.mark.parametrize("error", [SettingsError("MD", "no"), NotStored("full")])
def test_errors_for_the_user_are_the_last_line_without_a_traceback(caplog, error):
    record, raised = ended(error, caplog)
    assert raised is error
    assert (record.levelname, record.getMessage(), record.exc_info) == ("ERROR", str(error), None)


def test_a_full_disk_names_the_file_and_what_to_do(caplog):
    record, raised = ended(OSError(errno.ENOSPC, "No space left on device", "/data/labelled.xyz"), caplog)
    assert type(raised) is SetupError
    assert str(raised) == record.getMessage()
    assert str(raised).startswith(
        "/data/labelled.xyz: No space left on device; free space or correct the permissions"
    )
    assert describe_os_error(OSError("odd")).startswith("a file of this run: odd; ")


def test_a_mistake_of_ours_is_logged_with_its_traceback(caplog):
    record, raised = ended(ZeroDivisionError("ours"), caplog)
    assert isinstance(raised, ZeroDivisionError)
    assert record.exc_info[1] is raised


def test_a_run_that_ends_well_adds_nothing(caplog):
    caplog.set_level(logging.INFO)
    with log_outcome():
        pass
    assert caplog.records == []
