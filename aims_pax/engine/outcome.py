"""How a run ended: the last line of its log, and messages for file-system errors."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from aims_pax.errors import AimsPaxError, RunInterrupted, SetupError

log = logging.getLogger(__name__)


@contextlib.contextmanager
def log_outcome(
    stopped: str = "everything is saved; run the same command again to continue",
) -> Iterator[None]:
    """Write to the end of the log how the run ended. stopped: what follows the reason of an interruption."""
    try:
        yield
    except RunInterrupted as stop:
        log.info("%s: %s", stop.reason, stopped)
        raise
    except AimsPaxError as error:
        log.error("%s", error)
        raise
    except OSError as error:
        text = describe_os_error(error)
        log.error("%s", text)
        raise SetupError(text) from error
    except Exception:
        log.exception("unexpected error")
        raise


def describe_os_error(error: OSError) -> str:
    """The error of the file system, and what the user can do."""
    where = error.filename or "a file of this run"
    return (
        f"{where}: {error.strerror or error}; free space or correct the permissions of the folder, then run the same "
        "command again: finished reference calculations are stored"
    )
