"""`aims-PAX diffusion train | sample | inspect`: options by the names of the published tool AGeDi."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from aims_pax.cli.exit_codes import TRACEBACK, exit_on_error, traceback_to_file
from aims_pax.cli.options import Version
from aims_pax.cli.run_command import console
from aims_pax.errors import SettingsError

diffusion_app = typer.Typer(
    help="Learn the distribution of structures with a diffusion model, and sample new ones.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Run = Annotated[Path, typer.Argument(help="Folder of the model, such as logs/version_0.")]
Walls = Annotated[
    tuple[float, float] | None,
    typer.Option(metavar="LOWEST HIGHEST", help="z (Å) between which atoms that are not fixed lie."),
]


@diffusion_app.command("train")
def diffusion_train(
    data: Annotated[Path, typer.Argument(help="Structures: extended XYZ, or a trajectory of ASE.")],
    config: Annotated[Path | None, typer.Argument(help="YAML file with the same keys.")] = None,
    noisers: Annotated[
        list[str] | None,
        typer.Option("-n", "--noisers", help="Positions, CellPositions, ConfinedCellPositions, Types."),
    ] = None,
    sde: Annotated[str | None, typer.Option(help="ve or vp.")] = None,
    cutoff: Annotated[float | None, typer.Option("-r", "--cutoff", help="Neighbours in a cell (Å).")] = None,
    feature_size: Annotated[
        int | None, typer.Option("-f", "--feature-size", "--feature_size", help="Width.")
    ] = None,
    n_blocks: Annotated[int | None, typer.Option("--n-blocks", "--n_blocks", help="Layers.")] = None,
    conditioning: Annotated[
        str | None, typer.Option("-c", "--conditioning", help="Name of a property.")
    ] = None,
    conditioning_type: Annotated[
        str | None, typer.Option("--conditioning-type", "--conditioning_type", help="scalar or integer.")
    ] = None,
    n_classes: Annotated[
        int | None, typer.Option("--n-classes", "--n_classes", help="Of an integer property.")
    ] = None,
    confinement: Walls = None,
    mask: Annotated[str | None, typer.Option(help="MaskFixed or none.")] = None,
    repeat: Annotated[int | None, typer.Option(help="Train on up to r × r × 1 copies.")] = None,
    repeat_epoch: Annotated[
        int | None, typer.Option("--repeat-epoch", "--repeat_epoch", help="Epochs of each stage of --repeat.")
    ] = None,
    canonical_cell: Annotated[
        bool | None,
        typer.Option("--canonical-cell", "--canonical_cell", help="Rotate cells to standard form."),
    ] = None,
    epochs: Annotated[int | None, typer.Option("-e", "--epochs", help="-1: until the time is over.")] = None,
    max_steps: Annotated[
        int | None, typer.Option("--max-steps", "--max_steps", help="Training steps; 0: no limit.")
    ] = None,
    max_time_minutes: Annotated[
        float | None,
        typer.Option("-t", "--max-time-minutes", "--max_time_minutes", help="Default 5; 0: no limit."),
    ] = None,
    max_time: Annotated[
        float | None, typer.Option("-T", "--max-time", "--max_time", help="Hours, added.")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    lr_schedule: Annotated[
        str | None, typer.Option("--lr-schedule", "--lr_schedule", help="cosine or plateau.")
    ] = None,
    lr_patience: Annotated[
        int | None, typer.Option("--lr-patience", "--lr_patience", help="Of plateau.")
    ] = None,
    lr_factor: Annotated[float | None, typer.Option("--lr-factor", "--lr_factor", help="Of plateau.")] = None,
    batch_size: Annotated[
        int | None, typer.Option("-b", "--batch-size", "--batch_size", help="Structures.")
    ] = None,
    gradient_clip_val: Annotated[
        float | None, typer.Option("--gradient-clip-val", "--gradient_clip_val", help="Largest norm.")
    ] = None,
    ema_decay: Annotated[
        float | None, typer.Option("--ema-decay", "--ema_decay", help="Of the weights.")
    ] = None,
    val_split: Annotated[
        float | None, typer.Option("--val-split", "--val_split", help="Fraction held out.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed for all random numbers.")] = None,
    allow_small: Annotated[
        bool | None,
        typer.Option("--allow-small", "--allow_small", help="Train on fewer than 100 structures."),
    ] = None,
    log_dir: Annotated[str | None, typer.Option("--log-dir", "--log_dir", help="Default logs.")] = None,
    log_interval: Annotated[
        int | None, typer.Option("--log-interval", "--log_interval", help="Epochs between two lines.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Folder of a training to continue, with its settings.")
    ] = None,
    version: Version = False,
) -> None:
    """Train a diffusion model on a file of structures; writes logs/version_x."""
    given = dict(locals())
    for name in ("data", "config", "checkpoint", "version"):
        given.pop(name)
    given["noisers"] = noisers or None

    def go() -> None:
        from aims_pax.settings.diffusion import read_diffusion

        begun = None
        if checkpoint is not None:
            from aims_pax.models.diffusion.model_files import read_hparams

            if log_dir is not None:
                raise SettingsError("log_dir: has no effect with checkpoint, the folder that is continued")
            begun = read_hparams(checkpoint).settings
        settings = read_diffusion(config, given, begun)
        from aims_pax.commands.diffusion import train_command

        with traceback_to_file(TRACEBACK):
            train_command(data, settings, checkpoint, console())

    exit_on_error(go)


@diffusion_app.command("sample")
def diffusion_sample(
    run: Run,
    n_samples: Annotated[
        int, typer.Option("-n", "--n-samples", "--n_samples", min=1, help="Structures.")
    ] = 12,
    seed: Annotated[int, typer.Option("-s", "--seed", help="Seed for all random numbers.")] = 42,
    formula: Annotated[
        str | None, typer.Option("-f", "--formula", help="Of the generated atoms: Pd2O2.")
    ] = None,
    n_atoms: Annotated[
        int | None,
        typer.Option("-a", "--n-atoms", "--n_atoms", help="Their number, if elements are generated."),
    ] = None,
    template: Annotated[
        Path | None,
        typer.Option(
            "-t", "--template", "--template-path", "--template_path", help="Structure of the fixed atoms."
        ),
    ] = None,
    positions: Annotated[
        Path | None, typer.Option(help="Structure with the positions, if only elements are generated.")
    ] = None,
    cell: Annotated[
        str | None, typer.Option("-c", "--cell", help='Nine numbers (Å): "4 0 0 0 4 0 0 0 20".')
    ] = None,
    non_periodic: Annotated[
        bool, typer.Option("--non-periodic", "--non_periodic", help="No periodicity.")
    ] = False,
    confinement: Walls = None,
    properties: Annotated[
        list[str] | None, typer.Option("-p", "--property", help="name=value, of a conditioned model.")
    ] = None,
    guidance: Annotated[
        float, typer.Option(help="Strength of the steering beyond the condition itself.")
    ] = 0.0,
    sampler: Annotated[str, typer.Option(help="heun, heun_ode, ddim, em or pc.")] = "heun",
    steps: Annotated[int, typer.Option(min=2, help="Noise levels.")] = 40,
    eps: Annotated[
        float | None, typer.Option(help="Last noise level (Å); default: that of training.")
    ] = None,
    batch_size: Annotated[
        int, typer.Option("-b", "--batch-size", "--batch_size", min=1, help="At once.")
    ] = 64,
    relax: Annotated[int, typer.Option(min=0, help="Steps downhill with --potential.")] = 0,
    potential: Annotated[
        str | None, typer.Option(help="A model file, a foundation model, or module:callable of a calculator.")
    ] = None,
    max_force: Annotated[
        float | None, typer.Option("--max-force", "--max_force", help="Largest force (eV/Å) of --potential.")
    ] = None,
    ff_guidance: Annotated[
        float,
        typer.Option("--ff-guidance", "--ff_guidance", help="Forces of --potential in the score (1/eV)."),
    ] = 0.0,
    ff_zeta: Annotated[
        float, typer.Option("--ff-zeta", "--ff_zeta", help="Exponent of their schedule.")
    ] = 3.0,
    retries: Annotated[
        int, typer.Option(min=0, help="New attempts for a refused structure, on average.")
    ] = 5,
    checkpoint: Annotated[str, typer.Option(help="Its name in checkpoints/.")] = "last_model.ckpt",
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the file.")] = Path(),
    name: Annotated[str, typer.Option(help="Name of the file, NAME.xyz.")] = "sampled",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")] = False,
    version: Version = False,
) -> None:
    """Sample structures from a model; each passes the guard, and what was refused is counted."""

    def go() -> None:
        from aims_pax.commands.diffusion import SampleRequest, sample_command_of

        request = SampleRequest(
            n=n_samples, seed=seed, n_atoms=n_atoms, formula=formula, cell=_nine(cell),
            non_periodic=non_periodic, positions=positions, template=template,
            confinement=confinement, properties=tuple(_property(p) for p in properties or ()), guidance=guidance,
            sampler=sampler, steps=steps, eps=eps, batch_size=batch_size, relax=relax, max_force=max_force,
            potential=potential, ff_guidance=ff_guidance, ff_zeta=ff_zeta, retries=retries, checkpoint=checkpoint,
            output=output / f"{name.removesuffix('.xyz')}.xyz", overwrite=overwrite,
        )  # fmt: skip
        with traceback_to_file(TRACEBACK):
            sample_command_of(run, request, console())

    exit_on_error(go)


@diffusion_app.command("inspect")
def diffusion_inspect(
    run: Run,
    n_samples: Annotated[
        int, typer.Option("-n", "--n-samples", "--n_samples", min=0, help="To compare.")
    ] = 64,
    seed: Annotated[int, typer.Option("-s", "--seed", help="Of these samples.")] = 42,
    steps: Annotated[int, typer.Option(min=2, help="Noise levels.")] = 40,
    potential: Annotated[
        str | None, typer.Option(help="Of the energies: a model, a foundation model, or module:callable.")
    ] = None,
    version: Version = False,
) -> None:
    """Show what a model learnt: losses, distances and energies of samples, memorised fraction; a page with figures."""

    def go() -> None:
        from aims_pax.commands.diffusion_inspect import inspect_command

        with traceback_to_file(TRACEBACK):
            inspect_command(run, n_samples, seed, steps, potential, console())

    exit_on_error(go)


def _property(text: str) -> tuple[str, float]:
    name, equals, value = text.partition("=")
    try:
        if not (name and equals):
            raise ValueError
        return name.strip(), float(value)
    except ValueError:
        raise SettingsError(f"--property {text}: expected name=value, for example energy=-3.5") from None


def _nine(text: str | None) -> list[float] | None:
    if text is None:
        return None
    words: Any = text.replace(",", " ").split()
    try:
        numbers = [float(w) for w in words]
    except ValueError:
        numbers = []
    if len(numbers) != 9:
        raise SettingsError(
            f"--cell {text!r}: expected nine numbers, the three vectors one after the other (Å)"
        )
    return numbers
