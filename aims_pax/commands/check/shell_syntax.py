"""Commands of CLUSTER that bash cannot parse, or that end before FHI-aims does: found before blocks wait in a queue."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from typing import TYPE_CHECKING

from aims_pax.errors import SettingsError
from aims_pax.labelling.references.launch_output import OUTPUT, simple_commands, written_by
from aims_pax.schedulers.registry import known_schedulers

if TYPE_CHECKING:
    from aims_pax.settings import Settings
    from aims_pax.systems import System

# options with which a submit command waits for its job
WAITING = frozenset({"--wait", "-W", "-K", "-sync", "-I"})


def check_shell_syntax(settings: Settings, systems: Sequence[System]) -> None:
    """Raise SettingsError for a worker_str or launch_str with a mistake of syntax, or a launch_str that cannot label;
    nothing is run."""
    cluster = settings.cluster
    used = {
        "worker_str": cluster.worker_str if cluster.scheduler is not None else None,
        "launch_str": cluster.launch_str if settings.reference.type == "aims" else None,
    }
    for key, commands in used.items():
        if commands is not None and (said := syntax_error(commands)) is not None:
            raise SettingsError(f"CLUSTER.{key}: bash cannot read it: {said}")
    launch = used["launch_str"]
    if launch is not None and (said := unusable_launch(launch)) is not None:
        raise SettingsError(f"CLUSTER.launch_str: {said}")


def unusable_launch(command: str) -> str | None:
    """Why a launch command cannot label structures: it ends before FHI-aims does, or all calculations write to one
    file. None where nothing speaks against it.

    >>> unusable_launch("mpirun aims.x > aims.out"), unusable_launch("mpirun aims.x > aims.out &")
    (None, 'it ends with &, so that it does not wait for FHI-aims; remove the &')
    """
    commands = simple_commands(command)
    submitters = {scheduler.submitter for scheduler in known_schedulers().values()}
    for one in commands:
        program, *options = [word for word in one.words if not re.match(r"\w+=", word)] or [""]
        if program.rsplit("/", 1)[-1] in submitters and not WAITING & {
            option.partition("=")[0] for option in options
        }:
            return (
                f"{program} submits a job and does not wait for it; write the command that starts FHI-aims, like "
                "mpirun aims.x"
            )
    if commands and commands[-1].end == "&":
        return "it ends with &, so that it does not wait for FHI-aims; remove the &"
    targets = written_by(command)
    shared = [name for name in targets if os.path.isabs(os.path.expanduser(name))]
    if len(commands) == 1 and shared and len(shared) == len(targets):
        return (
            f"the output goes to {shared[0]}, one file for all calculations; redirect it to a file in the folder of "
            f"the calculation, like {OUTPUT}"
        )
    return None


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
