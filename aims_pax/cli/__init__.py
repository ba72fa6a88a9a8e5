"""The commands: `aims-PAX` and its subcommands, `aims-PAX-initial-ds`, `-al`, `-recalc`, `-atomic-energies`, `-test`.

Exit codes: 0 done, 1 failed, 2 settings, 3 stopped by the user, 75 stopped by the system: run again.
torch is imported only when a command needs it. Subcommands are in `commands`, exit codes in `exit_codes`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

# One thread per process unless the user sets it: more threads made MACE several times slower on shared machines,
# and a fork after threads have started can deadlock. Must be set before a math library is loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import typer

from aims_pax.cli import commands
from aims_pax.cli.exit_codes import exit_on_error
from aims_pax.cli.model_commands import model_test_command
from aims_pax.cli.options import MACE, PROJECT, MaceFile, ProjectFile, Version
from aims_pax.cli.run_command import run_command, run_labelling_command
from aims_pax.errors import SettingsError

if TYPE_CHECKING:
    from rich.console import Console

    from aims_pax.settings import LabellingSettings, Settings

WAYS = {
    "add_completion": False,
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
app = typer.Typer(name="aims-PAX", **WAYS)  # type: ignore[arg-type]


@app.callback(invoke_without_command=True)
def main_command(
    context: typer.Context,
    mace_settings: MaceFile = MACE,
    aimspax_settings: ProjectFile = PROJECT,
    version: Version = False,
) -> None:
    """Build machine-learned force fields: initial dataset, active learning, convergence, in this folder."""
    context.obj = (mace_settings, aimspax_settings)
    if context.invoked_subcommand is None:
        exit_on_error(lambda: run_command(_run_all, mace_settings, aimspax_settings))


def _run_all(settings: Settings, console: Console) -> None:
    from aims_pax.commands.run import run_all

    run_all(settings, console)


def _initial_ds(
    mace_settings: MaceFile = MACE, aimspax_settings: ProjectFile = PROJECT, version: Version = False
) -> None:
    """Create the initial dataset and the first models, in this folder."""

    def command(settings: Settings, console: Console) -> None:
        from aims_pax.commands.run import run_initial

        run_initial(settings, console)

    exit_on_error(lambda: run_command(command, mace_settings, aimspax_settings))


def _al(
    mace_settings: MaceFile = MACE, aimspax_settings: ProjectFile = PROJECT, version: Version = False
) -> None:
    """Run active learning and convergence, from an initial dataset or from given data or models."""

    def command(settings: Settings, console: Console) -> None:
        from aims_pax.commands.run import run_active_learning

        run_active_learning(settings, console)

    exit_on_error(lambda: run_command(command, mace_settings, aimspax_settings))


def _recalc(
    data: Annotated[
        Path, typer.Argument(help="Structures to label, extended XYZ; its old labels are compared.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Output file; default DATA_recalculated.xyz in this folder."),
    ] = None,
    keep_failed: Annotated[
        bool,
        typer.Option("--keep-failed", help="Also write failed structures, without labels."),
    ] = False,
    mace_settings: MaceFile = MACE,
    aimspax_settings: ProjectFile = PROJECT,
    version: Version = False,
) -> None:
    """Label an existing dataset again with the reference of this folder; the same command continues after a stop.

    Only REFERENCE, CLUSTER and species_dir are needed; all other settings may be missing.
    """
    target = output or Path(f"{data.stem}_recalculated.xyz")

    def command(settings: LabellingSettings, console: Console) -> None:
        from aims_pax.commands.recalc import run_recalculate

        run_recalculate(settings, console, data, target, keep_failed)

    exit_on_error(lambda: run_labelling_command(command, mace_settings, aimspax_settings))


def _atomic_energies(
    elements: Annotated[
        list[str] | None, typer.Argument(help="Symbols of elements besides those of the geometries.")
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="YAML file for ARCHITECTURE.atomic_energies.")
    ] = Path("atomic_energies.yaml"),
    mace_settings: MaceFile = MACE,
    aimspax_settings: ProjectFile = PROJECT,
    version: Version = False,
) -> None:
    """Compute energies of isolated atoms with the reference of this folder, in the format of mace.yaml.

    Only REFERENCE, CLUSTER and species_dir are needed; all other settings may be missing.
    """

    def command(settings: LabellingSettings, console: Console) -> None:
        from aims_pax.commands.atomic_energies import run_atomic_energies

        run_atomic_energies(settings, console, elements or [], output)

    exit_on_error(lambda: run_labelling_command(command, mace_settings, aimspax_settings))


def _run() -> None:
    """Explains to users who type `aims-PAX run` that there is no such command."""

    def go() -> None:
        raise SettingsError("there is no command run: `aims-PAX` alone runs everything, in this folder")

    exit_on_error(go)


ANYTHING = {"ignore_unknown_options": True, "allow_extra_args": True}
app.command("run", hidden=True, context_settings=ANYTHING)(_run)
for verb, function in commands.VERBS.items():
    app.command(verb)(function)
for verb, group in commands.GROUPS.items():
    app.add_typer(group, name=verb)


def main() -> None:
    """Entry point of `aims-PAX`."""
    app(prog_name="aims-PAX")


def main_initial_ds() -> None:
    """Entry point of `aims-PAX-initial-ds`."""
    _single(_initial_ds, "aims-PAX-initial-ds")


def main_al() -> None:
    """Entry point of `aims-PAX-al`."""
    _single(_al, "aims-PAX-al")


def main_recalc() -> None:
    """Entry point of `aims-PAX-recalc`."""
    _single(_recalc, "aims-PAX-recalc")


def main_atomic_energies() -> None:
    """Entry point of `aims-PAX-atomic-energies`."""
    _single(_atomic_energies, "aims-PAX-atomic-energies")


def main_test() -> None:
    """Entry point of `aims-PAX-test`, the same as `aims-PAX test`."""
    _single(model_test_command, "aims-PAX-test")


def _single(command: Callable[..., None], name: str) -> None:
    single = typer.Typer(**WAYS)  # type: ignore[arg-type]
    single.command()(command)
    single(prog_name=name)
