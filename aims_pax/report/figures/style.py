"""The style of figures: few colours that colour-blind people can distinguish (after Okabe & Ito), thin lines, units.

A figure is drawn once with the colours of the light theme; in the page's SVG they become CSS variables, so that the
figure follows the reader's light or dark theme. Text stays text, in the page's own font.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

INK, MUTED, GRID, PAPER = "#1f2329", "#66707b", "#dde1e6", "#fffffe"
BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY = (
    "#0072b2",
    "#c98500",
    "#008f68",
    "#cc5500",
    "#a8518c",
    "#3f9fd8",
)
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, VERMILLION, SKY)
NAMES = {  # light colour → CSS variable of the page
    INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper", BLUE: "blue", ORANGE: "orange", GREEN: "green",
    VERMILLION: "vermillion", PURPLE: "purple", SKY: "sky",
}  # fmt: skip
WIDE = 12.0  # inches: the whole page
WIDTH = 4.0  # inches; 288 points wide, shown about 370 pixels wide: 8.5 points become 11 pixels
RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 8.5,
    "axes.labelsize": 8.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "text.color": INK,
    "lines.linewidth": 1.3,
    "lines.solid_capstyle": "round",
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-4, 5),
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "path.simplify": True,
    "path.simplify_threshold": 0.3,
}

USE = r'<use xlink:href="{}" x="[^"]*" y="[^"]*" style="{}"/>'
MARKERS = re.compile(USE.format('([^"]*)', '([^"]*)') + "(?:" + USE.format(r"\1", r"\2") + ")+")
SHOWN = 12  # trajectories drawn
POINTS = 1500  # points of a cloud
TALL, LOW = 2.55, 1.35  # heights, inches


@dataclass(frozen=True)
class Panel:
    """One figure and its numbers. legend: (colour, meaning). narrow: an SVG of another shape for phones."""

    name: str
    title: str
    svg: str
    png: bytes = b""
    legend: tuple[tuple[str, str], ...] = ()
    note: str = ""
    narrow: str = ""
    below: Panel | None = None  # shares the frame and the legend of this one
    table: Mapping[str, Any] = field(default_factory=dict)  # {column: values}


@contextmanager
def drawing(height: float = 2.5, width: float = WIDTH) -> Iterator[tuple[Figure, Axes]]:
    """An empty figure with one set of axes; sizes in inches."""
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(width, height))
        FigureCanvasAgg(figure)
        left, bottom = 0.50, 0.42  # inches for the axis labels
        axes = figure.add_axes(
            (left / width, bottom / height, 1 - (left + 0.12) / width, 1 - (bottom + 0.12) / height)
        )
        yield figure, axes


def panel(
    figure: Figure,
    name: str,
    title: str,
    legend: Sequence[tuple[str, str]] = (),
    note: str = "",
    table: Mapping[str, Any] | None = None,
    png: bool = False,
    alone: tuple[str, Sequence[tuple[str, str]]] | None = None,
) -> Panel:
    """The finished figure as SVG for the page and, with `png`, as a PNG with its own title and legend.

    alone: label of the x axis and legend for the PNG, where the page shows them elsewhere.
    """
    svg, picture = svg_of(figure, name, title), b""
    if png:
        if alone is not None:
            figure.axes[0].set_xlabel(alone[0])
        picture = png_of(figure, title, legend if alone is None else alone[1])
    return Panel(name, title, svg, picture, tuple(legend), note, table=table or {})


def svg_of(figure: Figure, name: str, title: str) -> str:
    """SVG to embed in a page: no sizes, no metadata, colours as CSS variables."""
    text = io.StringIO()
    with matplotlib.rc_context({**RC, "svg.hashsalt": name}):
        figure.savefig(
            text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.S)
    known = set(re.findall(r"#([\w.-]+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda i: i[0] if i[1] in known else "", svg)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.S)
    svg = re.sub(r"<defs>\s*<style[^>]*>.*?</style>\s*</defs>\s*", "", svg, flags=re.S)
    box = re.search(r'viewBox="([^"]*)"', svg)
    space = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    view = box[1] if box else ""
    head = f'<svg {space} role="img" viewBox="{view}"><title>{escaped(title)}</title>'
    svg = head + svg[svg.index(">") + 1 :]
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    svg = re.sub(r"font-family: [^;\"]*;?", "", svg)
    for colour, variable in NAMES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    svg = re.sub(r">\s+<", "><", svg).strip()
    # only numbers inside tags, not text
    svg = re.sub(r"<[^>]+>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag[0]), svg)
    return MARKERS.sub(_grouped, svg)


def _grouped(run: re.Match[str]) -> str:
    """A row of equal markers as a group, so that the style is written once."""
    style = run[2]
    return f'<g style="{style}">' + run[0].replace(f' style="{style}"', "") + "</g>"


def png_of(figure: Figure, title: str, legend: Sequence[tuple[str, str]]) -> bytes:
    """The figure as PNG on white, with title and legend above, for slides and papers."""
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + 0.45)
    for axes in figure.axes:
        x, y, w, h = axes.get_position().bounds
        axes.set_position((x, y * height / (height + 0.45), w, h * height / (height + 0.45)))
    figure.text(0.02, 0.985, title, va="top", fontsize=9.5, fontweight="bold", color=INK)
    x = 0.02
    for colour, words in legend:
        y = 1 - 0.31 / (height + 0.45)
        figure.text(x, y, "■", va="center", fontsize=8, color=colour)
        figure.text(x + 0.13 / width, y, words, va="center", fontsize=8, color=INK)
        x += (0.26 + 0.062 * len(words)) / width
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=170, facecolor="white", bbox_inches="tight", pad_inches=0.08)
    return buffer.getvalue()


def escaped(text: object) -> str:
    """Text escaped for HTML content and attributes."""
    return html.escape(str(text), quote=True)


def thinned(n: int, most: int) -> NDArray[np.int64]:
    """At most `most` of n indices, evenly spaced, including the first and the last."""
    return np.arange(n) if n <= most else np.unique(np.linspace(0, n - 1, most).round().astype(np.int64))


def envelope(x: NDArray[Any], y: NDArray[Any], bins: int = 250) -> tuple[NDArray[Any], NDArray[Any]]:
    """A long series reduced to the lowest and highest point in each of `bins` intervals; this preserves peaks."""
    if len(x) <= 2 * bins:
        return x, y
    edges = np.linspace(0, len(x), bins + 1).astype(int)
    keep = [k for a, b in pairwise(edges) for k in (a + int(y[a:b].argmin()), a + int(y[a:b].argmax()))]
    index = np.unique(keep)
    return x[index], y[index]
