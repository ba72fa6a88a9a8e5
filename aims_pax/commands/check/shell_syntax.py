"""Commands of CLUSTER that bash cannot parse: an open quote is found before blocks wait in a queue for it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from typing import TYPE_CHECKING

from aims_pax.errors import SettingsError

if TYPE_CHECKING:
    from aims_pax.settings import Settings
    from aims_pax.systems import System


def check_shell_syntax(settings: Settings, systems: Sequence[System]) -> None:
    """Raise SettingsError for a worker_str or launch_str with a mistake of syntax; nothing is run."""
    cluster = settings.cluster
    used = {
        "worker_str": cluster.worker_str if cluster.scheduler is not None else None,
        "launch_str": cluster.launch_str if settings.reference.type == "aims" else None,
    }
    for key, commands in used.items():
        if commands is not None and (said := syntax_error(commands)) is not None:
            raise SettingsError(f"CLUSTER.{key}: bash cannot read it: {said}")


def syntax_error(commands: str) -> str | None:
    """What `bash -n` says of commands, None if they are in order or there is no bash.

    >>> syntax_error('export A="x'), syntax_error("module load x")
    ('line 1: unexpected EOF while looking for matching `"\\'', None)
    """
    bash = shutil.which("bash")
    if bash is None:
        return None
    environment = {**os.environ, "LC_ALL": "C"}  # no warnings of a missing locale
    done = subprocess.run(
        [bash, "-n"], input=commands, capture_output=True, text=True, errors="replace", env=environment
    )
    if done.returncode == 0 and "here-document" not in done.stderr:  # of which bash only warns
        return None
    first, _, _ = done.stderr.strip().partition("\n")
    return first.partition(": ")[2] or f"exit code {done.returncode}"
