"""The subcommands of `aims-PAX`: those of a run's folder, and the list of all.

Their code is in `aims_pax.commands` and is imported when a command runs.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from aims_pax.cli.diffusion import diffusion_app
from aims_pax.cli.exit_codes import exit_on_error, traceback_to_file
from aims_pax.cli.model_commands import export_command, model_test_command
from aims_pax.cli.options import HERE, MACE, PROJECT, Folder, MaceFile, ProjectFile, Version, settings_files
from aims_pax.cli.structure_commands import (
    augment_command,
    gpr_command,
    md_command,
    neb_command,
    relax_command,
    sample_command,
    select_command,
    training_set_command,
)
from aims_pax.errors import SettingsError


def init(
    kind: Annotated[
        str,
        typer.Argument(
            help="molecule, crystal, many, cluster, laptop, fine-tuning, pre-training or delta.",
            show_default="molecule",
        ),
    ] = "molecule",
    folder: Annotated[Path, typer.Argument(help="Folder for the files.", show_default="this folder")] = HERE,
    version: Version = False,
) -> None:
    """Write a commented starter project for a molecule, crystal, cluster, laptop, fine-tuning, Δ-learning …"""
    from aims_pax.commands.init import write_starter

    def go() -> None:
        written, edit = write_starter(kind, folder)
        for path in written:
            print(f"written: {path}")
        for place in edit:
            print(f"to edit: {place}")
        where = "" if folder == HERE else f"cd {shlex.quote(str(folder))} && "
        print(f"then: {where}aims-PAX check")

    exit_on_error(go)


def check_command(
    context: typer.Context,
    folder: Annotated[
        Path,
        typer.Argument(
            help="Working folder of the run, or the file of sample, augment or training-set.",
            show_default="this folder",
        ),
    ] = HERE,
    tried: Annotated[
        bool,
        typer.Option(
            "--try",
            help="Label one structure with the reference; check the device with torch; time training and MD, and "
            "forecast time and cost of the run.",
        ),
    ] = False,
    label_time: Annotated[
        float | None,
        typer.Option(
            help="With --try: seconds of one label of the smallest geometry, where it cannot be tried here (FHI-aims)."
        ),
    ] = None,
    mace_settings: MaceFile = MACE,
    aimspax_settings: ProjectFile = PROJECT,
    version: Version = False,
) -> None:
    """Validate the settings and inputs without running; print the complete effective settings as YAML."""
    from aims_pax.commands.check.project import checked_settings

    def go() -> None:
        from aims_pax.commands.check.trial_labels import check_verdict, verdict_of_file
        from aims_pax.settings import dump

        if folder.is_file() and (text := _checked_own_input(folder)) is not None:
            print(text)
            return
        if label_time is not None and not (tried and 0 < label_time < math.inf):
            raise SettingsError(f"--label-time: expected a positive number, with --try, got {label_time:g}")
        files, ahead = settings_files(context, mace_settings, aimspax_settings), list[str]()
        alone = folder.is_file() or (folder.suffix in (".yaml", ".yml") and not folder.exists())
        if not alone:
            _enter(folder)
        try:
            if alone:
                from aims_pax.commands.check.config_file import checked_config_file

                found = checked_config_file(folder)
                said, warnings, text = verdict_of_file(found, tried), found.warnings, found.text
            else:
                settings = checked_settings(HERE, *files)
                said, warnings = check_verdict(settings, wanted=tried), [*settings.warnings]
                text = dump(settings)
                if tried:
                    from aims_pax.commands.check.trial_times import try_times

                    ahead = try_times(HERE, settings, said.seconds, label_time, files)
        except SettingsError as error:
            n = sum(not line.startswith(" ") for line in str(error).splitlines())
            raise SettingsError(f"{error}\n{n} problem{'s' if n > 1 else ''} to correct") from error
        for warning in (*warnings, *said.warnings):
            print(f"warning: {warning}", file=sys.stderr)
        print(text, end="", flush=True)
        for line in ahead:
            print(line, file=sys.stderr)
        print(f"check: {said.text}", file=sys.stderr)

    exit_on_error(go)


def plan_command(
    context: typer.Context,
    folder: Folder = HERE,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    mace_settings: MaceFile = MACE,
    aimspax_settings: ProjectFile = PROJECT,
    version: Version = False,
) -> None:
    """Show what would run: systems, steps, expected reference calculations, memory, limits."""
    from aims_pax.commands.plan import plan as planned
    from aims_pax.commands.plan_text import plan_lines

    def go() -> None:
        _enter(folder)
        ahead = planned(HERE, *settings_files(context, mace_settings, aimspax_settings))
        if as_json:
            print(json.dumps(ahead, indent=1, ensure_ascii=False))
            return
        for warning in ahead["warnings"]:
            print(f"warning: {warning}", file=sys.stderr)
        print("\n".join(plan_lines(ahead)))

    exit_on_error(go)


def status_command(
    folder: Folder = HERE,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Repeat until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option("--every", min=0.2, help="Seconds between two updates.")] = 2.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="As JSON; with --watch one line per update.")
    ] = False,
    version: Version = False,
) -> None:
    """Show the state of a run, running or finished, from the files of its folder; works from any host."""
    from aims_pax.commands.status import status as standing
    from aims_pax.commands.status import status_lines
    from aims_pax.report.seen_files import SeenFiles

    seen = SeenFiles(folder / "restart")

    def look() -> str:
        now = standing(folder, seen)
        return (
            json.dumps(now, indent=None if watch else 1, ensure_ascii=False)
            if as_json
            else "\n".join(status_lines(now))
        )

    def go() -> None:
        waiting = False
        while True:
            began = time.monotonic()
            try:
                text = look()
            except SettingsError:
                if not (watch and folder.is_dir()):
                    raise
                if not waiting:
                    print("waiting: no aims-PAX run has begun here yet (Ctrl-C ends)", file=sys.stderr)
                waiting = True
                time.sleep(every)
                continue
            spent = time.monotonic() - began
            clear = "\x1b[H\x1b[2J" if watch and not as_json and sys.stdout.isatty() else ""
            print(clear + text, flush=True)
            if not watch:
                return
            time.sleep(max(every, 4 * spent))  # reading a large folder takes at most a fifth of the time

    def until_stopped() -> None:
        try:
            go()
        except KeyboardInterrupt:
            if not watch:
                raise

    exit_on_error(until_stopped)


def pause(folder: Folder = HERE, version: Version = False) -> None:
    """Pause a run at its next MD step or training batch; running calculations finish and are stored."""
    _steer(folder, "pause")


def resume(folder: Folder = HERE, version: Version = False) -> None:
    """Resume a paused run."""
    _steer(folder, "resume")


def stop(
    folder: Folder = HERE,
    cancel: Annotated[
        bool,
        typer.Option("--cancel", help="Cancel its jobs and calculations, also those left by a stopped run."),
    ] = False,
    version: Version = False,
) -> None:
    """Stop a run like Ctrl-C: everything is saved, and `aims-PAX` continues from there.

    On a cluster, running calculations finish and queued blocks wait for the next run, unless --cancel is given.
    """
    _steer(folder, "cancel" if cancel else "stop")


def report(folder: Folder = HERE, version: Version = False) -> None:
    """Write the report of a run, running or finished: one HTML page, and its figures and numbers as files."""

    def go() -> None:
        from aims_pax.report.html_page import write_report

        with traceback_to_file(folder / "logs" / "traceback.log"):
            print(write_report(folder))

    exit_on_error(go)


VERBS: dict[str, Callable[..., Any]] = {
    "init": init,
    "check": check_command,
    "plan": plan_command,
    "status": status_command,
    "pause": pause,
    "resume": resume,
    "stop": stop,
    "report": report,
    "export": export_command,
    "test": model_test_command,
    "select": select_command,
    "sample": sample_command,
    "augment": augment_command,
    "training-set": training_set_command,
    "gpr": gpr_command,
    "neb": neb_command,
    "relax": relax_command,
    "md": md_command,
}
GROUPS: dict[str, typer.Typer] = {"diffusion": diffusion_app}  # commands with subcommands


def _enter(folder: Path) -> None:
    """Change to this folder. Raises SettingsError when it does not exist."""
    if folder == HERE:
        return
    if not folder.is_dir():
        from aims_pax.suggestions import no_such

        what = (
            "a file; expected the folder with aimsPAX.yaml" if folder.exists() else no_such(folder, "folder")
        )
        raise SettingsError(f"{folder}: {what}")
    os.chdir(folder)


def _checked_own_input(path: Path) -> str | None:
    """The verdict on a file that is not YAML of a run, sample, augment or training-set; None for all others."""
    from aims_pax.commands.check.gpr_input import checked_surrogate_input

    found = checked_surrogate_input(path)
    for warning in () if found is None else found.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return None if found is None else found.text


def _steer(folder: Path, what: str) -> None:
    from aims_pax.commands.pause_resume_stop import request

    def go() -> None:
        print(request(folder, what))

    exit_on_error(go)
