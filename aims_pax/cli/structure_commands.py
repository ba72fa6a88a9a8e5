"""Commands that make or choose structures, or search with a surrogate, without a run: each has a file of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aims_pax.cli.exit_codes import TRACEBACK, exit_on_error, traceback_to_file
from aims_pax.cli.options import Version
from aims_pax.cli.run_command import console


def sample_command(
    config: Annotated[Path, typer.Argument(help="Its own YAML file; example/sample/config.yaml is one.")],
    version: Version = False,
) -> None:
    """Make structures with MD, rattled trees, phonons, alone or mixed; the same command continues after a stop."""

    def go() -> None:
        from aims_pax.commands.sample import sample as sampled

        with traceback_to_file(TRACEBACK):
            sampled(config, console())

    exit_on_error(go)


def augment_command(
    config: Annotated[Path, typer.Argument(help="Its own YAML file; example/augment/config.yaml is one.")],
    version: Version = False,
) -> None:
    """Make families of rattled structures from a file; the same command continues after a stop."""

    def go() -> None:
        from aims_pax.commands.augment import augment as augmented

        with traceback_to_file(TRACEBACK):
            augmented(config, console())

    exit_on_error(go)


def training_set_command(
    config: Annotated[Path, typer.Argument(help="Its own YAML file; example/crystal/config.yaml is one.")],
    version: Version = False,
) -> None:
    """Make training structures of a molecular crystal (MD, phonons, clusters); finished steps are not repeated."""

    def go() -> None:
        from aims_pax.commands.training_set.workflow import training_set as made

        with traceback_to_file(TRACEBACK):
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
        with traceback_to_file(TRACEBACK):
            select(pools, options, console())

    exit_on_error(go)


def gpr_command(
    config: Annotated[Path, typer.Argument(help="train.in as of ænet-gpr, or YAML with the same keys.")],
    version: Version = False,
) -> None:
    """Train and test a Gaussian process on labelled structures, and augment them with copies that it labels."""

    def go() -> None:
        from aims_pax.commands.gpr.workflow import gpr

        with traceback_to_file(TRACEBACK):
            gpr(config, console())

    exit_on_error(go)


def neb_command(
    config: Annotated[Path, typer.Argument(help="Its own YAML file: two ends and a reference.")],
    version: Version = False,
) -> None:
    """Find a reaction path and its barrier on a Gaussian process, with few calls of the reference."""

    def go() -> None:
        from aims_pax.commands.surrogate.neb import neb

        with traceback_to_file(TRACEBACK):
            neb(config, console())

    exit_on_error(go)


def relax_command(
    config: Annotated[Path, typer.Argument(help="Its own YAML file: a structure and a reference.")],
    version: Version = False,
) -> None:
    """Relax a structure on a Gaussian process, with few calls of the reference."""

    def go() -> None:
        from aims_pax.commands.surrogate.relax import relax_on_surrogate

        with traceback_to_file(TRACEBACK):
            relax_on_surrogate(config, console())

    exit_on_error(go)


def md_command(
    config: Annotated[Path, typer.Argument(help="Its own YAML file: a structure, steps and a reference.")],
    version: Version = False,
) -> None:
    """Run MD on a Gaussian process that asks the reference where it is unsure."""

    def go() -> None:
        from aims_pax.commands.surrogate.uncertain_dynamics import surrogate_md

        with traceback_to_file(TRACEBACK):
            surrogate_md(config, console())

    exit_on_error(go)
