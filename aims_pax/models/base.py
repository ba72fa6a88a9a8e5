"""The interface between models of any family and the rest of the program.

Learner            trained on labelled frames, validated on others; can be snapshotted, restored and saved
ForceFieldModel    a learner that gives energies and forces: `potential()`
GenerativeModel    a learner that gives structures: `sampler()`

A learner consists of one or more members, each with a name, a seed and its own data. A family implements the abstract
methods; the other methods are optional, and a run does without those that a family does not override.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from aims_pax.errors import AimsPaxError, RestartError
from aims_pax.frames import Array, Frame, LabelledFrame
from aims_pax.models.evaluate import evaluate_potential, spreads_and_errors
from aims_pax.potential import Evaluation, Potential

Arrays = dict[str, NDArray[Any]]
Words = tuple[str | int, ...]


@dataclass(frozen=True)
class MemberData:
    """Training and validation frames of one member.

    copies: structures with labels of a surrogate, for families that learn from them (`ModelKind.learns_from_copies`):
    they are in the loss of training, with `copy_weight`, and in nothing else: neither the zero of energy nor scales.
    """

    train: Sequence[LabelledFrame]
    valid: Sequence[LabelledFrame] = ()
    copies: Sequence[LabelledFrame] = ()
    copy_weight: float = 1.0


@dataclass(frozen=True)
class EpochResult:
    """One epoch; epoch: number since the member was built. NaN: not evaluated. Units as in `MemberResult`."""

    epoch: int
    train_loss: float
    valid_loss: float = math.nan
    energy_mae: float = math.nan
    force_mae: float = math.nan
    stress_mae: float | None = None


@dataclass(frozen=True)
class MemberResult:
    """The result of training or of a validation. NaN before the first validation.

    epochs: trained in this visit. losses: in the family's own unit. energy_mae: eV/atom, force_mae: eV/Å, stress_mae:
    eV/Å³, None without stress. kicked: the optimiser was reset because the loss did not improve. skipped: batches whose
    loss was not finite. restored: the weights became non-finite, so the previous ones were restored.
    """

    name: str
    epochs: int
    train_loss: float
    valid_loss: float
    energy_mae: float
    force_mae: float
    stress_mae: float | None
    history: tuple[EpochResult, ...] = ()
    kicked: bool = False
    skipped: int = 0
    restored: bool = False


def after_training(look: MemberResult, epochs: int, age: int, train_loss: float = math.nan) -> MemberResult:
    """The result of a visit of so many epochs, from the validation at its end.

    age: epochs since the member was built, including these.
    """
    errors = (look.valid_loss, look.energy_mae, look.force_mae, look.stress_mae)
    last = EpochResult(age, train_loss, *errors)
    return replace(look, epochs=epochs, train_loss=train_loss, history=(last,))


@dataclass(frozen=True)
class EnergyZero:
    """The zero of energy of a model: energies (eV) of isolated atoms, by atomic number.

    source: where they come from, as text for the user. rank: number of independent compositions they were fitted to; if
    smaller than the number of elements, they are not determined.
    """

    energies: Mapping[int, float]
    source: str
    rank: int


@dataclass(frozen=True)
class Precision:
    """How accurately a delivered file, loaded as users do, reproduces the energies of this run.

    dtype: of the file. resolution: eV between neighbouring numbers of single precision at the largest energy.
    difference: largest deviation (eV) of energies of one composition, relative to each other.
    loader: the call that loads the file, for the model card.
    """

    dtype: str
    resolution: float
    difference: float
    loader: str = ""


class ModelPotential(Potential, Protocol):
    """The potential of M members. `labels` returns their mean."""

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers that the model supports."""
        ...

    @property
    def members(self) -> int: ...

    def evaluate(self, frames: Sequence[Frame]) -> Evaluation:
        """All members on all frames at once."""
        ...


class NamedMember(Protocol):
    """The public attributes of a member."""

    @property
    def name(self) -> str: ...
    @property
    def seed(self) -> int: ...


class TrainingProcessLost(AimsPaxError):
    """A training process has ended without a result; no member was changed, so the visit can be repeated.

    killed: whether by SIGKILL, for example because memory ran out.
    """

    def __init__(self, text: str, killed: bool = False) -> None:
        super().__init__(text)
        self.killed = killed


class ProcessPool(Protocol):
    """Processes that train members. A context manager: they are ended when it exits."""

    def __enter__(self) -> Any: ...
    def __exit__(self, *_: object) -> None: ...
    def warm(self) -> None:
        """Start the processes now."""
        ...

    def shrink(self) -> None:
        """Use less memory from now on; called after a process was killed, perhaps because memory ran out."""
        ...


def never_stop_training() -> bool:
    """False: the default for `stop`."""
    return False


class Learner(ABC):
    """Trainable members. `version` grows with every change of the content of `arrays`.

    elements: supported atomic numbers. visits: number of visits (calls of `train`) so far.
    fits_at_once: each visit fits from scratch, for example by an exact solution. It then always sees all data, and
    convergence is one visit.
    """

    members: Sequence[NamedMember]
    elements: tuple[int, ...]
    version: int = 0
    visits: int = 0
    fits_at_once: bool = False

    # ------------------------------------------------------------ required of every family

    @property
    @abstractmethod
    def trained(self) -> bool:
        """Whether every member has been trained, so that predictions are meaningful."""

    @abstractmethod
    def train(
        self,
        data: Mapping[int, MemberData],
        epochs: int,
        *,
        words: Words | None = None,
        stop: Callable[[], bool] = never_stop_training,
        valid_skip: int = 1,
        schedule: bool = True,
        margin: float = 0.0,
        patience: int | None = None,
    ) -> list[MemberResult]:
        """One training visit of each member in `data`; returns validation errors. Increments `version` and `visits`.

        words: the name of the visit, which seeds all randomness. stop: called often; when it returns True, Abandoned is
        raised and the learner is unchanged. valid_skip: validate every so many epochs. schedule: whether the learning
        rate changes. margin: decrease of the loss that counts as improvement. patience: epochs_per_worker, for families
        that reset the optimiser when the loss does not improve. For a family without epochs one fit counts as all.
        """

    @abstractmethod
    def validate(self, data: Mapping[int, MemberData]) -> list[MemberResult]:
        """Loss and errors of members on their validation sets, without training."""

    @abstractmethod
    def member_arrays(self, member: int) -> Arrays:
        """The complete state of a member: bit-exact copies, without constants and without pickle."""

    @abstractmethod
    def load_member(self, member: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Restore from `member_arrays`, bit for bit. Raises RestartError when they are of another architecture."""

    @abstractmethod
    def save(self, member: int, path: Path) -> None:
        """Write a member atomically as a file that its kind can load."""

    # ------------------------------------------------------------ optional, for some families

    def check_frame(self, frame: Frame) -> None:
        """Called before a frame is labelled. Raises LabelError if the members cannot learn from it."""

    def check_frames(self, frames: Sequence[Frame], check: Callable[[], None] = lambda: None) -> None:
        """Prepares `check_frame` for many frames at once. check: called often; it raises when the run should stop."""

    def begin_convergence(self, members: Sequence[int] | None = None) -> None:
        """Called before the last phase of training, of these members or all: reset the state of the earlier phase."""

    def finish_convergence(self, data: Mapping[int, MemberData]) -> None:
        """Called after the best weights of these members were restored: last steps before delivery."""

    def refit_offsets(self, data: Mapping[int, MemberData]) -> None:
        """Refit the zero of energy on the whole training sets; forces do not change."""

    def inference_arrays(self, member: int) -> Arrays:
        """The arrays that a member's predictions depend on, to be restored later or sent to another process."""
        return self.member_arrays(member)

    def set_inference_arrays(self, member: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Restore from `inference_arrays`, bit for bit. Raises RestartError for another architecture."""
        self.load_member(member, arrays)
        self.version += 1

    def describe(self, member: int) -> dict[str, Any]:
        """The architecture of a member as plain values by name, for models.json and the model card."""
        return {}

    def train_elsewhere(
        self,
        pool: Any,
        data: Mapping[int, MemberData],
        epochs: int,
        *,
        words: Words,
        stop: Callable[[], bool] = never_stop_training,
        valid_skip: int = 1,
        schedule: bool = True,
        margin: float = 0.0,
        patience: int | None = None,
    ) -> Future[Any]:
        """`train` in the processes of `ModelKind.training_pool`; pass the result of the future to `take`.

        The members are unchanged until then. The future raises Abandoned, TrainingProcessLost or the visit's exception.
        """
        raise NotImplementedError(f"{type(self).__name__} trains in the driver's process only")

    def take(self, trained: Any) -> list[MemberResult]:
        """Load the result of `train_elsewhere` into the members."""
        raise NotImplementedError(f"{type(self).__name__} trains in the driver's process only")

    # ------------------------------------------------------------ the same for all families

    def __len__(self) -> int:
        return len(self.members)

    def begin_from(self, other: Learner) -> None:
        """Take over the weights of other members of the same architecture, as the beginning of a new training."""
        for k in range(len(self.members)):
            self.load_member(k, other.member_arrays(k))
        self.version += 1

    def begin_again(self, beginning: Learner, members: Sequence[int], share: float = 0.0) -> None:
        """Take members back to what they began from, before a new training; only their count of epochs may remain.

        beginning: all members before their first training. share: of the present weights that remains, which only
        families with weights override: w ← share·w + (1 − share)·w₀ (after Ash and Adams 2020, arXiv:1910.08475).
        """
        if share:
            raise NotImplementedError(f"{type(self).__name__} cannot keep a share of its weights")
        for k in members:
            self.load_member(k, beginning.member_arrays(k))
        self.version += 1

    def arrays(self) -> Arrays:
        """The complete state: flat names `0/param/…`, plain numbers, no pickle."""
        out: Arrays = {
            "names": np.array([m.name for m in self.members]),
            "counts": np.array([self.version, self.visits]),
        }
        for k in range(len(self.members)):
            out |= {f"{k}/{name}": value for name, value in self.member_arrays(k).items()}
        return out

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Restore from `arrays`, bit for bit. Raises RestartError when they belong to other members."""
        names = [str(n) for n in arrays["names"]]
        if names != [m.name for m in self.members]:
            raise RestartError(
                f"the saved ensemble holds {', '.join(names)}, the settings ask for "
                f"{', '.join(m.name for m in self.members)}: undo the change of seeds, names or ensemble_size"
            )
        for k in range(len(self.members)):
            prefix = f"{k}/"
            own = {w.removeprefix(prefix): a for w, a in arrays.items() if w.startswith(prefix)}
            self.load_member(k, own)
        self.version, self.visits = (int(n) for n in arrays["counts"])


class ForceFieldModel(Learner):
    """A learner whose members give energies and forces.

    has_spread: each member predicts its own uncertainty, `spread` (eV/Å). Otherwise the uncertainty is the disagreement
    of the members, which one member alone does not have. baseline: the potential to which they learn the difference.
    """

    has_spread: bool = False
    baseline: Any = None

    @abstractmethod
    def potential(self, members: Sequence[int] | None = None) -> ModelPotential:
        """All (or the selected) members, with their current weights, as a potential.

        A call after training also updates potentials returned earlier.
        """

    def validate(self, data: Mapping[int, MemberData]) -> list[MemberResult]:
        """Errors of members on their validation sets; the loss is the mean squared error of force components."""
        results = []
        for m, own in data.items():
            loss, energy, force, stress = math.nan, math.nan, math.nan, None
            if own.valid:
                table = evaluate_potential(self.potential([m]), own.valid)
                loss, energy, force = table.force_rmse**2, table.energy_per_atom_mae, table.force_mae
                stress = table.stress_mae
            results.append(MemberResult(self.members[m].name, 0, math.nan, loss, energy, force, stress))
        return results

    def spreads_and_errors(self, labelled: Sequence[LabelledFrame]) -> list[tuple[Array, Array]]:
        """For each structure the spread of all members (N,) and the absolute error of their mean force (N, 3), eV/Å."""
        return spreads_and_errors(self.potential(), labelled)

    def energy_zero(self) -> EnergyZero | None:
        """The zero of energy of the first member; None if the family has no atomic energies."""
        return None

    def deliver(self, member: int, path: Path, energies: Sequence[float] = ()) -> None:
        """`save` for the user. energies (eV): values that the precision of the file must resolve."""
        self.save(member, path)

    def check_delivered(self, files: Mapping[int, Path], frames: Sequence[Frame]) -> Precision | None:
        """Load each delivered file (of a member) as users do and compare with `potential`; returns the worst result.

        None if the family delivers the same object that it computes with.
        """
        return None


class GenerativeModel(Learner):
    """A learner that generates structures like those it was trained on; it may ignore the labels."""

    @abstractmethod
    def sampler(self) -> Any:
        """A `samplers.base.Sampler` of the members with their current weights."""
