"""Potentials: anything that computes energies and forces, e.g. a calculator, a foundation model or a committee.

There are two protocols. `Potential.labels` labels a list of frames. `Potential.bind` fixes a list of structures and
returns a `Bound`, which is called at every MD step while only positions and cells change; it evaluates all structures
at once, and all members of a committee.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from aims_pax.errors import Crashed, NotConverged, SetupError, WrongShape
from aims_pax.frames import Array, Frame, Label
from aims_pax.processes import interruptible

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

AT_ONCE = 32  # frames that `evaluations` evaluates together
MOVED = 1e-4  # Å: far above the rounding of positions that a calculator reads from its files


@dataclass(frozen=True)
class Evaluation:
    """Results of M members for F structures with A atoms in total.

    energies: (M, F) eV. forces: (M, A, 3) eV/Å. stress: (M, F, 3, 3) eV/Å³, or None if not requested.
    spread: (A,) eV/Å, the uncertainty of the forces predicted by the model itself; None: only from the members.
    NumPy arrays or torch tensors, like the positions of the caller.
    """

    energies: Any
    forces: Any
    stress: Any | None = None
    spread: Any | None = None


class Bound(Protocol):
    """A potential bound to F structures with A atoms in total; only positions and cells change.

    A binding with an attribute `drives = True` can evaluate each structure with only one of its members, at the cost
    of one: called with `driving_members=(m₀, …, m_F−1)` it returns M = 1, structure f evaluated by member m_f.
    """

    members: int
    device: str

    def __call__(self, positions: Any, cells: Any, *, stress: bool = False) -> Evaluation:
        """positions: (A, 3) Å float64, cells: (F, 3, 3) Å float64, torch tensors on `device`."""
        ...


@runtime_checkable
class Potential(Protocol):
    """Energies and forces of structures."""

    def labels(self, frames: Sequence[Frame]) -> list[Label]:
        """One label per frame, in order; with stress, if available, for frames periodic in three directions."""
        ...

    def bind(self, frames: Sequence[Frame]) -> Bound:
        """Fix the structures; see `Bound`."""
        ...


class Electrons(Protocol):
    """How charge and spin of structures are passed to a calculator; see `settings.calculator_conventions`."""

    def maker(self, frame: Frame) -> Callable[[], Calculator]:
        """A function that makes a calculator for the charge and spin of this frame."""
        ...

    def dressed(self, frame: Frame) -> Frame:
        """The frame with the initial charges and moments that the calculator reads from the atoms."""
        ...


def evaluations(
    potential: Potential, frames: Sequence[Frame]
) -> Iterator[tuple[Sequence[Frame], Evaluation]]:
    """All members on any number of frames: some of the frames at a time, with NumPy arrays in double precision."""
    import torch

    for k in range(0, len(frames), AT_ONCE):
        part = frames[k : k + AT_ONCE]
        bound = potential.bind(part)
        positions = torch.tensor(np.concatenate([f.positions for f in part]), dtype=torch.float64)
        cells = torch.tensor(np.stack([f.cell for f in part]), dtype=torch.float64)
        said = bound(positions.to(bound.device), cells.to(bound.device))
        energies, forces, own = (
            None if v is None else torch.as_tensor(v).detach().cpu().double().numpy()
            for v in (said.energies, said.forces, said.spread)
        )
        yield part, Evaluation(energies, forces, spread=own)


class CalculatorPotential:
    """Any ASE calculator, made by `make`. Each structure of a binding has its own, so that its caches stay valid.

    electrons: how charge and spin are passed to it; None: not at all, or by `atoms.info`. A calculator that was made
    for one charge and spin is not used for another.
    """

    def __init__(self, make: Callable[[], Calculator], electrons: Electrons | None = None) -> None:
        self.make = make
        self.electrons = electrons
        self._shared: dict[tuple[float | None, int | None], Calculator] = {}

    def labels(self, frames: Sequence[Frame]) -> list[Label]:
        labels = []
        for frame in frames:
            key = (None, None) if self.electrons is None else (frame.charge, frame.spin)
            if key not in self._shared:
                self._shared[key] = self._maker(frame)()
            labels.append(calculate(self._dressed(frame), self._shared[key]))
        return labels

    def labels_afresh(self, frames: Sequence[Frame]) -> list[Label]:
        """The same with a new calculator for each frame, so that no label depends on an earlier structure."""
        return [calculate(self._dressed(frame), self._maker(frame)()) for frame in frames]

    def bind(self, frames: Sequence[Frame]) -> Bound:
        """Fix the structures. A calculator receives what has changed since its last step, as from ASE: one
        that starts from its last density needs fewer SCF cycles. The first step never depends on an earlier binding.
        """
        own = [self._maker(frame)() for frame in frames]
        last: dict[int, Frame] = {}  # of each calculator; several structures may share one

        def labels(moved: list[Frame]) -> list[Label]:
            found = []
            for frame, calculator in zip(map(self._dressed, moved), own, strict=True):
                before = last.pop(id(calculator), None)  # after a failure everything begins again
                found.append(calculate(frame, calculator, before=before))
                last[id(calculator)] = frame
            return found

        return LabelsBound(labels, frames)

    def _maker(self, frame: Frame) -> Callable[[], Calculator]:
        return self.make if self.electrons is None else self.electrons.maker(frame)

    def _dressed(self, frame: Frame) -> Frame:
        return frame if self.electrons is None else self.electrons.dressed(frame)


class LabelsBound:
    """A `Bound` from a function that labels frames: one member, on the CPU."""

    members = 1
    device = "cpu"

    def __init__(self, labels: Callable[[list[Frame]], list[Label]], frames: Sequence[Frame]) -> None:
        self.labels = labels
        self.frames = list(frames)
        self.ends = np.cumsum([len(f) for f in frames])

    def __call__(self, positions: Any, cells: Any, *, stress: bool = False) -> Evaluation:
        import torch

        parts = np.split(positions.detach().cpu().numpy(), self.ends[:-1])
        moved = [f.moved(p, c) for f, p, c in zip(self.frames, parts, cells.cpu().numpy(), strict=True)]
        labels = self.labels(moved)
        nowhere = np.full((3, 3), np.nan)
        tensors = [nowhere if label.stress is None else label.stress for label in labels]
        return Evaluation(
            torch.tensor([[label.energy for label in labels]], dtype=torch.float64),
            torch.from_numpy(np.concatenate([label.forces for label in labels]))[None],
            torch.from_numpy(np.stack(tensors))[None] if stress else None,
        )


class EvaluatedPotential:
    """A potential of M members that are evaluated together, in NumPy, for any list of frames.

    evaluate: frames → Evaluation, arrays as described there. elements: atomic numbers that it supports.
    has_spread: whether its evaluations include a `spread`.
    """

    def __init__(
        self,
        evaluate: Callable[[Sequence[Frame]], Evaluation],
        elements: Sequence[int],
        members: int = 1,
        has_spread: bool = False,
    ) -> None:
        self.evaluate, self.elements = evaluate, tuple(elements)
        self.members, self.has_spread = members, has_spread

    def labels(self, frames: Sequence[Frame]) -> list[Label]:
        """The mean over the members, frame by frame."""
        said = self.evaluate(frames)
        parts = np.split(said.forces.mean(0), np.cumsum([len(f) for f in frames])[:-1])
        stress = [None] * len(frames) if said.stress is None else list(said.stress.mean(0))
        return [
            Label(float(energy), forces, tensor if frame.periodic else None)
            for frame, energy, forces, tensor in zip(
                frames, said.energies.mean(0), parts, stress, strict=True
            )
        ]

    def bind(self, frames: Sequence[Frame]) -> Bound:
        return _EvaluatedBound(self, frames)


class _EvaluatedBound:
    """The `Bound` of an `EvaluatedPotential`, on the CPU."""

    device = "cpu"

    def __init__(self, potential: EvaluatedPotential, frames: Sequence[Frame]) -> None:
        self.evaluate, self.members, self.frames = potential.evaluate, potential.members, list(frames)
        self.ends = np.cumsum([len(f) for f in frames])

    def __call__(self, positions: Any, cells: Any, *, stress: bool = False) -> Evaluation:
        import torch

        parts = np.split(positions.detach().cpu().numpy(), self.ends[:-1])
        said = self.evaluate(
            [f.moved(p, c) for f, p, c in zip(self.frames, parts, cells.cpu().numpy(), strict=True)]
        )
        arrays = (said.energies, said.forces, said.stress if stress else None, said.spread)
        return Evaluation(*(None if a is None else torch.from_numpy(np.ascontiguousarray(a)) for a in arrays))


def calculate(
    frame: Frame, calculator: Calculator, stress: bool = True, before: Frame | None = None
) -> Label:
    """Label one frame with an ASE calculator: raw forces (also on fixed atoms) and the consistent energy.

    The free energy is used if the calculator has one, because forces are its derivative. Stress is computed if the
    frame is periodic and the calculator implements it. before: what this calculator has evaluated last, from which it
    may start; None: it begins anew, so that the label does not depend on its history. Raises whatever the calculator
    raises; NotConverged if it only notes that it has not converged; WrongShape for results that are no label;
    SetupError if it is no calculator of forces, or has changed the structure.
    """
    can = _implemented(calculator)
    atoms = frame.to_atoms()
    atoms.set_constraint()  # calculators write constraints to their input, and programs print zero forces for them
    atoms.calc = calculator
    with_stress = stress and frame.periodic and "stress" in can
    wanted = ["energy", "forces", *(["stress"] if with_stress else [])]
    if isinstance(getattr(calculator, "__dict__", {}).get("results"), dict):  # not a property
        calculator.results = {}  # as ASE does: what it does not compute now would be of an earlier structure
    changes = _changes(calculator, before, frame)
    try:
        with interruptible():  # one call for all: separate calls make some calculators compute twice
            calculator.calculate(atoms, wanted, changes)
    except SystemExit as error:
        raise Crashed(
            f"{type(calculator).__name__} has ended the program: sys.exit({error.code!r})"
        ) from error
    _check_single_point(frame, atoms, calculator)
    return _label(calculator, with_stress)


def _implemented(calculator: Any) -> set[str]:
    """What it can compute. Raises SetupError for an object that is no calculator, or computes no forces."""
    name = type(calculator).__name__
    can = getattr(calculator, "implemented_properties", None)
    if can is None or not callable(getattr(calculator, "calculate", None)):
        raise SetupError(
            f"this is no ASE calculator but {name}, without implemented_properties or calculate(): the factory must "
            "return a calculator derived from ase.calculators.calculator.Calculator"
        )
    if not {"energy", "free_energy"} & set(can) or "forces" not in can:
        raise SetupError(
            f"{name} computes {', '.join(can) or 'nothing'} (its implemented_properties), but a label needs energy and "
            "forces; choose another calculator"
        )
    return set(can)


def _label(calculator: Any, with_stress: bool) -> Label:
    """The label in the results of a calculator; None in them counts as missing. Raises WrongShape."""
    name = type(calculator).__name__
    results = {key: value for key, value in calculator.results.items() if value is not None}
    energy = _numbers(results, "free_energy" if "free_energy" in results else "energy", name)
    if energy.size != 1:
        raise WrongShape(f"{name} gives an energy of shape {energy.shape}; expected one number")
    stress = _numbers(results, "stress", name) if with_stress and "stress" in results else None
    if stress is not None and stress.shape not in ((6,), (9,), (3, 3)):
        raise WrongShape(f"{name} gives a stress of shape {stress.shape}; expected (6,) or (3, 3)")
    forces = _numbers(results, "forces", name)
    return Label(float(energy.item()), forces, None if stress is None else full_stress(stress))


def _numbers(results: Mapping[str, Any], key: str, name: str) -> Array:
    """A result as an array; masked numbers are NaN. Raises WrongShape if it is missing, or holds anything else."""
    if key not in results:
        given = ", ".join(map(str, results)) or "nothing"
        raise WrongShape(f"{name} gives no {key} (it gives: {given})")
    value = results[key]
    try:
        if np.iscomplexobj(value):
            raise TypeError("complex numbers")
        return np.ma.filled(np.ma.array(value, float), np.nan)
    except (TypeError, ValueError, RuntimeError) as error:
        raise WrongShape(f"the {key} of {name} cannot be read as numbers: {error}") from error


def _check_single_point(frame: Frame, atoms: Atoms, calculator: Calculator) -> None:
    """Raise NotConverged or SetupError for a result that is not the label of this frame."""
    from ase.geometry import find_mic

    name = type(calculator).__name__
    for part in parts_of(calculator):
        converged = getattr(part, "converged", None)  # of Vasp, which raises nothing; may also be a method
        if isinstance(converged, bool | np.bool_) and not converged:
            who = type(part).__name__
            raise NotConverged(f"{who} notes that its self-consistency cycle did not converge")
    if not np.array_equal(atoms.numbers, frame.numbers) or (frame.pbc & ~atoms.pbc).any():
        raise SetupError(
            f"{name} has changed the structure that it was given from {frame.formula}, pbc {_pbc(frame.pbc)}, to "
            f"{atoms.get_chemical_formula()}, pbc {_pbc(atoms.pbc)}, or the order of its atoms: its forces may be of "
            "another structure; let it work on a copy (atoms.copy())"
        )
    if np.array_equal(atoms.positions, frame.positions) and np.array_equal(atoms.cell.array, frame.cell):
        return
    away = find_mic(atoms.positions - frame.positions, frame.cell, frame.pbc)[1].max()
    strained = abs(atoms.cell.array - frame.cell)[frame.pbc].max(initial=0.0)
    if max(away, strained) > MOVED:
        raise SetupError(
            f"{name} has moved atoms by {away:.3g} Å and lattice vectors by {strained:.3g} Å: a label is a single "
            "point; remove relaxation and dynamics from its arguments"
        )


def _pbc(pbc: Any) -> str:
    return "".join("FT"[bool(p)] for p in pbc)


def parts_of(calculator: Any) -> Iterator[Any]:
    """A calculator and all calculators inside it, each once."""
    from ase.calculators.abc import GetPropertiesMixin
    from ase.calculators.mixing import Mixer

    found, left = {}, [calculator]
    while left:
        one = left.pop(0)
        if id(one) in found:
            continue
        found[id(one)] = one
        yield one
        for value in getattr(one, "__dict__", {}).values():
            inside = value.calcs if isinstance(value, Mixer) else value
            several = inside if isinstance(inside, list | tuple) else [inside]
            left += [part for part in several if isinstance(part, GetPropertiesMixin)]


def full_stress(stress: Any) -> Array:
    """(3, 3) from ASE's Voigt order xx, yy, zz, yz, xz, xy; of nine numbers nothing but the shape changes."""
    from ase.stress import voigt_6_to_full_3x3_stress

    full = np.reshape(stress, (3, 3)) if np.size(stress) == 9 else voigt_6_to_full_3x3_stress(stress)
    return np.asarray(full, float)


def _changes(calculator: Any, before: Frame | None, frame: Frame) -> list[str]:
    """ASE's `system_changes` for this step: everything, or only positions and cell."""
    from ase.calculators.calculator import Calculator, all_changes

    moved = before is not None and before.constitution == frame.constitution
    if not moved or not isinstance(calculator, Calculator):
        return list(all_changes)
    assert before is not None
    calculator.reset()  # as ASE does before each step; some keep in it what the next step may not use
    return ["positions"] if np.array_equal(before.cell, frame.cell) else ["positions", "cell"]
