"""A Gaussian process for energies and forces: what the rest of the program uses.

    process = GaussianProcess.fit(labelled_frames)             # seconds for 5 to 100 structures
    process.predict(frames, spread=True, stress=True)
    process.errors.force_mae                                   # leave-one-out, without further labels
    process.labels(frames), process.bind(frames)               # it is a Potential

Molecules of two to four atoms have a process of their own on distances, unless there are many (more than 500 of four
atoms); all other structures, of several compositions, molecules and cells, share the sum-of-atoms process on SOAP
environments. The prior mean is an energy for each element that the data determine, and a baseline potential if one is
given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aims_pax.errors import SettingsError
from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.models.gp.dense_process import DenseProcess, fit_distances
from aims_pax.models.gp.leave_one_out import LeaveOneOutErrors
from aims_pax.models.gp.soap import SoapDescriptor, require_featomic
from aims_pax.models.gp.sparse_basis import refuse_other_elements
from aims_pax.models.gp.sparse_process import (
    ProcessPrediction,
    SparseProcess,
    element_counts,
    fit_sparse,
    outside_compositions,
)
from aims_pax.potential import Bound, EvaluatedPotential, Evaluation, Potential

SMALL = 4  # atoms of the largest molecule with a process of its own …
ENOUGH = 3  # … which needs so many structures …
MOST = 3500  # … and has so many observations at most, because its cost grows with their cube
BOND = 1.7  # Å: longer distances are not bonds of molecules of light elements
FAR = 5.0  # Å
SMALLEST_CUTOFF, WIDEST = 4.5, 0.6  # Å, of what is chosen when cutoff and width are None
Atoms = tuple[int, ...]  # atomic numbers of a small molecule, ascending


@dataclass(frozen=True)
class ProcessOptions:
    """cutoff, width: Å; n, l: radial functions, largest angular momentum; None: by the distances between neighbours.

    zeta: power of the kernel. inducing: largest number of inducing environments. molecules: small molecules have a
    process of their own.
    """

    cutoff: float | None = None
    n: int | None = None
    l: int | None = None  # noqa: E741 (the letter of the field)
    width: float | None = None
    zeta: int = 2
    inducing: int = 600
    molecules: bool = True


DEFAULT = ProcessOptions()


@dataclass(frozen=True)
class GaussianProcess:
    """Fitted processes: `shared` for SOAP environments, `molecules` by their sorted atomic numbers.

    errors: leave-one-out. frames: number of training structures. baseline: the prior mean, or None.
    baseline_sample: its label of the first training structure, by which it is known again; None in older files.
    """

    shared: SparseProcess | None
    molecules: Mapping[Atoms, DenseProcess]
    errors: LeaveOneOutErrors
    frames: int
    baseline: Potential | None = None
    baseline_name: str = ""
    baseline_sample: LabelledFrame | None = None

    # ------------------------------------------------------------ training

    @classmethod
    def fit(
        cls,
        labelled: Sequence[LabelledFrame],
        options: ProcessOptions = DEFAULT,
        baseline: Potential | None = None,
        baseline_name: str = "",
        check: Callable[[], Any] = lambda: None,
    ) -> GaussianProcess:
        """Train on labels of energy and forces. check: called often; it may raise.

        baseline: its labels are subtracted before and added to each prediction. Raises SettingsError without labels,
        and when the solution is not finite; SetupError without the extra `gpr` when it is needed.
        """
        if not labelled:
            raise SettingsError("a Gaussian process needs at least one labelled structure")
        frames, labels = [x.frame for x in labelled], [x.label for x in labelled]
        sample = None
        if baseline is not None:
            own_labels = baseline.labels(frames)
            sample = LabelledFrame(frames[0], own_labels[0])
            labels = [_less(a, b) for a, b in zip(labels, own_labels, strict=True)]
        groups = _groups(frames, options)
        molecules: dict[Atoms, DenseProcess] = {}
        parts: list[tuple[Sequence[int], LeaveOneOutErrors]] = []
        for atoms, own in groups.molecules.items():
            check()
            dense = fit_distances(
                *_sorted_structures([frames[k] for k in own], [labels[k] for k in own]), check
            )
            molecules[atoms] = dense.process
            parts.append((own, dense.errors))
        shared = None
        if groups.shared:
            own = groups.shared
            chosen = [frames[k] for k in own]
            sparse = fit_sparse(
                chosen, [labels[k] for k in own], descriptor_for(chosen, options),
                zeta=options.zeta, inducing=options.inducing, check=check,
            )  # fmt: skip
            shared = sparse.process
            parts.append((own, sparse.errors))
        _refuse_not_finite(shared, molecules)
        errors = joined_errors(parts, len(frames))
        return cls(shared, molecules, errors, len(frames), baseline, baseline_name, sample)

    # ------------------------------------------------------------ predictions

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers that some structure of which it can predict has, ascending."""
        shared = () if self.shared is None else self.shared.elements
        return tuple(sorted({*shared, *(z for atoms in self.molecules for z in atoms)}))

    def predict(
        self, frames: Sequence[Frame], spread: bool = False, stress: bool = False
    ) -> ProcessPrediction:
        """Energies, forces, and if wanted standard deviations and stress (NaN for structures without one).

        Raises SettingsError for elements that it was not trained on.
        """
        alone: dict[Atoms, list[int]] = {}
        rest: list[int] = []
        for k, frame in enumerate(frames):
            atoms = _small(frame)
            if atoms in self.molecules:
                alone.setdefault(atoms, []).append(k)
            else:
                rest.append(k)
        parts = [
            (own, self._molecule(atoms, [frames[k] for k in own], spread)) for atoms, own in alone.items()
        ]
        if rest:
            if self.shared is None:
                raise SettingsError(_not_like([frames[k] for k in rest]))
            parts.append((rest, self.shared.predict([frames[k] for k in rest], spread, stress)))
        found = join_predictions(frames, parts, spread, stress)
        if self.baseline is None:
            return found
        return _more(found, self.baseline.labels(frames), stress)

    def _molecule(self, atoms: Atoms, frames: Sequence[Frame], spread: bool) -> ProcessPrediction:
        orders = [_order(f) for f in frames]
        found = self.molecules[atoms].predict(_reordered(frames, orders), spread)
        back = np.concatenate([k * len(o) + np.argsort(o) for k, o in enumerate(orders)])
        sd = None if found.force_sd is None else found.force_sd[back]
        return replace(found, forces=found.forces[back], force_sd=sd)

    def evaluate(self, frames: Sequence[Frame], stress: bool = True) -> Evaluation:
        """One member, with the spread of each atom's force: the root mean square of its three components, eV/Å."""
        wanted = stress and any(f.periodic for f in frames)
        said = self.predict(frames, spread=True, stress=wanted)
        assert said.force_sd is not None
        spread = np.sqrt((said.force_sd**2).mean(1))
        return Evaluation(
            said.energies[None], said.forces[None], None if said.stress is None else said.stress[None], spread
        )

    def labels(self, frames: Sequence[Frame]) -> list[Label]:
        """Without the spread, which takes longer."""
        said = self.predict(frames, stress=any(f.periodic for f in frames))
        forces = np.split(said.forces, np.cumsum([len(f) for f in frames])[:-1])
        tensors = [None] * len(frames) if said.stress is None else list(said.stress)
        return [
            Label(float(e), f, t if frame.periodic else None)
            for frame, e, f, t in zip(frames, said.energies, forces, tensors, strict=True)
        ]

    def bind(self, frames: Sequence[Frame]) -> Bound:
        """For MD; each evaluation has the spread."""
        return EvaluatedPotential(self.evaluate, self.elements, has_spread=True).bind(frames)


def _refuse_not_finite(shared: SparseProcess | None, molecules: Mapping[Atoms, DenseProcess]) -> None:
    weights = [dense.alpha for dense in molecules.values()]
    if shared is not None:
        weights += [shared.solution.weights, shared.solution.constants]
    if not all(np.isfinite(w).all() for w in weights):
        raise SettingsError(
            "the Gaussian process has no finite solution: look for atoms on one place, or labels that are not finite, "
            "among the training structures"
        )


def refuse_unknown(
    train: Sequence[Frame], frames: Sequence[Frame], options: ProcessOptions = DEFAULT
) -> None:
    """Raises SettingsError for structures of which a process of these training structures could not predict."""
    groups = _groups(train, options)
    learnt = sorted({int(z) for k in groups.shared for z in np.unique(train[k].numbers)})
    rest = [f for f in frames if _small(f) not in groups.molecules]
    if rest and not learnt:
        raise SettingsError(_not_like(rest))
    refuse_other_elements(rest, learnt)


def formulas_without_energy(
    train: Sequence[Frame], frames: Sequence[Frame], options: ProcessOptions = DEFAULT
) -> list[str]:
    """Formulas of structures whose energies a process of these training structures cannot know, ascending: methane
    after water, methanol and ethanol, which do not say what a carbon atom has and what two hydrogen atoms."""
    groups = _groups(train, options)
    shared = [train[k] for k in groups.shared]
    rest = [f for f in frames if _small(f) not in groups.molecules]
    if not shared or not rest:
        return []
    elements = sorted({int(z) for f in shared for z in np.unique(f.numbers)})
    lost = outside_compositions(element_counts(rest, elements), element_counts(shared, elements))
    return sorted({f.formula for f, unknown in zip(rest, lost, strict=True) if unknown})


def _not_like(frames: Sequence[Frame]) -> str:
    names = ", ".join(sorted({f.formula for f in frames}))
    return f"the Gaussian process was not trained on structures like {names}"


def needs_featomic(frames: Sequence[Frame], options: ProcessOptions = DEFAULT) -> bool:
    """Whether some of these structures need SOAP, and so the extra `gpr`."""
    return bool(_groups(frames, options).shared)


def descriptor_for(frames: Sequence[Frame], options: ProcessOptions = DEFAULT) -> SoapDescriptor:
    """The spectrum for these structures: what `options` leave open follows from the distances between neighbours."""
    require_featomic()
    elements = tuple(sorted({int(z) for f in frames for z in np.unique(f.numbers)}))
    cutoff, n, l_max, width = _sizes(_neighbour_distances(frames))
    return SoapDescriptor(
        elements,
        cutoff if options.cutoff is None else options.cutoff,
        n if options.n is None else options.n,
        l_max if options.l is None else options.l,
        width if options.width is None else options.width,
    )


def _sizes(distances: Sequence[float]) -> tuple[float, int, int, float]:
    """(cutoff, n, l, width) for the mean distance (Å) of the atoms of each element to their next atom: for molecules
    with bonds, for molecules on metals or ions, and for solids without short bonds."""
    shortest, longest = min(distances), max(distances)
    if longest < BOND:
        return SMALLEST_CUTOFF, 5, 4, 0.3
    if shortest < BOND:
        return 5.0, 4, 3, 0.4
    cutoff, width = np.clip(2.4 * shortest, SMALLEST_CUTOFF, 6.0), np.clip(0.24 * shortest, 0.3, WIDEST)
    return float(cutoff), 6, 4, float(width)


def _neighbour_distances(frames: Sequence[Frame]) -> list[float]:
    """For each element the mean distance of its atoms to the next atom, Å, in some of the structures."""
    from ase.neighborlist import neighbor_list

    nearest: dict[int, list[float]] = {}
    for k in sorted({int(k) for k in np.linspace(0, len(frames) - 1, min(len(frames), 5))}):
        atoms = frames[k].to_atoms()
        i, d = neighbor_list("id", atoms, FAR)
        own = np.full(len(atoms), FAR)
        np.minimum.at(own, i, d)
        for z, length in zip(frames[k].numbers, own, strict=True):
            nearest.setdefault(int(z), []).append(float(length))
    return [float(np.mean(lengths)) for lengths in nearest.values()]


# ---------------------------------------------------------------- groups


@dataclass(frozen=True)
class _Groups:
    """Indices of the structures of each process."""

    shared: Sequence[int]
    molecules: Mapping[Atoms, Sequence[int]]


def _groups(frames: Sequence[Frame], options: ProcessOptions) -> _Groups:
    small: dict[Atoms, list[int]] = {}
    for k, frame in enumerate(frames):
        small.setdefault(_small(frame) if options.molecules else (), []).append(k)
    own = {atoms: ks for atoms, ks in small.items() if atoms and _few(len(ks), len(atoms))}
    shared = sorted(k for atoms, ks in small.items() if atoms not in own for k in ks)
    return _Groups(shared, own)


def _few(structures: int, atoms: int) -> bool:
    """Whether so many molecules are enough, and have few enough energies and internal forces, for a dense process."""
    return structures >= ENOUGH and structures * (1 + max(3 * atoms - 6, 1)) <= MOST


def _small(frame: Frame) -> Atoms:
    """The sorted atomic numbers of a molecule of two to four atoms; () for other structures."""
    if frame.pbc.any() or not 2 <= len(frame) <= SMALL:
        return ()
    return tuple(sorted(int(z) for z in frame.numbers))


def _order(frame: Frame) -> NDArray[np.int64]:
    return np.asarray(np.argsort(frame.numbers, kind="stable"))


def _reordered(frames: Sequence[Frame], orders: Sequence[NDArray[np.int64]]) -> list[Frame]:
    return [Frame(f.numbers[o], f.positions[o]) for f, o in zip(frames, orders, strict=True)]


def _sorted_structures(frames: Sequence[Frame], labels: Sequence[Label]) -> tuple[list[Frame], list[Label]]:
    orders = [_order(f) for f in frames]
    return _reordered(frames, orders), [
        replace(label, forces=label.forces[o]) for label, o in zip(labels, orders, strict=True)
    ]


# ---------------------------------------------------------------- putting together


def join_predictions(
    frames: Sequence[Frame],
    parts: Sequence[tuple[Sequence[int], ProcessPrediction]],
    spread: bool,
    stress: bool,
) -> ProcessPrediction:
    """Predictions of groups of structures (indices) in the order of `frames`."""
    first = np.cumsum([0, *map(len, frames)])
    energies, forces = np.zeros(len(frames)), np.zeros((int(first[-1]), 3))
    tensors = np.full((len(frames), 3, 3), np.nan)
    energy_sd, force_sd = np.zeros(len(frames)), np.zeros_like(forces)
    for own, said in parts:
        rows = np.concatenate([np.arange(first[k], first[k + 1]) for k in own])
        energies[own], forces[rows] = said.energies, said.forces
        if said.stress is not None:
            tensors[own] = said.stress
        if said.energy_sd is not None and said.force_sd is not None:
            energy_sd[own], force_sd[rows] = said.energy_sd, said.force_sd
    return ProcessPrediction(
        energies,
        forces,
        tensors if stress else None,
        energy_sd if spread else None,
        force_sd if spread else None,
    )


def joined_errors(parts: Sequence[tuple[Sequence[int], LeaveOneOutErrors]], count: int) -> LeaveOneOutErrors:
    """Energies in the order of the structures; force components of one process after those of the other."""
    energies, variances = np.full(count, np.nan), np.full(count, np.nan)
    for own, errors in parts:
        energies[list(own)], variances[list(own)] = errors.energies, errors.energy_variances
    forces = np.concatenate([errors.forces for _, errors in parts])
    return LeaveOneOutErrors(
        energies, forces, variances, np.concatenate([errors.force_variances for _, errors in parts])
    )


def _less(label: Label, base: Label) -> Label:
    return Label(label.energy - base.energy, label.forces - base.forces)


def _more(said: ProcessPrediction, base: Sequence[Label], stress: bool) -> ProcessPrediction:
    energies = said.energies + np.array([label.energy for label in base])
    forces = said.forces + np.concatenate([label.forces for label in base])
    if not stress or said.stress is None:
        return replace(said, energies=energies, forces=forces)
    none = np.full((3, 3), np.nan)
    return replace(
        said, energies=energies, forces=forces,
        stress=said.stress + np.array([none if b.stress is None else b.stress for b in base]),
    )  # fmt: skip
