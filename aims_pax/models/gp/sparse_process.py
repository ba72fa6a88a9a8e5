"""The sum-of-atoms process on SOAP environments: fitted to energies and forces, with errors and full variances."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aims_pax.frames import Array, Frame, Label
from aims_pax.models.gp.external_directions import external_directions, internal_forces
from aims_pax.models.gp.inducing_points import choose_inducing
from aims_pax.models.gp.leave_one_out import (
    UNSCALED,
    LeaveOneOutErrors,
    StructureRows,
    VarianceScale,
    fit_variance_scale,
    leave_one_out,
    without_inducing,
)
from aims_pax.models.gp.linear_evidence import LinearSolution, NormalEquations, solve_by_evidence
from aims_pax.models.gp.soap import Environments, SoapDescriptor
from aims_pax.models.gp.sparse_basis import FeatureRows, Readout, SparseBasis

ATOMS_AT_ONCE = 200
STORED_ROWS = 96 * 2**20  # bytes of rows that a fit may hold; others are computed twice
# smaller parts of a composition, and smaller singular values, are rounding errors
SPANNED, ROUNDING = (
    1e-6,
    1e-12,
)
JUDGED = 30  # structures from which the scale of the variances is fitted


@dataclass(frozen=True)
class ProcessPrediction:
    """energies: (F,) eV. forces: (A, 3) eV/Å. stress: (F, 3, 3) eV/Å³ or None.

    energy_sd: (F,) eV, force_sd: (A, 3) eV/Å: standard deviations, or None where they were not wanted.
    """

    energies: Array
    forces: Array
    stress: Array | None = None
    energy_sd: Array | None = None
    force_sd: Array | None = None


@dataclass(frozen=True)
class SparseProcess:
    """A fitted process. elements: atomic numbers, in the order of `solution.constants`."""

    basis: SparseBasis
    solution: LinearSolution
    energy_scale: VarianceScale = UNSCALED
    force_scale: VarianceScale = UNSCALED

    @cached_property
    def _readout(self) -> dict[int, Readout]:
        return self.basis.readout(self.solution.weights)

    @property
    def elements(self) -> tuple[int, ...]:
        return self.basis.descriptor.elements

    def predict(
        self, frames: Sequence[Frame], spread: bool = False, stress: bool = False
    ) -> ProcessPrediction:
        """Predictions for any structures of the known elements. Raises SettingsError for other elements."""
        parts = [self._part(frames[a:b], spread, stress) for a, b in batches(frames)]
        return joined_predictions(parts)

    def _part(self, frames: Sequence[Frame], spread: bool, stress: bool) -> ProcessPrediction:
        of = self.basis.environments(frames, strain=stress)
        energies, forces, strained = self.basis.predict(frames, self._readout, of)
        counts = element_counts(frames, self.elements)
        found = ProcessPrediction(energies + counts @ self.solution.constants, forces)
        if strained is not None:
            tensors = [_stress(f, t) for f, t in zip(frames, strained, strict=True)]
            found = replace(found, stress=np.array(tensors))
        if not spread:
            return found
        energy, force = self.variances(frames, of)
        return replace(found, energy_sd=np.sqrt(energy), force_sd=np.sqrt(force).reshape(-1, 3))

    def variances(self, frames: Sequence[Frame], of: Mapping[int, Environments]) -> tuple[Array, Array]:
        """Predictive variances including noise: energies (F,) eV², force components (3A,) (eV/Å)².

        Infinite for the energy of a composition whose energies of atoms the training set does not determine.
        """
        rows = self.basis.rows(frames, of)
        counts = element_counts(frames, self.elements)
        cheap_e, cheap_f = self.cheap_variances(rows, counts)
        prior_e, prior_f = self.basis.prior_variances(frames, of)
        amplitude = self.solution.amplitude**2
        left_e = amplitude * (prior_e - (rows.energies**2).sum(1))
        left_f = amplitude * (prior_f - np.einsum("nm,nm->n", rows.forces, rows.forces))
        energy = np.where(
            outside_compositions(counts, self.solution.counts_inverse),
            np.inf,
            self.energy_scale(cheap_e, left_e),
        )
        return energy, self.force_scale(cheap_f, left_f)

    def cheap_variances(self, rows: FeatureRows, counts: Array) -> tuple[Array, Array]:
        """Those within the span of the inducing environments, with noise: (F,), (3A,)."""
        s = self.solution
        energy = (((rows.energies - counts @ s.offsets) @ s.half) ** 2).sum(1)
        ratio = s.ratio**2
        energy += ratio * np.einsum("fe,eg,fg->f", counts, s.counts_inverse, counts)
        half = rows.forces @ s.half
        force = np.einsum("nm,nm->n", half, half)
        return s.noise**2 * (energy + ratio * counts.sum(1)), s.noise**2 * (force + 1)


@dataclass(frozen=True)
class SparseFit:
    """A fitted process and its leave-one-out errors."""

    process: SparseProcess
    errors: LeaveOneOutErrors


def fit_sparse(
    frames: Sequence[Frame],
    labels: Sequence[Label],
    descriptor: SoapDescriptor,
    *,
    zeta: int = 2,
    inducing: int = 800,
    check: Callable[[], Any] = lambda: None,
) -> SparseFit:
    """Fit to labels (without the baseline). inducing: largest number M of environments. check: called often."""
    chosen = choose_inducing(frames, descriptor, inducing)
    basis = SparseBasis(descriptor, zeta, {z: q for z, (q, _) in chosen.items()})
    source = {z: of for z, (_, of) in chosen.items()}
    data = _Data(basis, frames, labels)
    sums = NormalEquations(basis.size, len(descriptor.elements), basis.centre(frames, descriptor.elements))
    for k, rows in data.stream():
        check()
        sums.add_energies(rows.energy[None], np.array([rows.y_energy]), rows.counts[None])
        outer = external_directions(frames[k]).shape[1]
        sums.add_forces(rows.forces, rows.y_forces, len(rows.y_forces) - outer)
    process = SparseProcess(basis, solve_by_evidence(sums))
    check()
    return _judged(process, data, source, check)


def batches(frames: Sequence[Frame]) -> Iterator[tuple[int, int]]:
    """(first, end) of groups of frames with about `ATOMS_AT_ONCE` atoms."""
    start = atoms = 0
    for k, frame in enumerate(frames):
        if atoms and atoms + len(frame) > ATOMS_AT_ONCE:
            yield start, k
            start, atoms = k, 0
        atoms += len(frame)
    if atoms:
        yield start, len(frames)


def element_counts(frames: Sequence[Frame], elements: Sequence[int]) -> Array:
    """(F, E) numbers of atoms of each element."""
    return np.array([[float((f.numbers == z).sum()) for z in elements] for f in frames]).reshape(
        len(frames), -1
    )


def outside_compositions(counts: Array, known: Array) -> NDArray[np.bool_]:
    """(F,) whether numbers of atoms (F, E) are no linear combination of the rows of `known` (…, E): a sum of energies
    of elements that fits those rows may have any value for these."""
    _, sizes, rows = np.linalg.svd(known, full_matrices=False)
    span = rows[sizes > ROUNDING * sizes.max(initial=0.0)]
    rest = counts - (counts @ span.T) @ span
    return np.asarray(np.linalg.norm(rest, axis=1) > SPANNED * np.linalg.norm(counts, axis=1))


def joined_predictions(parts: Sequence[ProcessPrediction]) -> ProcessPrediction:
    """One prediction for the structures of all parts, in order."""

    def together(name: str) -> Any:
        values = [getattr(p, name) for p in parts]
        return None if not values or values[0] is None else np.concatenate(values)

    if not parts:
        return ProcessPrediction(np.zeros(0), np.zeros((0, 3)))
    return ProcessPrediction(
        *(together(n) for n in ("energies", "forces", "stress", "energy_sd", "force_sd"))
    )


class _Data:
    """Rows of the training structures, one structure after the other; some are stored for a second pass."""

    def __init__(self, basis: SparseBasis, frames: Sequence[Frame], labels: Sequence[Label]) -> None:
        self.basis, self.frames = basis, frames
        self.counts = element_counts(frames, basis.descriptor.elements)
        energies = np.array([label.energy for label in labels])
        weight = 1 / np.sqrt(self.counts.sum(1))
        typical = np.linalg.lstsq(self.counts * weight[:, None], energies * weight, rcond=1e-10)[0]
        self.typical = typical  # subtracted, so that large energies lose no digits
        self.energies = energies - self.counts @ typical
        self.forces = [
            internal_forces(f, label.forces).ravel() for f, label in zip(frames, labels, strict=True)
        ]
        n = len(frames)
        self.judged = sorted({int(k) for k in np.linspace(0, n - 1, min(n, JUDGED)).round()})
        # prior variances of the judged structures, for A = 1
        self.priors: dict[int, tuple[float, Array]] = {}
        self._stored: dict[int, StructureRows] = {}
        self._room = STORED_ROWS

    def stream(self) -> Iterator[tuple[int, StructureRows]]:
        for a, b in batches(self.frames):
            if all(k in self._stored for k in range(a, b)):
                yield from ((k, self._stored[k]) for k in range(a, b))
                continue
            of = self.basis.environments(self.frames[a:b])
            rows = self.basis.rows(self.frames[a:b], of)
            self._add_priors(a, b, of)
            first = 0
            for k in range(a, b):
                end = first + 3 * len(self.frames[k])
                own = StructureRows(
                    rows.energies[k - a],
                    rows.forces[first:end],
                    self.counts[k],
                    self.energies[k],
                    self.forces[k],
                )
                first = end
                self._store(k, own)
                yield k, own

    def of(self, k: int) -> StructureRows:
        if k in self._stored:
            return self._stored[k]
        rows = self.basis.rows([self.frames[k]])
        return StructureRows(rows.energies[0], rows.forces, self.counts[k], self.energies[k], self.forces[k])

    def _add_priors(self, a: int, b: int, of: Mapping[int, Environments]) -> None:
        wanted = [k for k in self.judged if a <= k < b and k not in self.priors]
        energies, forces = self.basis.prior_variances(self.frames[a:b], of, [k - a for k in wanted])
        ends = 3 * np.cumsum([0, *map(len, self.frames[a:b])])
        for k in wanted:
            self.priors[k] = (float(energies[k - a]), forces[ends[k - a] : ends[k - a + 1]])

    def _store(self, k: int, own: StructureRows) -> None:
        if own.forces.nbytes <= self._room and k not in self._stored:
            self._room -= own.forces.nbytes
            self._stored[k] = own


def _judged(
    process: SparseProcess, data: _Data, source: Mapping[int, NDArray[np.int64]], check: Callable[[], Any]
) -> SparseFit:
    """Leave-one-out errors of all structures, and the scale of the variances from some of them."""

    def rows() -> Iterator[StructureRows]:
        for _, own in data.stream():
            check()
            yield own

    errors = leave_one_out(process.solution, rows())
    some = data.judged
    ends = np.cumsum([0, *(3 * len(f) for f in data.frames)])
    left = [_unexplained(process, data, k, {z: of == k for z, of in source.items()}) for k in some]
    pick = np.concatenate([np.arange(ends[k], ends[k + 1]) for k in some])
    left_f, left_e = np.concatenate([f for _, f in left]), np.array([e for e, _ in left])
    force_scale = fit_variance_scale(errors.forces[pick], errors.force_variances[pick], left_f)
    energy_scale = fit_variance_scale(errors.energies[some], errors.energy_variances[some], left_e)
    solution = replace(process.solution, constants=process.solution.constants + data.typical)
    fitted = replace(process, solution=solution, energy_scale=energy_scale, force_scale=force_scale)
    return SparseFit(fitted, errors)


def _unexplained(
    process: SparseProcess, data: _Data, k: int, own: Mapping[int, NDArray[np.bool_]]
) -> tuple[float, Array]:
    """A² (k** − q**) of energy and force components of structure k without its own inducing environments."""
    rows, basis = data.of(k), process.basis
    prior_e, prior_f = data.priors[k]
    left = np.concatenate([[prior_e], prior_f])
    both = np.concatenate([rows.energy[None], rows.forces])
    for z, columns in basis.columns.items():
        left -= without_inducing(both[:, columns], basis.factors[z], np.flatnonzero(own[z]))
    left *= process.solution.amplitude**2
    return float(left[0]), left[1:]


def _stress(frame: Frame, strained: Array) -> Array:
    """(3, 3) σ = (1/V) ∂E/∂ε, symmetric; NaN for structures that are not periodic in three directions."""
    if not frame.periodic:
        return np.full((3, 3), np.nan)
    return np.asarray((strained + strained.T) / 2 / abs(np.linalg.det(frame.cell)))
