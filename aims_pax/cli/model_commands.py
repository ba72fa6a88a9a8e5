"""`aims-PAX test` and `export`: what they do with models that exist already."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aims_pax.cli.exit_codes import TRACEBACK, exit_on_error, traceback_to_file
from aims_pax.cli.options import HERE, MACE, PROJECT, MaceFile, ProjectFile, Version, settings_files
from aims_pax.cli.run_command import console
from aims_pax.errors import SettingsError


def model_test_command(
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
        with traceback_to_file(TRACEBACK):
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

        with traceback_to_file(TRACEBACK):
            exported(HERE, models or [], form, output, console())

    exit_on_error(go)
