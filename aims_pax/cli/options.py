"""Options of several commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aims_pax.version import __version__

MaceFile = Annotated[
    Path,
    typer.Option("--mace-settings", "--mace_settings", "--model-settings", help="Settings of the models."),
]
ProjectFile = Annotated[
    Path,
    typer.Option("--aimsPAX-settings", "--aimsPAX_settings", help="Settings of the run."),
]
Folder = Annotated[Path, typer.Argument(help="Working folder of the run.", show_default="this folder")]
MACE, PROJECT, HERE = Path("mace.yaml"), Path("aimsPAX.yaml"), Path()


def _version(show: bool) -> None:
    if show:
        typer.echo(f"aims-PAX {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
]


def settings_files(context: typer.Context, mace: Path, project: Path) -> tuple[str, str]:
    """(aimsPAX.yaml, mace.yaml): their options may be given before or after the subcommand."""
    before = context.obj or (MACE, PROJECT)
    return str(project if project != PROJECT else before[1]), str(mace if mace != MACE else before[0])
