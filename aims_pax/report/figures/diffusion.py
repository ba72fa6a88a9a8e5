"""Figures of a diffusion model: losses, distances and energies of samples against the data, pictures of structures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase.data import covalent_radii
from ase.data.colors import jmol_colors
from matplotlib.patches import Circle

from aims_pax.frames import Frame
from aims_pax.report.figures.style import BLUE, INK, ORANGE, Panel, drawing, panel

SHOWN, COLUMNS, GAP = 8, 4, 1.0  # structures in the picture, in a row, Å between them
LEGEND = ((BLUE, "training data"), (ORANGE, "samples"))


def loss_panel(history: Sequence[tuple[int, float, float]], png: bool = False) -> Panel:
    """Training and held-out loss against epochs. history: (epoch, loss, held-out loss or NaN)."""
    rows = np.array(history, float).reshape(-1, 3)
    with drawing() as (figure, axes):
        axes.plot(rows[:, 0], rows[:, 1], color=BLUE)
        seen = np.isfinite(rows[:, 2])
        axes.plot(rows[seen, 0], rows[seen, 2], color=ORANGE, marker="o", markersize=3)
        axes.set_xlabel("epoch")
        legend = ((BLUE, "training, mean of the epoch"), (ORANGE, "held out, averaged weights"))
        table = {"epoch": rows[:, 0], "loss": rows[:, 1], "held_out": rows[:, 2]}
        return panel(figure, "losses", "Loss", legend, table=table, png=png)


def histogram_panel(
    name: str, title: str, label: str, data: Any, samples: Any, note: str = "", png: bool = False
) -> Panel:
    """Two densities in one figure. data, samples: numbers."""
    both = np.concatenate([np.ravel(data), np.ravel(samples)])
    low, high = np.quantile(both, [0.002, 0.998])
    edges = np.linspace(low, high if high > low else low + 1, 80)
    with drawing() as (figure, axes):
        heights = []
        for values, colour in ((data, BLUE), (samples, ORANGE)):
            height, _ = np.histogram(np.ravel(values), edges, density=True)
            axes.stairs(height, edges, color=colour, linewidth=1.4)
            heights.append(height)
        axes.set_xlabel(label)
        axes.set_yticklabels([])
        axes.set_ylim(bottom=0)
        table = {"from": edges[:-1], "data": heights[0], "samples": heights[1]}
        return panel(figure, name, title, LEGEND, note, table=table, png=png)


def picture_panel(frames: Sequence[Frame], name: str, title: str, png: bool = False) -> Panel:
    """Structures in a grid: from above for slabs and crystals, along the shortest extent for others."""
    drawings = [_discs(frame) for frame in frames[:SHOWN]]
    size = np.max([high - low for *_, low, high in drawings], axis=0) + GAP
    rows = -(-len(drawings) // COLUMNS)
    height = 0.6 + 4.4 * rows * float(size[1]) / (COLUMNS * float(size[0]))
    with drawing(height=min(height, 6.0), width=5.0) as (figure, axes):
        axes.set_position((0.01, 0.01, 0.98, 0.98))
        axes.grid(False)
        axes.set_axis_off()
        for k, (discs, corners, low, high) in enumerate(drawings):
            middle = np.array([k % COLUMNS + 0.5, -(k // COLUMNS) - 0.5]) * size
            move = middle - 0.5 * (low + high)
            if corners is not None:
                axes.plot(*(corners + move).T, color=INK, linewidth=0.5)
            for at, radius, colour, held in discs:
                disc = Circle(
                    tuple(at + move), radius, facecolor=colour, edgecolor=INK, linewidth=0.5,
                    alpha=0.4 if held else 1.0,
                )  # fmt: skip
                axes.add_patch(disc)
        axes.set_xlim(0, COLUMNS * size[0])
        axes.set_ylim(-rows * size[1], 0)
        axes.set_aspect("equal")
        return panel(figure, name, title, png=png)


def _discs(frame: Frame) -> tuple[list[Any], Any, Any, Any]:
    """([(place, radius, colour, fixed)] from back to front, corners of the cell or None, low, high), in Å."""
    flat, depth, cell = _projected(frame)
    radii = 0.85 * covalent_radii[frame.numbers]
    low, high = (flat - radii[:, None]).min(0), (flat + radii[:, None]).max(0)
    corners = None
    if cell is not None:
        corners = np.array([[0, 0], cell[0], cell[0] + cell[1], cell[1], [0, 0]])
        low, high = np.minimum(low, corners.min(0)), np.maximum(high, corners.max(0))
    fixed = np.zeros((len(frame), 3), bool) if frame.fixed is None else frame.fixed
    discs = [
        (flat[k], radii[k], jmol_colors[frame.numbers[k]], bool(fixed[k].all())) for k in np.argsort(depth)
    ]
    return discs, corners, low, high


def _projected(frame: Frame) -> tuple[Any, Any, Any]:
    """(N, 2) Å, depth (N,), and the first two cell vectors in the plane, or None."""
    if frame.pbc.any():
        return frame.positions[:, :2], frame.positions[:, 2], frame.cell[:2, :2]
    relative = frame.positions - frame.positions.mean(0)
    _, _, axes = np.linalg.svd(relative, full_matrices=True)
    turned = relative @ axes.T
    return turned[:, :2], turned[:, 2], None
