"""Logarithmic axes with plain numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator


def log_if_wide(axes: Axes, values: Iterable[float]) -> None:
    good = [v for v in values if v > 0]
    if good and max(good) > 8 * min(good):
        axes.set_yscale("log")
        log_ticks(axes)
    else:
        axes.set_ylim(0, 1.06 * max(good, default=1.0))


def log_ticks(axes: Axes, both: bool = False) -> None:
    """Plain numbers on a logarithmic axis: 0.01 0.1 1, and values between them when the axis spans few decades."""
    for axis in (axes.xaxis, axes.yaxis) if both else (axes.yaxis,):
        low, high = sorted(axis.get_view_interval())
        decades = math.log10(high / low) if low > 0 else 3
        subs = (1.0, 2.0, 5.0) if decades < 1.6 else (1.0, 3.0) if decades < 2.2 else (1.0,)
        axis.set_major_locator(LogLocator(subs=subs))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}" if 1e-4 <= v < 1e5 else f"{v:.0e}"))
