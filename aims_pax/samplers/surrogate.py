"""A Gaussian process that learns the labels of a run so far, as the potential of samplers: `potential: surrogate.gpr`.

Samplers are given new labels by `new_labels` (see `aims_pax.sampler.LearnsFromLabels`). What the process predicts moves
atoms and tells how uncertain a structure is; it is never the label of a structure.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase.calculators.calculator import CalculatorError
from numpy.typing import NDArray

from aims_pax.dataset import read_extxyz
from aims_pax.errors import LabelError, SettingsError
from aims_pax.frames import Array, Frame, Label, LabelledFrame
from aims_pax.models.gp.process import GaussianProcess
from aims_pax.potential import Bound, LabelsBound, Potential
from aims_pax.sampler import LearnsFromLabels, Sample, Sampler, SamplingError, Stateful
from aims_pax.surrogate_labels import refuse_surrogate_labels
from aims_pax.systems import System

log = logging.getLogger(__name__)

FIRST = 5  # labels without which a process is not used
NEWEST = 200  # labels that it learns at most
RATTLE = 0.05  # Å, of structures that are made while the process cannot move atoms
# {(atoms, pbc): {"charge": …, "spin": …}}, as far as they are stated
Electrons = dict[tuple[Any, ...], dict[str, Any]]


class SurrogatePotential:
    """The process, and the labels that it learns when it is next used. It is a `Potential`.

    baseline: the prior mean, or None. given: labels that it has from the beginning. check: called often during fits; it
    raises when the run should stop.
    """

    def __init__(
        self,
        baseline: Potential | None = None,
        given: Sequence[LabelledFrame] = (),
        check: Callable[[], Any] = lambda: None,
    ) -> None:
        self.baseline, self.check = baseline, check
        self._labelled: dict[str, LabelledFrame] = {}
        self._tried: set[str] = set()  # structures on which the baseline has not failed
        self._process: GaussianProcess | None = None
        self._electrons: Electrons = {}
        self._refused: set[str] = set()
        self.new_labels(given)

    def new_labels(self, labelled: Sequence[LabelledFrame]) -> None:
        """Learn these too. Labels of isolated atoms, and those that it has already, change nothing.

        Of structures of the same atoms only those with the charge and multiplicity of the first are learnt.
        """
        new: dict[str, LabelledFrame] = {}
        for x in labelled:
            if len(x.frame) == 1 or x.id in self._labelled:
                continue
            if agree_on_electrons(x.frame, self._electrons):
                new[x.id] = x
            elif (name := electrons_in_words(x.frame)) not in self._refused:
                self._refused.add(name)
                log.warning(
                    "surrogate: labels of %s are not learnt, and its structures are rattled: the process knows "
                    "positions only, and has labels of these atoms with another charge or multiplicity",
                    name,
                )
        if new:
            self._labelled |= new
            self._process = None

    def ready(self, frame: Frame) -> bool:
        """Whether it has learnt enough for structures like this: FIRST labels, and one of the same atoms, charge and
        multiplicity."""
        learnt = self._learnt()
        if len(learnt) < FIRST or not agree_on_electrons(frame, self._electrons, learn=False):
            return False
        atoms = sorted(frame.numbers)
        return any(sorted(x.frame.numbers) == atoms and (x.frame.pbc == frame.pbc).all() for x in learnt)

    def _learnt(self) -> list[LabelledFrame]:
        """The newest labels; those on which the baseline fails are left out, with a line in the log."""
        while True:
            newest = [*self._labelled.values()][-NEWEST:]
            failed = [x for x in newest if not self._has_baseline(x)]
            if not failed:
                return newest
            for x in failed:
                del self._labelled[x.id]

    def _has_baseline(self, labelled: LabelledFrame) -> bool:
        if self.baseline is None or labelled.id in self._tried:
            return True
        try:
            self.baseline.labels([labelled.frame])
        except (LabelError, CalculatorError) as error:
            log.warning(
                "surrogate: structure %s is not learnt: the baseline fails: %s", labelled.id[:6], error
            )
            return False
        self._tried.add(labelled.id)
        return True

    def parents_of(self, frame: Frame) -> list[Frame]:
        """Labelled structures like this one, positions and cell aside, that were not rattled themselves: rattling them
        again and again, and choosing what is uncertain, would lead away from all structures that matter."""
        known = (x for x in self._labelled.values() if x.origin.get("moved_by") != "rattle")
        return [x.frame for x in known if x.frame.constitution == frame.constitution]

    @property
    def process(self) -> GaussianProcess:
        """The process of the newest labels."""
        if self._process is None:
            newest = self._learnt()
            name = "" if self.baseline is None else "baseline"
            self._process = GaussianProcess.fit(
                newest, baseline=self.baseline, baseline_name=name, check=self.check
            )
            log.info(
                "surrogate: Gaussian process of %d labels · leave-one-out force MAE %.1f meV/Å",
                len(newest), 1000 * self._process.errors.force_mae,
            )  # fmt: skip
        return self._process

    def labels(self, frames: Sequence[Frame]) -> list[Label]:
        """Predictions, for moving atoms."""
        return self.process.labels(frames)

    def bind(self, frames: Sequence[Frame]) -> Bound:
        """For MD, without deviations, which take longer."""
        return LabelsBound(self.process.labels, frames)

    def deviations(self, frames: Sequence[Frame]) -> Array:
        """(F,) eV/Å, the largest standard deviation of a force component on an atom that can move.

        The baseline, which may fail on a structure, adds nothing to them and is not evaluated.
        """
        said = replace(self.process, baseline=None).predict(frames, spread=True)
        assert said.force_sd is not None
        parts = np.split(said.force_sd, np.cumsum([len(f) for f in frames])[:-1])
        free = (
            sd if f.fixed is None else np.where(f.fixed, 0.0, sd) for f, sd in zip(frames, parts, strict=True)
        )
        return np.array([sd.max() for sd in free])


class SurrogateDriven:
    """A sampler whose potential is a surrogate. Where that cannot move atoms yet, or its motion fails, structures are
    rattled instead: labelled ones, or the starting structure."""

    def __init__(self, inner: Sampler, surrogate: SurrogatePotential) -> None:
        self.inner, self.surrogate, self.name = inner, surrogate, inner.name

    def new_labels(self, labelled: Sequence[LabelledFrame]) -> None:
        """For the process, and for the sampler if it learns by itself."""
        self.surrogate.new_labels(labelled)
        if isinstance(self.inner, LearnsFromLabels):
            self.inner.new_labels(labelled)

    def sample(self, systems: Sequence[System], n: int, rng: np.random.Generator) -> Iterator[Sample]:
        """n structures of each system, one of each in turn."""
        moved = [s for s in systems if self.surrogate.ready(s.frame)]
        other = np.random.default_rng(int(rng.integers(2**63)))
        driven = self.inner.sample(moved, n, rng) if moved else iter(())
        for _ in range(n):
            for system in systems:
                sample = None
                if system in moved:
                    try:
                        sample = next(driven, None)
                    except SamplingError as error:
                        log.warning("%s; rattled structures instead, for this batch", error)
                        moved = []
                yield sample or rattled_sample(system, self.surrogate, RATTLE, self.name, other)

    def state_arrays(self) -> dict[str, NDArray[Any]]:
        """That of the sampler; what the process has learnt follows from the labels."""
        return self.inner.state_arrays() if isinstance(self.inner, Stateful) else {}

    def load_state_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Restore the state from `state_arrays`."""
        if isinstance(self.inner, Stateful):
            self.inner.load_state_arrays(arrays)


def agree_on_electrons(frame: Frame, known: Electrons, learn: bool = True) -> bool:
    """Whether charge and multiplicity of this structure agree, as far as both are stated, with those of the same atoms.

    learn: what they are is added to `known`, if it agrees.
    """
    atoms = (*sorted(frame.numbers.tolist()), *frame.pbc.tolist())
    stated = {"charge": frame.charge, "spin": frame.spin}
    own = {name: value for name, value in stated.items() if value is not None}
    before = known.get(atoms, {})
    if any(before.get(name, value) != value for name, value in own.items()):
        return False
    if learn:
        known[atoms] = {**before, **own}
    return True


def electrons_in_words(frame: Frame) -> str:
    """A structure and what it says of charge and multiplicity."""
    charge = "" if frame.charge is None else f", charge {frame.charge:g}"
    return f"{frame.formula}{charge}" + ("" if frame.spin is None else f", multiplicity {frame.spin}")


def rattled_sample(
    system: System, surrogate: SurrogatePotential, sigma: float, name: str, rng: np.random.Generator
) -> Sample:
    """A labelled structure of the system that was not rattled, or its starting structure, with normal displacements.

    sigma: Å. The mean of the displacements is zero along directions in which no atom is fixed.
    """
    known = surrogate.parents_of(system.frame) or [system.frame]
    parent = known[int(rng.integers(len(known)))]
    steps = rng.normal(0, sigma, parent.positions.shape)
    if len(parent) > 1:
        steps -= steps.mean(0) if parent.fixed is None else np.where(parent.fixed.any(0), 0.0, steps.mean(0))
    if parent.fixed is not None:
        steps[parent.fixed] = 0
    origin: dict[str, str | int | float] = {"sampler": name, "system": system.name, "moved_by": "rattle"}
    return Sample(parent.moved(parent.positions + steps), None, origin)


def labelled_file(folder: Path, name: str | None, place: str) -> list[LabelledFrame]:
    """The labelled structures of a file, with MACE's names of labels. Raises SettingsError naming the key."""
    if name is None:
        return []
    try:
        found = list(read_extxyz(folder / Path(name).expanduser()))
        refuse_surrogate_labels(found, "learnt by a surrogate")
        _one_charge_and_spin(found, name)
    except SettingsError as error:
        raise SettingsError(f"{place}: {error}") from error
    if not found:
        raise SettingsError(f"{place}: {name}: no structures in it")
    return found


def _one_charge_and_spin(found: Sequence[LabelledFrame], name: str) -> None:
    """Raise SettingsError for structures of the same atoms with different charges or multiplicities."""
    known: Electrons = {}
    for number, x in enumerate(found, 1):
        if not agree_on_electrons(x.frame, known):
            raise SettingsError(
                f"{name}: structure {number} (counted from 1; {electrons_in_words(x.frame)}) has another charge or "
                "multiplicity than one before it of the same atoms: a process knows positions only; give those of one"
            )
