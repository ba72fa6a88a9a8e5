"""Runs commands that need settings: read the settings, check the lock of the folder, then run the command."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from aims_pax.cli.exit_codes import traceback_to_file
from aims_pax.version import __version__

if TYPE_CHECKING:
    from rich.console import Console

    from aims_pax.settings import LabellingSettings, Settings


def run_command(command: Callable[[Settings, Console], None], mace: Path, project: Path) -> None:
    """Run a command in this folder. Settings are read before torch is imported, so mistakes appear at once.

    command: imports the modules it needs.
    """
    from aims_pax.parallel.core_allocation import prepared_processes
    from aims_pax.settings import read_settings

    settings = read_settings(Path.cwd(), str(project), str(mace), for_run=True)
    with _first_in_folder(settings, announced=True) as terminal, prepared_processes(settings):
        command(settings, terminal)


def run_labelling_command(
    command: Callable[[LabellingSettings, Console], None], mace: Path, project: Path
) -> None:
    """The same for a command that only needs the reference: the settings of the reference are enough."""
    from aims_pax.settings import read_reference_settings

    settings = read_reference_settings(Path.cwd(), str(project), str(mace))
    with _first_in_folder(settings, announced=False) as terminal:
        command(settings, terminal)


@contextmanager
def _first_in_folder(settings: LabellingSettings, announced: bool) -> Iterator[Console]:
    """Raises Busy, before torch is loaded, when another run works here. announced: `status` shows a starting run."""
    from aims_pax.record.lock import Lock

    terminal = console()
    terminal.print(f"aims-PAX {__version__}", highlight=False)
    lock = Lock(settings.folder / "restart" / "lock")
    lock.refuse_second()
    arriving = lock.announced() if announced else nullcontext()
    with traceback_to_file(settings.path(settings.misc.log_dir) / "traceback.log"), arriving:
        yield terminal


def console() -> Console:
    """Console bound to the current stdout. Some packages later replace sys.stdout, and the live view would then print
    its control sequences as text."""
    from rich.console import Console

    return Console(file=sys.stdout)
