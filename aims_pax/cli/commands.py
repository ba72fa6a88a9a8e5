"""The subcommands of `aims-PAX`. Their code is in `aims_pax.commands` and is imported when a command runs."""

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
from aims_pax.cli.options import HERE, MACE, PROJECT, Folder, MaceFile, ProjectFile, Version, settings_files
from aims_pax.cli.run_command import console
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


def export_command(
    models: Annotated[
        list[Path] | None,
        typer.Argument(help="Model files, or the folder of a run.", show_default="results/*.model"),
    ] = None,
    form: Annotated[str, typer.Option("--format", "-f", help="ase, torchscript, lammps or mliap.")] = "ase",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="A file, or a folder for several models.")
    ] = None,
    version: Version = False,
) -> None:
    """Export models for ASE, TorchScript or LAMMPS; each file is loaded again and compared with its model."""

    def go() -> None:
        from aims_pax.commands.export import export as exported

        with traceback_to_file(Path("logs") / "traceback.log"):
            exported(HERE, models or [], form, output, console())

    exit_on_error(go)


def errors_command(
    context: typer.Context,
    words: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="MODEL... DATA.xyz",
            help="Models, then a labelled dataset; with --md also nothing or the folder of a run.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Predictions and labels, as NumPy's .npz; with --md a folder.",
            show_default="test.npz; with --md results or md_test",
        ),
    ] = None,
    energy_key: Annotated[str, typer.Option(help="Name of the energy (eV) in the dataset.")] = "REF_energy",
    forces_key: Annotated[str, typer.Option(help="Name of the forces (eV/Å).")] = "REF_forces",
    stress_key: Annotated[str, typer.Option(help="Name of the stress (eV/Å³).")] = "REF_stress",
    virials_key: Annotated[
        str, typer.Option(help="Name of the virials (eV): stress = −virials/V.")
    ] = "REF_virials",
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    dtype: Annotated[
        str | None,
        typer.Option(help="float32 or float64.", show_default="float64; with --md that of the file"),
    ] = None,
    md: Annotated[
        bool,
        typer.Option("--md", help="Is the model fit for MD? Survival, energy drift, temperature, distances."),
    ] = False,
    ps: Annotated[float, typer.Option(help="With --md: length of each trajectory.")] = 1.0,
    starts: Annotated[
        int | None,
        typer.Option(
            help="With --md: labelled frames of each system to start from.",
            show_default="4, fewer with more than 8 systems",
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            help="With --md: temperature in K; 1.5 times as much too.", show_default="that of the run"
        ),
    ] = None,
    timestep: Annotated[
        float | None, typer.Option(help="With --md: time step in fs.", show_default="that of the run, or 0.5")
    ] = None,
    seed: Annotated[int, typer.Option(help="With --md: of starts and momenta.")] = 0,
    reference: Annotated[
        str,
        typer.Option(
            help="With --md: also compare with the reference of the run, which costs labels: errors (along the "
            "model's trajectories), frequencies, eos, separated by commas, or all.",
        ),
    ] = "",
    mace_settings: MaceFile = MACE,
    aimspax_settings: ProjectFile = PROJECT,
    version: Version = False,
) -> None:
    """Test models on a labelled dataset (errors by system and element), or with --md in molecular dynamics."""

    def go() -> None:
        keys = (energy_key, forces_key, stress_key, virials_key)
        files = settings_files(context, mace_settings, aimspax_settings)
        with traceback_to_file(Path("logs") / "traceback.log"):
            if not md:
                if not words or len(words) < 2:
                    raise SettingsError("expected models and a dataset: aims-PAX test MODEL... DATA.xyz")
                _only_with_md(context)
                from aims_pax.commands.test_models import evaluate_models

                evaluate_models(
                    words[:-1],
                    words[-1],
                    output or Path("test.npz"),
                    keys,
                    device,
                    dtype or "float64",
                    console(),
                )
                return
            from aims_pax.commands.md_test.command import MDTestOptions, assess_in_md

            asked = MDTestOptions(
                ps, temperature, timestep, starts, seed, reference, output, keys, device, dtype
            )
            assess_in_md(words or [], asked, console(), files)

    exit_on_error(go)


def _only_with_md(context: typer.Context) -> None:
    """Raises SettingsError for an option that has no effect without --md."""
    given = [
        name for name in ("ps", "starts", "temperature", "timestep", "seed", "reference")
        if (source := context.get_parameter_source(name)) is not None and source.name == "COMMANDLINE"
    ]  # fmt: skip
    if given:
        raise SettingsError(f"--{given[0]}: only with --md")


def augment_command(
    config: Annotated[Path, typer.Argument(help="Its own YAML file; example/augment/config.yaml is one.")],
    version: Version = False,
) -> None:
    """Make families of rattled structures from a file; the same command continues after a stop."""

    def go() -> None:
        from aims_pax.commands.augment import augment as augmented

        with traceback_to_file(Path("logs") / "traceback.log"):
            augmented(config, console())

    exit_on_error(go)


def sample_command(
    config: Annotated[Path, typer.Argument(help="Its own YAML file; example/sample/config.yaml is one.")],
    version: Version = False,
) -> None:
    """Make structures with MD, rattled trees, phonons, alone or mixed; the same command continues after a stop."""

    def go() -> None:
        from aims_pax.commands.sample import sample as sampled

        with traceback_to_file(Path("logs") / "traceback.log"):
            sampled(config, console())

    exit_on_error(go)


def training_set_command(
    config: Annotated[Path, typer.Argument(help="Its own YAML file; example/crystal/config.yaml is one.")],
    version: Version = False,
) -> None:
    """Make training structures of a molecular crystal (MD, phonons, clusters); finished steps are not repeated."""

    def go() -> None:
        from aims_pax.commands.training_set.workflow import training_set as made

        with traceback_to_file(Path("logs") / "traceback.log"):
            made(config, console())

    exit_on_error(go)


def select_command(
    pools: Annotated[list[Path], typer.Argument(metavar="POOL.xyz...", help="Structures, labelled or not.")],
    n: Annotated[int, typer.Option("-n", help="How many to choose.")],
    by: Annotated[
        str,
        typer.Option(
            help="random; diverse (far from one another); maxdet (largest determinant); spread (of several models); "
            "error (of a model, in a labelled pool); spread-diverse, spread-maxdet, error-diverse, error-maxdet."
        ),
    ] = "diverse",
    models: Annotated[
        list[Path] | None,
        typer.Option(
            "--model", help="A model file, repeatable, or the folder of a run: for features and spread."
        ),
    ] = None,
    already: Annotated[
        list[Path] | None,
        typer.Option(help="Structures that you have already: chosen ones differ from them. Repeatable."),
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The chosen structures; their origin: FILE.csv.")
    ] = Path("selected.xyz"),
    seed: Annotated[int, typer.Option(help="Of what is drawn at random.")] = 0,
    random_share: Annotated[
        float | None,
        typer.Option(
            help="Part that is drawn at random first, 0 to 1.",
            show_default="a third for diverse and maxdet without --already, else 0",
        ),
    ] = None,
    least_distance: Annotated[
        float, typer.Option(help="Chosen structures are at least so far apart, in the features.")
    ] = 0.0,
    plot: Annotated[Path | None, typer.Option(help="Picture of pool and selection, FILE.png.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    energy_key: Annotated[str, typer.Option(help="Name of the energy (eV) in the pool.")] = "REF_energy",
    forces_key: Annotated[str, typer.Option(help="Name of the forces (eV/Å).")] = "REF_forces",
    version: Version = False,
) -> None:
    """Choose structures of a pool: the most different, the least certain, or random ones; copied byte for byte."""

    def go() -> None:
        from aims_pax.commands.select import SelectOptions, select
        from aims_pax.labelled_data import LabelKeys

        keys = LabelKeys(energy_key, forces_key, option="--{}-key")
        options = SelectOptions(
            n, by, tuple(models or ()), tuple(already or ()), output, seed, random_share, least_distance, plot, device,
            keys,
        )  # fmt: skip
        with traceback_to_file(Path("logs") / "traceback.log"):
            select(pools, options, console())

    exit_on_error(go)


def gpr_command(
    config: Annotated[Path, typer.Argument(help="train.in as of ænet-gpr, or YAML with the same keys.")],
    version: Version = False,
) -> None:
    """Train and test a Gaussian process on labelled structures, and augment them with copies that it labels."""

    def go() -> None:
        from aims_pax.commands.gpr.workflow import gpr

        with traceback_to_file(Path("logs") / "traceback.log"):
            gpr(config, console())

    exit_on_error(go)


def neb_command(
    config: Annotated[Path, typer.Argument(help="Its own YAML file: two ends and a reference.")],
    version: Version = False,
) -> None:
    """Find a reaction path and its barrier on a Gaussian process, with few calls of the reference."""

    def go() -> None:
        from aims_pax.commands.surrogate.neb import neb

        with traceback_to_file(Path("logs") / "traceback.log"):
            neb(config, console())

    exit_on_error(go)


def relax_command(
    config: Annotated[Path, typer.Argument(help="Its own YAML file: a structure and a reference.")],
    version: Version = False,
) -> None:
    """Relax a structure on a Gaussian process, with few calls of the reference."""

    def go() -> None:
        from aims_pax.commands.surrogate.relax import relax_on_surrogate

        with traceback_to_file(Path("logs") / "traceback.log"):
            relax_on_surrogate(config, console())

    exit_on_error(go)


def md_command(
    config: Annotated[Path, typer.Argument(help="Its own YAML file: a structure, steps and a reference.")],
    version: Version = False,
) -> None:
    """Run MD on a Gaussian process that asks the reference where it is unsure."""

    def go() -> None:
        from aims_pax.commands.surrogate.uncertain_dynamics import surrogate_md

        with traceback_to_file(Path("logs") / "traceback.log"):
            surrogate_md(config, console())

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
    "test": errors_command,
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
