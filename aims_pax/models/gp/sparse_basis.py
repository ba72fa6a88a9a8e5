"""Features of the sparse sum-of-atoms process: kernels with M inducing environments, whitened.

    E = Σ_i f_z(i)(q̂_i),   k(q̂, q̂') = (q̂·q̂')^ζ for atoms of one element,   Φ = K_xU R⁻ᵀ,   K_UU = R Rᵀ

so that f = Φ w with w ~ N(0, A²) is the process projected on the inducing environments U (Quiñonero-Candela and
Rasmussen, JMLR 6, 1939 (2005)). Rows of forces are minus the derivatives of rows of energies, analytically.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from aims_pax.errors import SettingsError
from aims_pax.frames import Array, Frame
from aims_pax.models.gp.soap import Environments, SoapDescriptor

JITTER = 1e-10
LARGEST_FORM = 3000  # length of spectra up to which W (D × D) is made
CHUNK = 4_000_000  # numbers: dense derivatives of one element are made for so many at once


@dataclass(frozen=True)
class FeatureRows:
    """energies: (F, M). forces: (3A, M)."""

    energies: Array
    forces: Array


@dataclass(frozen=True)
class Readout:
    """Energies of environments of one element, Σ_u α_u (q̂·u)^ζ.

    form: W = Σ_u α_u u uᵀ for ζ = 2, or None. q̂ᵀWq̂ is the same function without the cancellation between large α, so
    that energies are smooth to rounding.
    """

    inducing: Array
    alpha: Array
    zeta: int
    form: Array | None

    def __call__(self, q: Array) -> tuple[Array, Array]:
        """(n,) energies in eV and (n, D) their derivatives, of spectra (n, D)."""
        if self.form is not None:
            along = q @ self.form
            return np.einsum("nd,nd->n", along, q), 2 * along
        overlap = q @ self.inducing.T
        slope = (self.zeta * overlap ** (self.zeta - 1) * self.alpha) @ self.inducing
        return overlap**self.zeta @ self.alpha, slope


class SparseBasis:
    """descriptor, the power zeta, and inducing: {atomic number: (m, D) normalised spectra}."""

    def __init__(self, descriptor: SoapDescriptor, zeta: int, inducing: Mapping[int, Array]) -> None:
        self.descriptor, self.zeta, self.inducing = descriptor, zeta, dict(inducing)
        self.factors = {z: _factor((u @ u.T) ** zeta) for z, u in self.inducing.items()}
        ends = np.cumsum([0, *(len(u) for u in self.inducing.values())])
        self.columns = {z: slice(a, b) for z, a, b in zip(self.inducing, ends[:-1], ends[1:], strict=True)}
        self.size = int(ends[-1])  # M

    def environments(
        self, frames: Sequence[Frame], slopes: bool = True, strain: bool = False
    ) -> dict[int, Environments]:
        """Raises SettingsError naming elements that the model was not trained on."""
        refuse_other_elements(frames, self.descriptor.elements)
        return self.descriptor.of(frames, slopes, strain)

    # ------------------------------------------------------------ rows, for training and variances

    def rows(self, frames: Sequence[Frame], of: Mapping[int, Environments] | None = None) -> FeatureRows:
        """of: the environments of the frames with slopes, if they are known already."""
        of = self.environments(frames) if of is None else of
        atoms = sum(map(len, frames))
        energies, forces = np.zeros((len(frames), self.size)), np.zeros((3 * atoms, self.size))
        for z, found in of.items():
            u, columns = self.inducing[z], self.columns[z]
            overlap = found.values @ u.T
            e = _summed(found.structure, len(frames)) @ overlap**self.zeta
            assert found.slopes is not None
            assert found.centre is not None
            g, _, d = found.slopes.shape
            change = (found.slopes.reshape(3 * g, d) @ u.T).reshape(g, 3, -1)
            change *= (-self.zeta * overlap[found.centre] ** (self.zeta - 1))[:, None, :]
            f = (_summed(found.moved, atoms) @ change.reshape(g, -1)).reshape(3 * atoms, -1)
            energies[:, columns], forces[:, columns] = self.whitened(z, e), self.whitened(z, f)
        return FeatureRows(energies, forces)

    def whitened(self, z: int, rows: Array) -> Array:
        """K_xU R⁻ᵀ of rows K_xU (n, m)."""
        solved = linalg.solve_triangular(self.factors[z], rows.T, lower=True, check_finite=False)
        return np.asarray(solved.T)

    def centre(self, frames: Sequence[Frame], elements: Sequence[int]) -> Array:
        """(E, M) features of a typical environment of each element; see `NormalEquations.centre`."""
        rows = np.zeros((len(elements), self.size))
        for z, u in self.inducing.items():
            mean = u.mean(0)
            row = ((mean / np.linalg.norm(mean)) @ u.T) ** self.zeta
            rows[list(elements).index(z), self.columns[z]] = self.whitened(z, row[None])[0]
        return rows

    # ------------------------------------------------------------ predictions from weights

    def readout(self, weights: Array) -> dict[int, Readout]:
        """What turns spectra into energies, for each element, from weights (M,)."""
        out = {}
        for z, u in self.inducing.items():
            alpha = linalg.solve_triangular(
                self.factors[z], weights[self.columns[z]], lower=True, trans="T", check_finite=False
            )
            form = (u.T * alpha) @ u if self.zeta == 2 and u.shape[1] <= LARGEST_FORM else None
            out[z] = Readout(u, alpha, self.zeta, form)
        return out

    def predict(
        self, frames: Sequence[Frame], readout: Mapping[int, Readout], of: Mapping[int, Environments]
    ) -> tuple[Array, Array, Array | None]:
        """Energies (F,) eV, forces (A, 3) eV/Å, and ∂E/∂ε (F, 3, 3) eV if `of` has strain; without constants."""
        atoms = sum(map(len, frames))
        energies, forces = np.zeros(len(frames)), np.zeros((atoms, 3))
        strain = any(found.strained is not None for found in of.values())
        strained = np.zeros((len(frames), 9))
        for z, found in of.items():
            energy, slope = readout[z](found.values)
            energies += np.bincount(found.structure, energy, len(frames))
            assert found.slopes is not None
            change = np.matmul(found.slopes, slope[found.centre][:, :, None])[:, :, 0]  # (g, 3)
            forces -= _summed(found.moved, atoms) @ change
            if found.strained is not None:
                n, _, _, d = found.strained.shape
                turn = np.matmul(found.strained.reshape(n, 9, d), slope[:, :, None])[:, :, 0]
                strained += _summed(found.structure, len(frames)) @ turn
        return energies, forces, strained.reshape(-1, 3, 3) if strain else None

    # ------------------------------------------------------------ prior variances

    def prior_variances(
        self, frames: Sequence[Frame], of: Mapping[int, Environments], only: Sequence[int] | None = None
    ) -> tuple[Array, Array]:
        """k(x, x) of the full process, for A = 1: energies (F,) and force components (3A,).

        ∂∂'k = ζ(ζ−1) S^(ζ−2) (∂q̂_i·q̂_j)(q̂_i·∂q̂_j) + ζ S^(ζ−1) (∂q̂_i·∂q̂_j), S = q̂_i·q̂_j, summed over i and j.
        only: indices of the structures to compute; the others are zero.
        """
        first = np.cumsum([0, *map(len, frames)])
        energies, forces = np.zeros(len(frames)), np.zeros(3 * int(first[-1]))
        for found in of.values():
            for f in range(len(frames)) if only is None else only:
                mine = np.flatnonzero(found.structure == f)
                if not len(mine):
                    continue
                q = found.values[mine]
                overlap = q @ q.T
                energies[f] += float((overlap**self.zeta).sum())
                span = slice(3 * first[f], 3 * first[f + 1])
                forces[span] += self._slope_variances(found, mine, q, overlap, int(first[f]), len(frames[f]))
        return energies, forces

    def _slope_variances(
        self, found: Environments, mine: NDArray[np.int64], q: Array, overlap: Array, start: int, atoms: int
    ) -> Array:
        z = self.zeta
        bent = z * (z - 1) * overlap ** max(z - 2, 0)
        straight = z * overlap ** (z - 1)
        assert found.slopes is not None
        assert found.centre is not None
        assert found.moved is not None
        use = np.flatnonzero(np.isin(found.centre, mine))
        row = np.searchsorted(mine, found.centre[use])
        moved = found.moved[use] - start
        at_once = max(1, CHUNK // (3 * q.size))
        variances = np.zeros(3 * atoms)
        for a in range(0, atoms, at_once):
            b = min(a + at_once, atoms)
            part = (moved >= a) & (moved < b)
            dense = np.zeros((b - a, len(mine), 3, q.shape[1]))
            dense[moved[part] - a, row[part]] = found.slopes[use[part]]
            slopes = dense.transpose(0, 2, 1, 3).reshape(3 * (b - a), len(mine), -1)
            across = slopes @ q.T  # (3a, n, n): ∂q̂_i·q̂_j
            both = slopes @ slopes.transpose(0, 2, 1)
            total = bent * across * across.transpose(0, 2, 1) + straight * both
            variances[3 * a : 3 * b] = total.sum((1, 2))
        return variances


def refuse_other_elements(frames: Sequence[Frame], elements: Sequence[int]) -> None:
    """Raises SettingsError naming elements that a model of these elements was not trained on."""
    strange = sorted({int(z) for f in frames for z in np.unique(f.numbers)} - set(elements))
    if strange:
        from ase.data import chemical_symbols

        names, known = (" ".join(chemical_symbols[z] for z in zs) for zs in (strange, elements))
        raise SettingsError(f"the Gaussian process was not trained on {names}; it knows {known}")


def _factor(kernel: Array) -> Array:
    """The lower Cholesky factor of K_UU with a jitter."""
    kernel[np.diag_indices_from(kernel)] += JITTER
    return np.asarray(linalg.cholesky(kernel, lower=True, overwrite_a=True, check_finite=False))


def _summed(target: NDArray[np.int64] | None, count: int) -> sparse.csr_matrix:
    """(count, n) matrix that sums rows by their target."""
    assert target is not None
    n = len(target)
    return sparse.csr_matrix((np.ones(n), (target, np.arange(n))), (count, n))
