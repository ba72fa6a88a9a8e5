"""Draws architecture.svg: the rooms of the package, each above those that it may import.

python docs/images/make_architecture.py [FILE]
"""

import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

SKY, SAND, MINT, GREY = "#d7ebf7", "#fbe9c6", "#d3ece4", "#eceff2"
INK, MUTED = "#222222", "#5c6670"
WIDTH, LEFT, HEIGHT, GAP = 15.8, 0.9, 1.12, 0.22

ROWS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (  # (colour, ((room, what lives there), …))
    (SKY, (("cli", "command line: commands, options, exit codes"),)),
    (SKY, (("commands", "one module for each command: run, check, plan, status, export, recalc, sample …"),)),
    (SAND, (("stages", "initial dataset, active learning, convergence, labelling a list"),)),
    (SAND, (("engine", "the event loop that drives every stage; signals, walltime, pauses"),)),
    (
        SAND,
        (("parallel", "training and MD in processes"), ("potentials", "a potential from what a user wrote")),
    ),
    (
        MINT,
        (
            ("labelling", "references, executors,\nlabel store"),
            ("samplers", "sources of structures,\nand filters"),
            ("report", "record of a run, figures,\nHTML page, live view"),
        ),
    ),
    (
        MINT,
        (
            ("models", "kinds of models; MACE: training, inference"),
            ("md", "integrators, thermostats, barostats"),
        ),
    ),
    (MINT, (("record", "run folder, atomic files, checkpoints, journal, lock"),)),
    (GREY, (("core", "what should happen next: pure functions, no files, no clock, no torch"),)),
    (GREY, (("settings", "one declaration for each key; reading, checks, messages, schema"),)),
    (GREY, (("schedulers", "Slurm, Grid Engine, PBS Pro, LSF: commands and job scripts; usable cores"),)),
    (
        GREY,
        (
            (
                "single files",
                "frames, systems, dataset, potential, given_data, labelled_data, structure_files, errors …",
            ),
        ),
    ),
)
GROUPS = {SKY: "user\ninterface", SAND: "course of\na run", MINT: "tools", GREY: "rules and\nvalues"}


def main(file: Path) -> None:
    mpl.rcParams.update(
        {"font.family": "DejaVu Sans", "svg.hashsalt": "aims-PAX", "svg.fonttype": "path", "font.size": 10}
    )
    height = sum(_height(rooms) + GAP for _, rooms in ROWS)
    figure, axes = plt.subplots(figsize=(8.2, 8.2 * height / (WIDTH + 1.6)))
    axes.set(xlim=(-1.6, WIDTH), ylim=(-0.1, height))
    axes.axis("off")
    y, spans = height, {}
    for colour, rooms in ROWS:
        y -= _height(rooms)
        top, _ = spans.get(colour, (y + _height(rooms), y))
        spans[colour] = (top, y)
        _row(axes, y, colour, rooms)
        y -= GAP
    for colour, (top, bottom) in spans.items():
        axes.text(-0.35, (top + bottom) / 2, GROUPS[colour], ha="right", va="center", size=9, color=MUTED)
    arrow = {"arrowstyle": "-|>", "color": MUTED, "lw": 1.2}
    axes.annotate("", (0.3, 0.1), (0.3, height - 0.1), arrowprops=arrow)
    axes.text(0.42, height / 2, "imports", rotation=90, ha="left", va="center", size=9, color=MUTED)
    figure.savefig(
        file, bbox_inches="tight", pad_inches=0.1, metadata={"Date": None} if file.suffix == ".svg" else None
    )
    plt.close(figure)


def _height(rooms: tuple[tuple[str, str], ...]) -> float:
    return HEIGHT + 0.42 * max(words.count("\n") for _, words in rooms)


def _row(axes: Axes, y: float, colour: str, rooms: tuple[tuple[str, str], ...]) -> None:
    width = (WIDTH - LEFT - GAP * (len(rooms) - 1)) / len(rooms)
    for k, (name, words) in enumerate(rooms):
        x = LEFT + k * (width + GAP)
        axes.add_patch(
            FancyBboxPatch(
                (x, y), width, _height(rooms), "round,pad=0,rounding_size=0.2", fc=colour, ec="none"
            )
        )
        axes.text(x + 0.25, y + _height(rooms) - 0.36, name, weight="bold", va="center", color=INK)
        axes.text(x + 0.25, y + _height(rooms) - 0.6, words, va="top", size=8.5, color=INK, linespacing=1.3)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("architecture.svg"))
