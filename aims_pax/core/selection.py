"""Which of many candidates to label: selection from the features of frames and their uncertainty.

A frame is a point x_i in the space of its features (see `element_moments`), with a weight w_i > 0, for example the
spread of a committee. Given the points S that are known already (labelled, or being labelled), each rule takes one
candidate after another:

    farthest_first      argmax w_i · min_{j in S} |x_i − x_j|   (k-centre; Gonzalez, Theor. Comput. Sci. 38, 293 (1985))
    max_determinant     argmax log det(λ + Σ_{j in S+i} z_j z_jᵀ),  z_j = w_j (x_j − x̄)   (D-optimal design, greedily)
    largest_first       argmax w_i, not nearer than a least distance to those in S
    at_random           uniformly
    random_apart        uniformly, not nearer than a least distance to those in S

The determinant grows by 1 + z_iᵀ A⁻¹ z_i, which is the variance of a linear model in the features: it prefers new
directions where the largest distance may be reached by one outlier again and again. All cost O((n + |S|) P D) for n of
P candidates with D features, and give the same result for the same arguments. Equal values are decided by the order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aims_pax.frames import Array

CHUNK = 4_000_000  # numbers in one block of distances
RIDGE = 1e-3  # λ of max_determinant, relative to the mean square of the candidates


def farthest_first(
    points: ArrayLike,
    n: int,
    known: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    least: float = 0.0,
    first: int | None = None,
) -> list[int]:
    """Indices of up to n of the points (P, D), each the farthest, by weight, from `known` (S, D) and those before it.

    weights: (P,) positive; None: all equal. least: points nearer than this to a known or taken one are never taken, so
    the result may be shorter than n. first: taken first if nothing is known; None: the point nearest to the mean.
    Raises ValueError for arrays that do not fit together or are not finite.

    >>> farthest_first([[0.0], [1.0], [4.0], [10.0], [9.0]], 3)
    [2, 3, 0]
    >>> farthest_first([[0.0], [1.0], [4.0], [10.0], [9.0]], 2, known=[[0.0]], weights=[1, 1, 5, 1, 1])
    [2, 3]
    """
    x, w = _checked(points, weights)
    nearest = squared_distances(x, known)  # (P,) to known and taken points
    return _greedy(x, n, nearest, least, first, lambda d2: w * np.sqrt(d2))


def largest_first(
    points: ArrayLike,
    n: int,
    weights: ArrayLike,
    known: ArrayLike | None = None,
    least: float = 0.0,
) -> list[int]:
    """Indices of up to n of the points (P, D) by falling weight, without those nearer than `least` to a known or taken
    one. Arguments as of `farthest_first`.

    >>> largest_first([[0.0], [0.1], [4.0]], 2, [2, 3, 1], least=0.5)
    [1, 2]
    """
    x, w = _checked(points, weights)
    nearest = squared_distances(x, known)
    return _greedy(x, n, nearest, least, int(np.argmax(w)) if len(w) else None, lambda d2: w)


def max_determinant(
    points: ArrayLike,
    n: int,
    known: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    least: float = 0.0,
    ridge: float = RIDGE,
) -> list[int]:
    """Indices of up to n of the points (P, D) that maximise, one after another, the determinant of the module's
    docstring. Arguments as of `farthest_first`; known points have the mean weight of the candidates.

    ridge: λ relative to the mean square of a coordinate; positive.

    >>> max_determinant([[0.0, 1], [0, -1], [0, 1.1], [3, 0], [-3, 0.1]], 2)
    [3, 1]
    """
    x, w = _checked(points, weights)
    if not ridge > 0:
        raise ValueError(f"ridge {ridge}: expected more than 0")
    if not len(x):
        return []
    nearest = squared_distances(x, known)
    centre = np.mean(x, axis=0, dtype=float)
    scaled = w / (w.mean() or 1.0)
    z = np.asarray(scaled[:, None] * (x - centre), x.dtype)  # (P, D)
    scale = float(np.mean(z**2, dtype=float)) or 1.0
    inverse = _inverse_of_known(known, centre, ridge * scale, x.shape[1])  # A⁻¹, (D, D)
    gain = np.einsum("pd,pd->p", z @ inverse, z)  # zᵀ A⁻¹ z
    taken: list[int] = []
    free = nearest >= least**2
    while len(taken) < n and free.any():
        k = int(np.argmax(np.where(free, gain, -1.0)))
        taken.append(k)
        direction = inverse @ z[k]
        direction /= np.sqrt(1 + z[k] @ direction)
        inverse -= np.outer(direction, direction)  # Sherman and Morrison
        gain = gain - (z @ direction) ** 2
        nearest = np.minimum(nearest, squared_distances(x, x[k : k + 1]))
        free &= nearest >= least**2
        free[k] = False
    return taken


def at_random(n_points: int, n: int, rng: np.random.Generator) -> list[int]:
    """n different indices of so many points, uniformly, ascending; all of them if there are fewer."""
    return sorted(int(i) for i in rng.permutation(n_points)[:n])


def random_apart(
    points: ArrayLike,
    n: int,
    rng: np.random.Generator,
    known: ArrayLike | None = None,
    least: float = 0.0,
) -> list[int]:
    """Indices of up to n of the points (P, D) in random order, without those nearer than `least` to a known or taken
    one. Arguments as of `farthest_first`.

    >>> random_apart([[0.0], [0.1], [0.2]], 2, np.random.default_rng(0), known=[[5.0]], least=1.0)
    [2]
    """
    x, _ = _checked(points, None)
    order = [int(k) for k in rng.permutation(len(x))]
    if not least:
        return order[:n]
    nearest = squared_distances(x, known)
    taken: list[int] = []
    for k in order:
        if len(taken) == n:
            break
        if nearest[k] >= least**2:
            taken.append(k)
            nearest = np.minimum(nearest, squared_distances(x, x[k : k + 1]))
    return taken


def squared_distances(points: ArrayLike, to: ArrayLike | None) -> Array:
    """(P,) squared distance of each point (P, D) to the nearest of `to` (S, D); infinite if there are none.

    Computed in blocks, so that the memory is bounded. The nearest point is found by scalar products, its distance is
    computed from differences: exactly 0 for equal points.
    """
    x = _as_points(points)
    nearest = np.full(len(x), np.inf)
    y = np.empty((0, 0)) if to is None else _as_points(to)
    if not len(y) or not len(x):
        return nearest
    if y.shape[1] != x.shape[1]:
        raise ValueError(f"known points have shape {y.shape}, expected (S, {x.shape[1]})")
    centre = y.mean(0)
    norms = np.square(y - centre).sum(1)
    step = max(1, CHUNK // max(len(y), x.shape[1]))
    for begin in range(0, len(x), step):
        block = x[begin : begin + step]
        if len(y) == 1:
            away = block - y[0]
        else:
            scores = norms - 2 * (block - centre) @ (y - centre).T  # (step, S) squared distance − |x|²
            away = block - y[scores.argmin(1)]
        nearest[begin : begin + step] = np.einsum("pd,pd->p", away, away)
    return nearest


def element_moments(features: ArrayLike, numbers: ArrayLike, elements: Sequence[int]) -> Array:
    """(2·Z·D,) features of a frame from those of its atoms (N, D), comparable between frames of different size.

    For each of the Z elements the mean m and the standard deviation s of its atoms, times √(share of its atoms): then
    the squared distance of two frames of equal composition is the mean over atoms of (Δm² + Δs²), which is at most
    the mean squared difference of the atoms in the best assignment. elements: atomic numbers of all frames.
    Raises ValueError for an atom of another element.

    >>> element_moments([[1.0], [3.0], [5.0]], [1, 1, 8], [1, 8]).round(3).tolist()
    [1.633, 0.816, 2.887, 0.0]
    """
    f, z = np.asarray(features, float), np.asarray(numbers)
    unknown = sorted(set(z.tolist()) - set(elements))
    if unknown:
        raise ValueError(f"element {unknown[0]} is not among {list(elements)}")
    parts = []
    for element in elements:
        own = f[z == element]
        moments = (own.mean(0), own.std(0)) if len(own) else (np.zeros(f.shape[1]),) * 2
        parts += [np.sqrt(len(own) / len(f)) * moment for moment in moments]
    return np.concatenate(parts)


def random_projection(features: Array, n: int, seed: int = 0) -> Array:
    """(F, n) projections of features (F, D), with distances preserved to about √(2/n); unchanged if D ≤ n.

    The same matrix for the same D, n and seed (Johnson and Lindenstrauss 1984), so that frames can be read in pieces.
    """
    d = features.shape[1]
    if d <= n:
        return features
    matrix = np.random.default_rng([seed, d, n]).standard_normal((d, n)) / np.sqrt(n)
    return np.asarray(features @ matrix, float)


# ---------------------------------------------------------------- parts


def _as_points(points: ArrayLike) -> NDArray[Any]:
    """(P, D) in single precision if they are given in it, else in double."""
    x = np.asarray(points)
    x = x if x.dtype == np.float32 else np.asarray(x, float)
    if x.ndim != 2:
        raise ValueError(f"points have shape {x.shape}, expected (P, D)")
    return x


def _checked(points: ArrayLike, weights: ArrayLike | None) -> tuple[NDArray[Any], Array]:
    x = _as_points(points)
    w = np.ones(len(x)) if weights is None else np.asarray(weights, float)
    if w.shape != (len(x),):
        raise ValueError(f"weights have shape {w.shape}, expected ({len(x)},)")
    if not (np.isfinite(x).all() and np.isfinite(w).all()):
        raise ValueError("points and weights must be finite")
    if (w < 0).any():
        raise ValueError("weights must not be negative")
    return x, w


def _greedy(
    x: NDArray[Any], n: int, nearest: Array, least: float, first: int | None, value: Callable[[Array], Array]
) -> list[int]:
    """Take the free point of the largest value, again and again; `value` of the squared distances."""
    taken: list[int] = []
    free: NDArray[np.bool_] = nearest >= least**2
    while len(taken) < n and free.any():
        if np.isinf(nearest[free]).all():  # nothing is known yet
            middle = squared_distances(x, x.mean(0, keepdims=True))
            k = int(np.argmin(middle)) if first is None else first
        else:
            k = int(np.argmax(np.where(free, value(nearest), -1.0)))
        taken.append(k)
        nearest = np.minimum(nearest, squared_distances(x, x[k : k + 1]))
        free &= nearest >= least**2
        free[k] = False
    return taken


def _inverse_of_known(known: ArrayLike | None, centre: Array, ridge: float, d: int) -> Array:
    """(D, D) the inverse of λ + Σ z zᵀ of the known points."""
    matrix = ridge * np.eye(d)
    if known is not None and len(np.asarray(known)):
        z = np.asarray(known, float) - centre
        matrix += z.T @ z
    return np.asarray(np.linalg.inv(matrix), float)
