"""Draws the figures of the pages `index` and `concepts`: overview, loop, committee, threshold, crash.

python docs/images/make_concepts.py [FOLDER]
"""

import math
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from aims_pax.core.threshold import Threshold
from aims_pax.core.uncertainty import atomic_sd

BLUE, SKY, ORANGE, GREEN, RED = "#0072b2", "#a6d3ee", "#e69f00", "#009e73", "#d55e00"  # Okabe and Ito's
INK, MUTED, GREY = "#222222", "#5c6670", "#e3e7eb"

mpl.rcParams.update(
    {"font.family": "DejaVu Sans", "font.size": 10, "svg.hashsalt": "aims-PAX", "svg.fonttype": "path",
     "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": MUTED, "axes.linewidth": 0.8,
     "xtick.color": MUTED, "ytick.color": MUTED, "axes.labelcolor": INK}
)  # fmt: skip


def overview() -> Figure:
    """From a geometry to a model: the first structures, the loop, what is delivered."""
    figure, axes = _blank(7.6, 4.5, (0, 15.8), (0, 9))
    axes.add_patch(
        FancyBboxPatch((4.05, 0.35), 6.9, 7.4, "round,pad=0,rounding_size=0.3", fc="#f4f6f8", ec="none")
    )
    axes.text(7.5, 8.35, "active learning", ha="center", weight="bold", color=INK)
    axes.text(1.75, 8.35, "initial dataset", ha="center", weight="bold", color=INK)
    axes.text(13.95, 8.35, "convergence", ha="center", weight="bold", color=INK)
    _box(axes, 0.2, 5.2, 3.1, 1.9, "a cheap model\nmoves atoms", GREY)
    _box(axes, 0.2, 2.6, 3.1, 1.9, "the reference\nlabels; models\ntrain", GREY)
    _box(axes, 4.4, 5.3, 2.7, 1.9, "models move\nmany\ntrajectories", SKY)
    _box(axes, 7.9, 5.3, 2.7, 1.9, "do they\nagree?", SKY)
    _box(axes, 7.9, 1.0, 2.7, 1.9, "the reference\nlabels this\nframe", "#f6d48f")
    _box(axes, 4.4, 1.0, 2.7, 1.9, "models train\non it", "#a5d9c9")
    _box(axes, 12.4, 5.3, 3.1, 1.9, "the best model\ntrains on all\ndata", "#a5d9c9")
    _box(axes, 12.4, 2.7, 3.1, 1.9, "model, data,\nreport, card", GREY)
    _arrow(axes, (1.75, 5.15), (1.75, 4.55))
    _arrow(axes, (3.35, 4.1), (4.4, 5.4))
    _arrow(axes, (7.15, 6.0), (7.85, 6.0))
    _arrow(axes, (7.85, 6.65), (7.15, 6.65))
    axes.text(7.5, 6.85, "yes", ha="center", size=9, color=MUTED)
    _arrow(axes, (9.25, 5.25), (9.25, 2.95))
    axes.text(9.4, 4.1, "no", va="center", size=9, color=MUTED)
    _arrow(axes, (7.85, 1.95), (7.15, 1.95))
    _arrow(axes, (5.75, 2.95), (5.75, 5.25))
    _arrow(axes, (10.65, 6.25), (12.35, 6.25))
    axes.text(11.68, 6.45, "at a\nlimit", ha="center", size=9, color=MUTED)
    _arrow(axes, (13.95, 5.25), (13.95, 4.65))
    return figure


def loop() -> Figure:
    """Windows: trajectories collect candidates, the best are labelled while they move on, then the models learn."""
    figure, axes = _blank(7.6, 4.4, (-2.9, 14.2), (-3.1, 6.2))
    moves, learns = ((0.0, 3.4), (3.4, 6.8), (8.2, 11.6)), ((6.8, 8.2), (11.6, 13.0))
    seen = {  # candidates of each trajectory: time, and whether it is chosen
        0: ((0.9, 0), (2.4, 1), (5.1, 1), (9.4, 0), (10.9, 0)),
        1: ((1.7, 0), (4.2, 0), (6.1, 0), (9.0, 1)),
        2: ((0.5, 0), (1.3, 1), (2.9, 0), (5.7, 1), (10.3, 0)),
        3: ((3.0, 0), (4.7, 0), (8.8, 0), (10.6, 1)),
    }
    for k, candidates in seen.items():
        y = 4.4 - 1.1 * k
        axes.text(-0.25, y + 0.3, f"trajectory {k}", ha="right", va="center", color=INK)
        for begin, end in moves:
            axes.add_patch(Rectangle((begin, y), end - begin - 0.05, 0.6, fc=SKY, ec="none"))
        for begin, end in learns:
            axes.add_patch(Rectangle((begin, y), end - begin - 0.05, 0.6, fc=GREEN, ec="none"))
        for x, chosen in candidates:
            axes.plot(x, y + 0.3, "o", ms=7, mfc=ORANGE if chosen else "white", mec=ORANGE, mew=1.2)
    axes.plot([-2.8, 14.0], [0.65, 0.65], color=GREY, lw=1)
    for (label, y), calls in zip(
        (("worker A", -0.35), ("worker B", -1.25)),
        (((3.4, 2.6, 0), (8.2, 2.2, 0), (13.0, 1.0, 1)), ((3.4, 3.1, 2), (8.2, 2.9, 2), (13.0, 1.0, 3))),
        strict=True,
    ):
        axes.text(-0.25, y + 0.3, label, ha="right", va="center", color=INK)
        for x, length, k in calls:
            axes.add_patch(Rectangle((x, y), length - 0.05, 0.6, fc="#f6d48f", ec=ORANGE, lw=0.8))
            words = f"frame of {k}" if length > 2 else f"of {k}"
            axes.text(x + length / 2, y + 0.28, words, ha="center", va="center", size=8)
    axes.annotate("", (14.1, -1.75), (0, -1.75), arrowprops={"arrowstyle": "->", "color": MUTED, "lw": 0.8})
    axes.text(14.0, -2.25, "time", ha="right", color=MUTED, size=9)
    for x, colour, words in ((-2.6, SKY, "moves"), (9.4, GREEN, "models learn the labels")):
        axes.add_patch(Rectangle((x, 5.55), 0.45, 0.4, fc=colour, ec="none"))
        axes.text(x + 0.65, 5.73, words, va="center", size=9)
    for x, colour, words in ((0.4, "white", "uncertain frame"), (4.6, ORANGE, "chosen for labelling")):
        axes.plot(x, 5.75, "o", ms=7, mfc=colour, mec=ORANGE, mew=1.2)
        axes.text(x + 0.4, 5.73, words, va="center", size=9)
    return figure


def committee() -> Figure:
    """Four polynomials fitted to different shares of the same data: they part where there is none."""
    rng = np.random.default_rng(4)
    x = np.linspace(0.0, 10.0, 400)

    def truth(x: np.ndarray) -> np.ndarray:
        return 1.2 * np.exp(-((x - 3) ** 2) / 4) - np.exp(-((x - 7.2) ** 2) / 3) + 0.1 * x

    known = np.sort(np.concatenate([rng.uniform(0.4, 4.4, 22), rng.uniform(8.2, 9.8, 8)]))
    values = truth(known) + rng.normal(0, 0.02, known.shape)
    members = []
    for m in range(4):
        part = np.arange(len(known)) % 4 != m
        basis = np.polynomial.chebyshev.chebvander(known[part] / 5 - 1, 10)
        ridge = basis.T @ basis + 2e-3 * np.eye(11)
        weights = np.linalg.solve(ridge, basis.T @ values[part])
        members.append(np.polynomial.chebyshev.chebval(x / 5 - 1, weights))
    forces = np.repeat(np.array(members)[:, :, None], 3, axis=2)  # (M, points, 3) for atomic_sd
    sigma = atomic_sd(forces)
    figure, (top, below) = plt.subplots(2, 1, figsize=(7.0, 4.6), sharex=True, height_ratios=(2.2, 1))
    top.plot(x, truth(x), color=INK, lw=1.4, ls=(0, (4, 2)), label="reference")
    for m, values_m in enumerate(members):
        top.plot(
            x, values_m, color=BLUE, lw=1.1, alpha=0.8, label="members of the committee" if m == 0 else None
        )
    top.plot(known, values, "o", color=ORANGE, ms=4, label="labels")
    top.set(ylim=(-0.9, 1.9), yticks=[], ylabel="force")
    top.legend(frameon=False, loc="upper right", fontsize=9)
    below.fill_between(x, sigma, color=SKY, lw=0)
    below.plot(x, sigma, color=BLUE, lw=1.2)
    below.axhline(0.09, color=RED, lw=1.2, ls=(0, (4, 2)))
    below.text(2.0, 0.105, "threshold", color=RED, size=9)
    middle = float(x[np.argmax(np.where((x > 4) & (x < 8.5), sigma, 0))])
    below.annotate("label here", (middle, 0.18), (3.4, 0.24), color=INK, size=9, va="center",
                   arrowprops={"arrowstyle": "->", "color": MUTED})  # fmt: skip
    below.set(ylim=(0, 0.3), xlim=(0, 10), yticks=[], xticks=[], ylabel="spread σ", xlabel="structure")
    figure.tight_layout()
    return figure


def threshold() -> Figure:
    """Uncertainties that fall as the models learn, and the threshold for three values of c_x."""
    rng = np.random.default_rng(2)
    n = 260
    level = 0.05 + 0.16 * np.exp(-np.arange(n) / 70)
    spread = level * np.exp(rng.normal(0, 0.3, n))
    lines = {c_x: np.empty(n) for c_x in (0.2, 0.0, -0.2)}
    for c_x, line in lines.items():
        history = Threshold()
        for k, value in enumerate(spread):
            history = history.seen((float(value),))
            line[k] = history.value(c_x)
    figure, axes = plt.subplots(figsize=(7.0, 3.6))
    axes.plot(spread, color=SKY, lw=1.1)
    ask = spread > lines[0.0]
    axes.plot(np.flatnonzero(ask), spread[ask], "o", color=ORANGE, ms=3.6)
    for (c_x, line), style in zip(lines.items(), ((0, (1, 1.5)), (0, (5, 2)), (0, (1, 1.5))), strict=True):
        shown = np.where(np.isfinite(line), line, math.nan)
        axes.plot(shown, color=RED, lw=1.5 if c_x == 0 else 1.1, ls=style)
        axes.text(n + 2, shown[-1], f"c_x = {c_x:g}", color=RED, size=9, va="center")
    axes.axvspan(-3, 9, color=GREY, lw=0)
    axes.text(11, 0.375, "first 10: no threshold yet", size=9, color=MUTED, va="center")
    axes.text(120, 0.25, "dots: sent to the reference (c_x = 0)", size=9, color="#a86f00")
    axes.set(
        xlim=(-3, n + 32),
        ylim=(0, 0.4),
        xlabel="checks of the uncertainty",
        ylabel="largest σ of an atom (eV/Å)",
    )
    figure.tight_layout()
    return figure


def crash() -> Figure:
    """What is there after a crash: labels, snapshots, running calculations; what is repeated."""
    figure, axes = _blank(7.6, 3.9, (-3.2, 13.2), (-1.5, 6.6))
    stop, again = 7.3, 8.7
    axes.add_patch(Rectangle((stop, -0.4), again - stop, 6.2, fc="#f7e3d9", ec="none"))
    axes.text((stop + again) / 2, 6.05, "crash", ha="center", color=RED, weight="bold")
    axes.text(again + 0.1, 6.05, "same command", color=INK, size=9)
    rows = (
        (4.8, "MD and\ntraining"),
        (3.4, "snapshots"),
        (2.0, "calculations\non the nodes"),
        (0.4, "labels\non the disk"),
    )
    for y, words in rows:
        axes.text(-0.35, y + 0.3, words, ha="right", va="center", color=INK)
    axes.add_patch(Rectangle((0, 4.8), 6.0, 0.6, fc=BLUE, ec="none"))
    axes.add_patch(Rectangle((6.0, 4.8), stop - 6.0, 0.6, fc="white", ec=RED, lw=1.1, hatch="////"))
    axes.add_patch(Rectangle((again, 4.8), 4.2, 0.6, fc=BLUE, ec="none"))
    axes.annotate("repeated, from\nthe last snapshot", (6.65, 5.45), (4.4, 6.05), size=8.5, color=RED, ha="center",
                  va="center", arrowprops={"arrowstyle": "-", "color": RED, "lw": 0.8})  # fmt: skip
    for x in (1.5, 3.0, 6.0, 10.0, 11.6):
        axes.plot([x], [3.7], marker="D", color=INK, ms=6)
    bars = ((0.6, 2.3, 2.3), (2.6, 2.1, 1.65), (5.0, 4.6, 2.3), (10.4, 2.0, 1.65))
    for x, length, y in bars:
        axes.add_patch(Rectangle((x, y), length, 0.5, fc="#f6d48f", ec=ORANGE, lw=0.9))
        axes.plot([x + length] * 2, [y, 0.7], color=ORANGE, lw=0.8, ls=(0, (2, 2)))
        axes.plot([x + length], [0.7], "o", color=GREEN, ms=8)
    axes.text(7.3, 2.55, "continues, stores its label", size=8, va="center", ha="center")
    axes.plot([0, 13], [0.7, 0.7], color=GREEN, lw=1.0, zorder=0)
    axes.annotate("", (13.1, -0.7), (0, -0.7), arrowprops={"arrowstyle": "->", "color": MUTED, "lw": 0.8})
    axes.text(13.0, -1.25, "time", ha="right", color=MUTED, size=9)
    return figure


def _blank(
    width: float, height: float, x: tuple[float, float], y: tuple[float, float]
) -> tuple[Figure, Axes]:
    figure, axes = plt.subplots(figsize=(width, height))
    axes.set(xlim=x, ylim=y)
    axes.axis("off")
    return figure, axes


def _box(axes: Axes, x: float, y: float, width: float, height: float, words: str, colour: str) -> None:
    axes.add_patch(
        FancyBboxPatch((x, y), width, height, "round,pad=0,rounding_size=0.25", fc=colour, ec="none")
    )
    axes.text(
        x + width / 2, y + height / 2, words, ha="center", va="center", color=INK, size=9.5, linespacing=1.25
    )


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    arrow = {"arrowstyle": "-|>", "color": INK, "lw": 1.2, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", end, start, arrowprops=arrow)


FIGURES = {f.__name__: f for f in (overview, loop, committee, threshold, crash)}

if __name__ == "__main__":
    folder = Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent
    for name, draw in FIGURES.items():
        figure = draw()
        figure.savefig(folder / f"{name}.svg", bbox_inches="tight", pad_inches=0.1, metadata={"Date": None})
        plt.close(figure)
