"""A picture of what a selection covers: all structures in the two principal components of their features."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aims_pax.report.figures.style import BLUE, MUTED, ORANGE, RC, drawing

POINTS = 20_000  # of the pool, drawn
SAMPLE = 5_000  # from which the components are computed


def principal_components(points: NDArray[Any], n: int = 2) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(mean (D,), axes (n, D)) of points (P, D), the largest variance first; each axis has a fixed sign."""
    x = np.asarray(points, float)
    mean = x.mean(0)
    _, _, axes = np.linalg.svd(x - mean, full_matrices=False)
    axes = np.vstack([axes[:n], np.zeros((max(0, n - len(axes)), x.shape[1]))])
    signs = np.sign(axes[np.arange(n), abs(axes).argmax(1)])
    return mean, axes * np.where(signs == 0, 1, signs)[:, None]


def coverage_picture(points: NDArray[Any], chosen: Sequence[int], known: NDArray[Any] | None = None) -> bytes:
    """PNG: the pool (P, D) as dots, the known structures (S, D) as crosses, the chosen ones as rings."""
    import matplotlib

    step = max(1, len(points) // SAMPLE)
    mean, axes = principal_components(points[::step])
    pool = (points[:: max(1, len(points) // POINTS)] - mean) @ axes.T
    taken = (points[list(chosen)] - mean) @ axes.T
    with matplotlib.rc_context(RC), drawing(4.0, 5.0) as (figure, ax):
        size = 2.0 if len(points) > 5000 else 4.0 if len(points) > 500 else 7.0
        ax.plot(*pool.T, ".", color=MUTED, ms=size, alpha=0.5, mec="none", label=f"pool: {len(points)}")
        if known is not None:
            ax.plot(*((known - mean) @ axes.T).T, "x", color=BLUE, ms=4, label=f"already there: {len(known)}")
        ax.plot(*taken.T, "o", mfc="none", mec=ORANGE, ms=5, mew=1.2, label=f"chosen: {len(taken)}")
        ax.set_xlabel("first principal component of the features")
        ax.set_ylabel("second")
        ax.legend(frameon=False, loc="best")
        out = io.BytesIO()
        figure.savefig(out, dpi=150, facecolor="white")
    return out.getvalue()
