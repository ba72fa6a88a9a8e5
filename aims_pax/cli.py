"""The commands: `aims-PAX` with `aims-PAX check`, and `aims-PAX-initial-ds`, `-al`, `-recalc`, `-atomic-energies`.

Exit codes: 0 done, 1 failed, 2 settings, 3 stopped by the user, 75 stopped by the system: run again.
torch is imported only when there is something to run.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

# One thread a process unless the user says otherwise: more made MACE several times slower on shared machines,
# and forks after threads deadlock. Set before anything loads a math library.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import typer

from aims_pax import __version__
from aims_pax.errors import AimsPaxError, SettingsError
from aims_pax.procedures.watch import Stopped

MaceFile = Annotated[
    Path,
    typer.Option("--mace-settings", "--mace_settings", "--model-settings", help="Settings of the models."),
]
ProjectFile = Annotated[
    Path,
    typer.Option("--aimsPAX-settings", "--aimsPAX_settings", help="Settings of the run."),
]
MACE, PROJECT = Path("mace.yaml"), Path("aimsPAX.yaml")

app = typer.Typer(
    name="aims-PAX",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Unexpected(AimsPaxError):
    """A mistake of ours, not the user's."""


def _version(show: bool) -> None:
    if show:
        typer.echo(f"aims-PAX {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
]


@app.callback(invoke_without_command=True)
def run(
    context: typer.Context,
    mace_settings: MaceFile = MACE,
    aimspax_settings: ProjectFile = PROJECT,
    version: Version = False,
) -> None:
    """Build machine-learned force fields: initial dataset, active learning, convergence, in this folder."""
    context.obj = (mace_settings, aimspax_settings)
    if context.invoked_subcommand is None:
        _guarded(lambda: _run("run_all", mace_settings, aimspax_settings))


@app.command()
def check(
    context: typer.Context,
    mace_settings: MaceFile = MACE,
    aimspax_settings: ProjectFile = PROJECT,
) -> None:
    """Validate the settings and inputs without running; print the complete effective settings as YAML."""
    from aims_pax.settings.check import check as checked

    before = context.obj or (MACE, PROJECT)  # options may stand before or behind the verb
    mace = mace_settings if mace_settings != MACE else before[0]
    project = aimspax_settings if aimspax_settings != PROJECT else before[1]

    def go() -> None:
        text, warnings = checked(Path.cwd(), str(project), str(mace))
        for warning in warnings:
            print(f"warning: {warning}", file=sys.stderr)
        print(text, end="")

    _guarded(go)


def _initial_ds(
    mace_settings: MaceFile = MACE, aimspax_settings: ProjectFile = PROJECT, version: Version = False
) -> None:
    """Create the initial dataset and the first models, in this folder."""
    _guarded(lambda: _run("run_initial", mace_settings, aimspax_settings))


def _al(
    mace_settings: MaceFile = MACE, aimspax_settings: ProjectFile = PROJECT, version: Version = False
) -> None:
    """Run active learning and convergence, from an initial dataset or from given data or models."""
    _guarded(lambda: _run("run_active_learning", mace_settings, aimspax_settings))


def _recalc(
    data: Annotated[
        Path, typer.Argument(help="Structures to label, extended XYZ; labels in it are compared.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The result; without it DATA_recalculated.xyz in this folder."),
    ] = None,
    keep_failed: Annotated[
        bool,
        typer.Option("--keep-failed", help="Keep failed structures in the result, without labels."),
    ] = False,
    mace_settings: MaceFile = MACE,
    aimspax_settings: ProjectFile = PROJECT,
    version: Version = False,
) -> None:
    """Label an existing dataset again with the reference of this folder; the same command goes on after a stop."""
    target = output or Path(f"{data.stem}_recalculated.xyz")
    _guarded(
        lambda: _run(
            "run_recalculate", mace_settings, aimspax_settings, "recalculate", data, target, keep_failed
        )
    )


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
    """Energies of isolated atoms from the reference of this folder, ready for mace.yaml."""
    _guarded(
        lambda: _run(
            "run_atomic_energies", mace_settings, aimspax_settings, "atomic_energies", elements or [], output
        )
    )


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


def _single(command: Callable[..., None], name: str) -> None:
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command()(command)
    single(prog_name=name)


def _run(story: str, mace: Path, project: Path, room: str = "main", *given: Any) -> None:
    """Tell a story of `procedures.<room>`. Settings come first: their mistakes appear before torch is loaded."""
    import importlib

    from rich.console import Console

    from aims_pax.settings import read_settings

    settings = read_settings(Path.cwd(), str(project), str(mace), for_run=True)
    console = Console()
    console.print(f"aims-PAX {__version__}", highlight=False)
    try:
        stories = importlib.import_module(f"aims_pax.procedures.{room}")
        getattr(stories, story)(settings, console, *given)
    except (AimsPaxError, Stopped):
        raise
    except Exception as error:
        path = settings.path(settings.misc.log_dir) / "traceback.log"
        where = f"traceback in {path}; please report it"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(traceback.format_exc(), encoding="utf-8")
        except OSError as refused:
            where = f"no traceback: {path}: {refused.strerror}"
        raise Unexpected(f"{type(error).__name__}: {error} ({where})") from error


def _guarded(go: Callable[[], None]) -> None:
    """One line for the user instead of a stack trace, and the exit code that says what kind of end it was."""
    try:
        go()
    except SettingsError as error:
        print(f"aims-PAX: {error}", file=sys.stderr)
        raise typer.Exit(2) from error
    except AimsPaxError as error:
        print(f"aims-PAX: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        print("aims-PAX: stopped at once; the last snapshot is kept", file=sys.stderr)
        raise typer.Exit(3) from error
    except Stopped as stop:
        raise typer.Exit(stop.code) from stop
