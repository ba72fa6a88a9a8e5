"""Draws cluster.svg: how blocks, jobs_per_block, job_time_limit and the walltime of a block relate.

python docs/images/make_cluster.py [FILE]
"""

import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

DARK, PALE, GREY, RED, INK = "#3b6ea5", "#a9c4e0", "#eceff2", "#c0564b", "#222222"
WALLTIME, LIMIT, RESERVE = 12.0, 2.0, 0.4  # hours; the reserve is drawn larger than it is
DRAIN = WALLTIME - LIMIT - RESERVE
HEIGHT, GAP = 0.5, 0.12

mpl.rcParams.update(
    {"font.family": "DejaVu Sans", "font.size": 9, "svg.hashsalt": "aims-PAX", "svg.fonttype": "path"}
)


def main(file: Path) -> None:
    figure, axes = plt.subplots(figsize=(9.0, 4.4))
    axes.add_patch(Rectangle((0, 5.8), WALLTIME, 0.55, fc=GREY, ec="none"))
    axes.text(0.15, 6.08, "driver", weight="bold", va="center", color=INK)
    axes.text(
        1.3, 6.08, "trains, moves atoms, decides; asks Slurm for blocks while there is work", va="center"
    )

    axes.text(0, 5.2, "block 1: a Slurm job", weight="bold", color=INK)
    rows = ([1.3, 0.9, 1.6, 1.2, 1.1, 1.4, 1.3, 1.5], [0.8, 1.5, 1.2, 1.9, 0.9, 1.5, 1.3])
    block(axes, 0.0, WALLTIME, 3.75, rows)
    axes.text(0.35 + 0.65, 3.75 + GAP * 2 + HEIGHT * 1.5, "srun\naims.x", ha="center", va="center", size=7)
    axes.text(-0.12, 4.43, "jobs_per_block: 2", rotation=90, ha="right", va="center", size=7)
    limits(axes, 3.75)

    axes.text(3.0, 1.8, "block 2: more work was waiting", weight="bold", color=INK)
    block(axes, 3.0, 9.0, 0.35, ([1.4, 1.1, 1.5], [1.2, 1.6]))
    axes.annotate(
        "no work for 2 min: given back", (9.03, 1.03), (9.6, 1.03), va="center", size=8, arrowprops={"arrowstyle": "->"}
    )  # fmt: skip
    axes.annotate("", (0, -0.1), (14.3, -0.1), arrowprops={"arrowstyle": "<-", "color": INK, "lw": 0.8})
    axes.text(14.3, -0.2, "time", ha="right", va="top", size=8)
    axes.set(xlim=(-0.7, 14.4), ylim=(-0.6, 6.45))
    axes.axis("off")
    metadata = {} if file.suffix == ".png" else {"Date": None}
    figure.savefig(file, bbox_inches="tight", pad_inches=0.08, dpi=110, metadata=metadata)


def block(axes: Axes, start: float, stop: float, bottom: float, rows: tuple[list[float], ...]) -> None:
    """A block with a row for each job at a time; a bar is a calculation."""
    top = bottom + len(rows) * (HEIGHT + GAP) + GAP
    axes.add_patch(Rectangle((start, bottom), stop - start, top - bottom, fc="white", ec=INK, lw=1.0))
    for row, lengths in enumerate(rows):
        x, y = start + 0.35, top - (row + 1) * (HEIGHT + GAP)
        for n, length in enumerate(lengths):
            axes.add_patch(Rectangle((x, y), length - 0.06, HEIGHT, fc=DARK if n % 2 else PALE, ec="none"))
            x += length


def limits(axes: Axes, bottom: float) -> None:
    """When the first block takes work, and what that follows from."""
    top = bottom + 2 * (HEIGHT + GAP) + GAP
    axes.add_patch(Rectangle((DRAIN, bottom), LIMIT, top - bottom, fc=RED, alpha=0.10, ec="none"))
    axes.add_patch(Rectangle((DRAIN + LIMIT, bottom), RESERVE, top - bottom, fc=RED, alpha=0.35, ec="none"))
    axes.plot([DRAIN] * 2, [bottom - 0.45, top + 0.1], color=RED, lw=1.4)
    axes.text(DRAIN, top + 0.15, "takes no new work from here on", ha="center", size=8, color=RED)
    axes.annotate(
        "reserve: a tenth of the\nwalltime, 2 min at most",
        (WALLTIME - RESERVE / 2, bottom + 0.4), (12.35, bottom + 0.4),
        va="center", size=8, arrowprops={"arrowstyle": "-", "lw": 0.7},
    )  # fmt: skip
    for left, right, y, words in (
        (0.0, DRAIN, bottom - 0.25, "takes work"),
        (DRAIN, DRAIN + LIMIT, bottom - 0.25, "job_time_limit"),
        (0.0, WALLTIME, bottom - 0.85, "walltime: --time in slurm_str"),
    ):
        arrow = {"arrowstyle": "<->", "color": INK, "lw": 0.9, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", (left, y), (right, y), arrowprops=arrow)
        axes.text((left + right) / 2, y - 0.08, words, ha="center", va="top", size=8)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).with_name("cluster.svg"))
