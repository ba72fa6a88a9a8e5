"""A potential as a configuration names it, with what the training-set workflow wants of it: MACE features, E0."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aims_pax.errors import Abandoned, AimsPaxError, LabelError, SettingsError, SetupError
from aims_pax.frames import Array, Frame, Label
from aims_pax.models.kinds import features_of, load_named
from aims_pax.potential import Bound, CalculatorPotential, Evaluation, Potential
from aims_pax.potentials.factory import ElectronsOf, make_potential
from aims_pax.samplers.descriptors import Describe, pooled
from aims_pax.settings.augment import CallSpec, as_calculator, called
from aims_pax.settings.calculator_conventions import charge_refusal
from aims_pax.settings.content_hashes import contents
from aims_pax.settings.samplers import MACE_MP0

log = logging.getLogger(__name__)

SIZE = "small"  # meant by `mace-mp0`
AT_ONCE = 64  # structures a potential is given together


@dataclass(frozen=True)
class LoadedPotential:
    """A potential and the words it was named by."""

    spelling: CallSpec | str
    potential: Potential
    folder: Path
    device: str = "cpu"

    @classmethod
    def load(cls, spelling: CallSpec | str, folder: Path, where: str = "calculator") -> LoadedPotential:
        """`{factory, kwargs}` as a Call, a foundation size, or the path of a MACE model (then in double precision).

        where: the key it stands at.
        """
        if not isinstance(spelling, str):
            with naming_errors(where):
                made = make_potential(spelling, folder, where)
            return cls(spelling, UserPotential(made, where, patient=True), folder)
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            model = load_named(spelling, folder, device, "float64", key=where)
            return cls(spelling, model, folder, device)
        except SettingsError as error:
            raise SettingsError(
                where, f"{error.text}, or {{factory, kwargs}} of an ASE calculator"
            ) from error

    def labels(self, frames: Sequence[Frame], check: Any) -> list[Label]:
        """One label a frame. check: called between batches. Raises LabelError for what is not finite."""
        found: list[Label] = []
        for start in range(0, len(frames), AT_ONCE):
            check()
            found += self.potential.labels(frames[start : start + AT_ONCE])
        if not all(label.finite for label in found):
            raise LabelError("the potential gave energies or forces that are not finite")
        return found

    def features(self, frames: Sequence[Frame]) -> Array | None:
        """(F, N, D) MACE features of frames of one system; None where the potential is no MACE model."""
        if isinstance(self.spelling, str):
            describe = features_of(self.spelling, self.folder, self.device)
            return None if describe is None else describe(frames)
        potential = self.potential.potential if isinstance(self.potential, UserPotential) else self.potential
        if isinstance(potential, CalculatorPotential):
            describe = features_of(potential.make(), self.folder, self.device)
            return None if describe is None else describe(frames)
        return None

    def refusal(self, frame: Frame) -> str | None:
        """Why this potential must not label a frame: a calculator that cannot be given its charge or spin; or None."""
        potential = self.potential.potential if isinstance(self.potential, UserPotential) else self.potential
        electrons = getattr(potential, "electrons", None)
        if not isinstance(electrons, ElectronsOf):
            return None
        return charge_refusal(frame, electrons.kwargs, electrons.how, electrons.target)

    def atomic_energy(self, number: int) -> float:
        """eV: one atom alone. Raises SettingsError with what the potential says where it cannot."""
        potential = self.potential.potential if isinstance(self.potential, UserPotential) else self.potential
        electrons = getattr(potential, "electrons", None)
        try:
            if isinstance(electrons, ElectronsOf):
                return electrons.of_atom(_ground_state(number)).energy
            return self.potential.labels([Frame(np.array([number]), np.zeros((1, 3)))])[0].energy
        except SetupError as error:
            raise SettingsError(str(error)) from error
        except Exception as error:  # a calculator may raise anything for a structure it was not made for
            raise SettingsError(f"{type(error).__name__}: {error}") from error

    @property
    def identity(self) -> str:
        """The spelling with the contents of the files and modules it names; of a model file its content alone."""
        if isinstance(self.spelling, str):
            return self._content or repr(self.spelling)
        named = contents(self.spelling, self.folder)
        return f"{self.spelling!r} {named}" if named else repr(self.spelling)

    @property
    def described(self) -> str:
        """The same for a person."""
        if not isinstance(self.spelling, str):
            return called(self.spelling)
        return f"{self.spelling} (contents {self._content[:8]})" if self._content else self.spelling

    @property
    def _content(self) -> str:
        """Hash of the file the spelling names; "" when it names none."""
        if isinstance(self.spelling, str):
            path = self.folder / Path(self.spelling).expanduser()
            if path.is_file():
                return hashlib.sha256(path.read_bytes()).hexdigest()
        return ""


def _ground_state(number: int) -> Frame:
    """The isolated atom in its ground state, or in none that is said where that is not known."""
    from aims_pax.isolated_atoms import isolated

    try:
        return isolated(number)
    except SettingsError:
        return Frame(np.array([number]), np.zeros((1, 3)))


@contextmanager
def naming_errors(where: str, passing: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """What code of the user's raises becomes a SetupError that names the key it stands at; `passing` is left alone."""
    try:
        yield
    except Exception as error:  # somebody else's code may raise anything
        if isinstance(error, (AimsPaxError, Abandoned, *passing)):
            raise
        log.debug("traceback", exc_info=True)  # what its author needs to find the mistake
        raise SetupError(f"{where}: {type(error).__name__}: {error}") from error


class UserPotential:
    """A potential of the user's whose errors name the key it stands at, where: they are nothing of ours to be reported.

    Once it has answered, what says that one structure failed (LabelError, ASE's CalculationFailed) is left to the
    sampler, which may begin again elsewhere; at the first evaluation it is the potential that does not work.
    patient: whatever ASE's calculators say of a structure (CalculatorError) is left to the caller from the beginning.
    """

    def __init__(self, potential: Potential, where: str, patient: bool = False) -> None:
        self.potential, self.where, self.patient, self._answered = potential, where, patient, False

    def labels(self, frames: Sequence[Frame]) -> list[Label]:
        with self.blamed():
            found = self.potential.labels(frames)
        self._answered = True
        return found

    def bind(self, frames: Sequence[Frame]) -> Bound:
        with self.blamed():
            bound = self.potential.bind(frames)
        return _AnsweringBound(self, bound)

    def pieces(self, frames: Sequence[Frame]) -> list[range]:
        """As many structures at once as the potential says it has memory for."""
        own: Callable[[Sequence[Frame]], list[range]] | None = getattr(self.potential, "pieces", None)
        return [range(len(frames))] if own is None else own(frames)

    def answered(self) -> None:
        """It has evaluated a structure."""
        self._answered = True

    def blamed(self) -> AbstractContextManager[None]:
        """Raises SetupError naming the key for what the potential raises."""
        from ase.calculators.calculator import CalculationFailed, CalculatorError

        passing = CalculatorError if self.patient else CalculationFailed
        return naming_errors(self.where, (passing,) if self.patient or self._answered else ())


class _AnsweringBound:
    """The same of a bound potential; everything else it can do stays."""

    def __init__(self, owner: UserPotential, bound: Bound) -> None:
        self._owner, self._bound = owner, bound
        self.members, self.device = bound.members, bound.device

    def __call__(self, positions: Any, cells: Any, **asked: Any) -> Evaluation:
        with self._owner.blamed():
            found = self._bound(positions, cells, **asked)
        self._owner.answered()
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bound, name)


class Potentials:
    """Potentials by what was written for them, each loaded once.

    folder: where the user's own modules and files are. device: None for the GPU if there is one.
    """

    def __init__(self, folder: Path, device: str | None = None) -> None:
        self.folder, self.device = folder, device
        self._loaded: dict[str, Potential] = {}
        self._describe: dict[str, Describe] = {}

    def of(self, spelling: Any, where: str, dtype: str = "float32") -> Potential:
        """The potential. where: the key it stands at. Raises SettingsError, SetupError."""
        name = f"{canonical_spec(spelling)!r} {dtype}"
        if name not in self._loaded:
            with naming_errors(where):
                self._loaded[name] = make_potential(
                    canonical_spec(spelling), self.folder, where, self.device, dtype
                )
        return self._loaded[name]

    def describe(self, spelling: Any, where: str) -> Describe:
        """MACE features of the potential's model, for filters. Raises SettingsError when it is no MACE model."""
        name = repr(canonical_spec(spelling))
        if name not in self._describe:
            self._describe[name] = self._features(canonical_spec(spelling), where)
        return self._describe[name]

    def _features(self, spelling: CallSpec | str, where: str) -> Describe:
        source: Any = spelling
        if not isinstance(spelling, str):
            potential = self.of(spelling, where)
            source = potential.make() if isinstance(potential, CalculatorPotential) else potential
        features = features_of(source, self.folder, self.device or "cpu")
        if features is None:
            raise SettingsError(
                f"{where}: descriptor: mace needs a MACE model; name one, or write descriptor: radial"
            )
        return lambda frames: pooled(features(frames), frames[0].numbers)


def canonical_spec(spelling: Any) -> CallSpec | str:
    """A potential as `make_potential` takes it; `mace-mp0` is a size."""
    if spelling in MACE_MP0:
        return SIZE
    return as_calculator(spelling)
