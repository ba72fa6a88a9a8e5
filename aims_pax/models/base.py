"""What a model is to the rest of the program, whatever family it belongs to.

Learner            learns from labelled frames, is judged by others, is snapshotted, restored and saved
ForceFieldModel    a learner that gives energies and forces: `potential()`
GenerativeModel    a learner that gives structures: `sampler()`

A learner consists of one or more members, each with a name and a seed, that learn from data of their own. A family
implements what is abstract here; what else it can do it overrides, and runs do without where it does not.
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
from aims_pax.frames import Frame, LabelledFrame
from aims_pax.models.evaluate import evaluate_potential
from aims_pax.potential import Evaluation, Potential

Arrays = dict[str, NDArray[Any]]
Words = tuple[str | int, ...]


@dataclass(frozen=True)
class MemberData:
    """What one member learns from and what it is judged by."""

    train: Sequence[LabelledFrame]
    valid: Sequence[LabelledFrame] = ()


@dataclass(frozen=True)
class EpochResult:
    """One epoch, counted over the member's life. What was not looked at is NaN. Units as in `MemberResult`."""

    epoch: int
    train_loss: float
    valid_loss: float = math.nan
    energy_mae: float = math.nan
    force_mae: float = math.nan
    stress_mae: float | None = None


@dataclass(frozen=True)
class MemberResult:
    """What training, or a look at the validation set, came to. NaN before the first validation.

    epochs: trained now. losses: in the family's own unit. energy_mae: eV/atom, force_mae: eV/Å, stress_mae: eV/Å³,
    None without any. kicked: the optimiser was made new for lack of progress. skipped: batches whose loss was not
    finite. restored: the weights went bad, those before are back.
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
    """What a visit of so many epochs came to, from a look at the validation set at its end.

    age: epochs in the member's life, these included.
    """
    errors = (look.valid_loss, look.energy_mae, look.force_mae, look.stress_mae)
    last = EpochResult(age, train_loss, *errors)
    return replace(look, epochs=epochs, train_loss=train_loss, history=(last,))


@dataclass(frozen=True)
class EnergyZero:
    """The energies (eV) of isolated atoms that a model counts from, by atomic number.

    source: where they come from, for a person. rank: independent compositions they were fitted to; fewer than elements
    leave them undetermined.
    """

    energies: Mapping[int, float]
    source: str
    rank: int


@dataclass(frozen=True)
class Precision:
    """How well a delivered file, loaded as its user does, gives the energies of this run.

    dtype: of the file. resolution: eV between neighbouring numbers of single precision at the largest energy.
    difference: eV by which energies of one composition, relative to each other, are other than ours, at most.
    loader: the call that loads it, for the model card.
    """

    dtype: str
    resolution: float
    difference: float
    loader: str = ""


class ModelPotential(Potential, Protocol):
    """The potential of M members. `labels` answers with their mean."""

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers it knows."""
        ...

    @property
    def members(self) -> int: ...

    def evaluate(self, frames: Sequence[Frame]) -> Evaluation:
        """All members on all frames at once."""
        ...


class NamedMember(Protocol):
    """What everybody may know of a member."""

    @property
    def name(self) -> str: ...
    @property
    def seed(self) -> int: ...


class TrainingProcessLost(AimsPaxError):
    """A training process has ended without an answer; nothing was changed, the work can be repeated.

    killed: whether by SIGKILL, as where memory ran out.
    """

    def __init__(self, text: str, killed: bool = False) -> None:
        super().__init__(text)
        self.killed = killed


class ProcessPool(Protocol):
    """Processes that train members; a context manager that ends them."""

    def __enter__(self) -> Any: ...
    def __exit__(self, *_: object) -> None: ...
    def warm(self) -> None:
        """Start the processes now."""
        ...

    def shrink(self) -> None:
        """After a process was killed, perhaps for want of memory: take less."""
        ...


def never_stop_training() -> bool:
    """Do not stop."""
    return False


class Learner(ABC):
    """Members that learn. `version` grows with every change of what `arrays` holds.

    elements: atomic numbers it knows. visits: calls of `train` in its life.
    fits_at_once: a visit forgets the one before, as where the fit is solved exactly: it always sees all data, and
    convergence is one visit.
    """

    members: Sequence[NamedMember]
    elements: tuple[int, ...]
    version: int = 0
    visits: int = 0
    fits_at_once: bool = False

    # ------------------------------------------------------------ what every family has

    @property
    @abstractmethod
    def trained(self) -> bool:
        """Whether every member has learnt, so that what it says means something."""

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
        """One visit of each member that `data` names, and its errors on its validation set. Counts `version`, `visits`.

        words: the visit's name, from which everything random follows. stop: looked at often; when it says so Abandoned
        is raised and the learner is as before. valid_skip: validate every so many epochs. schedule: whether the
        learning rate moves. margin: decrease of the loss that counts as improvement. patience: epochs of a worker, for
        families that make a new optimiser for lack of progress. A family without epochs counts one fit as all of them.
        """

    @abstractmethod
    def validate(self, data: Mapping[int, MemberData]) -> list[MemberResult]:
        """Loss and errors of members on their validation sets as they stand, without training."""

    @abstractmethod
    def member_arrays(self, member: int) -> Arrays:
        """Everything of a member that changes: bit-exact, no constants, nothing shared with it. No pickle."""

    @abstractmethod
    def load_member(self, member: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Back from `member_arrays`, bit for bit. Raises RestartError when they belong to another architecture."""

    @abstractmethod
    def save(self, member: int, path: Path) -> None:
        """Write a member as a file that its kind loads, atomically."""

    # ------------------------------------------------------------ what only some families need to say

    def begin_convergence(self, members: Sequence[int] | None = None) -> None:
        """Before the last phase of training, of these members or all: forget what belonged to the phase before."""

    def finish_convergence(self, data: Mapping[int, MemberData]) -> None:
        """After the best weights of these members are back: what is left to be done for delivery."""

    def refit_offsets(self, data: Mapping[int, MemberData]) -> None:
        """Fit the zero of energy again on the whole training sets; forces do not change."""

    def inference_arrays(self, member: int) -> Arrays:
        """What a member's predictions depend on, to come back to later or to be sent elsewhere."""
        return self.member_arrays(member)

    def set_inference_arrays(self, member: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Back to `inference_arrays`, bit for bit. Raises RestartError for another architecture."""
        self.load_member(member, arrays)
        self.version += 1

    def describe(self, member: int) -> dict[str, Any]:
        """What a member is made of, plain values by name: for models.json and the model card."""
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
        """`train` in the processes of `ModelKind.training_pool`; give `take` what comes back.

        The members stay as they are meanwhile. The future raises Abandoned, TrainingProcessLost, or what the visit did.
        """
        raise NotImplementedError(f"{type(self).__name__} trains in the driver's process only")

    def take(self, trained: Any) -> list[MemberResult]:
        """Members become what a visit elsewhere made of them."""
        raise NotImplementedError(f"{type(self).__name__} trains in the driver's process only")

    # ------------------------------------------------------------ what is the same for all

    def __len__(self) -> int:
        return len(self.members)

    def arrays(self) -> Arrays:
        """The whole state: flat names `0/param/…`, plain numbers, no pickle."""
        out: Arrays = {
            "names": np.array([m.name for m in self.members]),
            "counts": np.array([self.version, self.visits]),
        }
        for k in range(len(self.members)):
            out |= {f"{k}/{name}": value for name, value in self.member_arrays(k).items()}
        return out

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Back from `arrays`, bit for bit. Raises RestartError when they belong to other members."""
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

    has_spread: its evaluations carry a `spread` of their own (eV/Å); without one the spread is how far members
    disagree, and one member alone has none.
    """

    has_spread: bool = False

    @abstractmethod
    def potential(self, members: Sequence[int] | None = None) -> ModelPotential:
        """All (or the selected) members as they stand as a potential.

        Asking again after training brings earlier potentials up to date as well.
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

    def energy_zero(self) -> EnergyZero | None:
        """What energies count from, of the first member; None where the family has no energies of atoms."""
        return None

    def deliver(self, member: int, path: Path, energies: Sequence[float] = ()) -> None:
        """`save` for a user. energies (eV): what the file's numbers have to resolve."""
        self.save(member, path)

    def check_delivered(self, files: Mapping[int, Path], frames: Sequence[Frame]) -> Precision | None:
        """Load each delivered file (of a member) as its user does and compare with `potential`: the worst of them.

        None where the family delivers what it computes with.
        """
        return None


class GenerativeModel(Learner):
    """A learner that makes structures like those it has seen; labels of its data may be left unread."""

    @abstractmethod
    def sampler(self) -> Any:
        """A `samplers.base.Sampler` of the members as they stand."""
