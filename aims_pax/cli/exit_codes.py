"""How a command ends: one line for the user instead of a stack trace, and an exit code that shows the reason."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from aims_pax.errors import AimsPaxError, Busy, RunInterrupted, SettingsError

TRACEBACK = Path("logs") / "traceback.log"  # of commands without settings, which could name another folder


class Unexpected(AimsPaxError):
    """A bug in aims-PAX, not an error of the user."""


@contextmanager
def traceback_to_file(path: Path) -> Iterator[None]:
    """Turn an unexpected error into one line and write its traceback to the file. Raises Unexpected."""
    try:
        yield
    except (AimsPaxError, RunInterrupted, BrokenPipeError, typer.Exit):
        raise
    except Exception as error:
        where = f"traceback in {path}; please report it"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(traceback.format_exc(), encoding="utf-8")
        except OSError as refused:
            where = f"no traceback: {path}: {refused.strerror}"
        raise Unexpected(f"{type(error).__name__}: {error} ({where})") from error


def exit_on_error(go: Callable[[], None]) -> None:
    """Run it; 0 done, 1 failed, 2 settings, 3 stopped by the user, 75 stopped by the system: run again."""
    try:
        go()
    except SettingsError as error:
        print(f"aims-PAX: {error}", file=sys.stderr)
        raise typer.Exit(2) from error
    except AimsPaxError as error:
        print(f"aims-PAX: {error}{_paused(error)}", file=sys.stderr)
        raise typer.Exit(1) from error
    except BrokenPipeError as error:  # `aims-PAX status | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        print(
            "aims-PAX: stopped at once; run the same command again to continue from what was saved",
            file=sys.stderr,
        )
        raise typer.Exit(3) from error
    except RunInterrupted as stop:
        raise typer.Exit(stop.code) from stop


def _paused(error: AimsPaxError) -> str:
    if not isinstance(error, Busy):
        return ""
    from aims_pax.record.run_requests import paused_since

    return ". It is paused: aims-PAX resume lets it continue" if paused_since(Path()) is not None else ""
