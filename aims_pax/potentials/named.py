"""Potentials from settings, with the extras of the training-set workflow: MACE features and atomic energies."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aims_pax.errors import Abandoned, AimsPaxError, LabelError, SettingsError, SetupError
from aims_pax.frames import Array, Frame, Label
from aims_pax.models.kinds import features_of, load_named
from aims_pax.potential import Bound, CalculatorPotential, Evaluation, Potential
from aims_pax.potentials.bundled import bundled_potential
from aims_pax.potentials.factory import ElectronsOf, calculator_potential, make_potential
from aims_pax.potentials.light_calculators import is_light
from aims_pax.samplers.descriptors import Describe, pooled
from aims_pax.settings.augment import CallSpec, as_calculator, called
from aims_pax.settings.bundled_models import BUNDLED
from aims_pax.settings.calculator_conventions import charge_refusal
from aims_pax.settings.callables import PUBLISHED_MODELS
from aims_pax.settings.content_hashes import content_digest, contents
from aims_pax.settings.samplers import MACE_MP0

log = logging.getLogger(__name__)

SIZE = "small"  # size of `mace-mp0`
AT_ONCE = 64  # structures per batch


@dataclass(frozen=True)
class LoadedPotential:
    """A potential and its entry in the settings."""

    spelling: CallSpec | str
    potential: Potential
    folder: Path
    device: str = "cpu"

    @classmethod
    def load(cls, spelling: CallSpec | str, folder: Path, where: str = "calculator") -> LoadedPotential:
        """Load a potential from `{factory, kwargs}`, the name of a foundation model, or the path of a MACE model;
        models are in double precision.

        where: settings key, for errors.
        """
        if not isinstance(spelling, str):
            with naming_errors(where):
                made = make_potential(spelling, folder, where)
            return cls(spelling, UserPotential(made, where, patient=True), folder)
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        if spelling in BUNDLED:
            return cls(spelling, bundled_potential(spelling, device, "float64"), folder, device)
        try:
            model = load_named(spelling, folder, device, "float64", key=where)
            return cls(spelling, model, folder, device)
        except SettingsError as error:
            raise SettingsError(
                where, f"{error.text}, or {{factory, kwargs}} of an ASE calculator"
            ) from error

    def labels(self, frames: Sequence[Frame], check: Any) -> list[Label]:
        """One label per frame. check: called between batches. Raises LabelError for values that are not finite."""
        found: list[Label] = []
        for start in range(0, len(frames), AT_ONCE):
            check()
            found += self.potential.labels(frames[start : start + AT_ONCE])
        if not all(label.finite for label in found):
            raise LabelError("the potential returned energies or forces that are not finite")
        return found

    def features(self, frames: Sequence[Frame]) -> Array | None:
        """(F, N, D) MACE features of frames of one system; None if the potential is not a MACE model."""
        if isinstance(self.spelling, str):
            describe = features_of(self.spelling, self.folder, self.device)
            return None if describe is None else describe(frames)
        potential = self.potential.potential if isinstance(self.potential, UserPotential) else self.potential
        if isinstance(potential, CalculatorPotential):
            describe = features_of(potential.make(), self.folder, self.device)
            return None if describe is None else describe(frames)
        return None

    def refusal(self, frame: Frame) -> str | None:
        """Why this potential must not label a frame (its calculator cannot be given charge or spin), or None."""
        potential = self.potential.potential if isinstance(self.potential, UserPotential) else self.potential
        electrons = getattr(potential, "electrons", None)
        if not isinstance(electrons, ElectronsOf):
            return None
        return charge_refusal(frame, electrons.kwargs, electrons.how, electrons.target)

    def atomic_energy(self, number: int) -> float:
        """Energy of an isolated atom in eV. Raises SettingsError with the error of the potential when it fails."""
        potential = self.potential.potential if isinstance(self.potential, UserPotential) else self.potential
        electrons = getattr(potential, "electrons", None)
        try:
            if isinstance(electrons, ElectronsOf):
                return electrons.of_atom(_ground_state(number)).energy
            model = BUNDLED.get(self.spelling) if isinstance(self.spelling, str) else None
            spin = model is not None and model.electrons
            atom = _ground_state(number) if spin else Frame(np.array([number]), np.zeros((1, 3)))
            return self.potential.labels([atom])[0].energy
        except SetupError as error:
            raise SettingsError(str(error)) from error
        except Exception as error:  # a calculator may raise anything for a structure it was not made for
            raise SettingsError(f"{type(error).__name__}: {error}") from error

    @property
    def identity(self) -> str:
        """The settings entry with hashes of the files and modules it names; for a model file only its hash."""
        if isinstance(self.spelling, str):
            return self._content or repr(self.spelling)
        named = contents(self.spelling, self.folder)
        return f"{self.spelling!r} {named}" if named else repr(self.spelling)

    @property
    def described(self) -> str:
        """The same for messages."""
        if not isinstance(self.spelling, str):
            return called(self.spelling)
        return f"{self.spelling} (contents {self._content[:8]})" if self._content else self.spelling

    @property
    def _content(self) -> str:
        """Hash of the file that the settings entry names; "" when it names none. A size is no file of that name."""
        if isinstance(self.spelling, str) and self.spelling not in (*PUBLISHED_MODELS, *BUNDLED):
            path = self.folder / Path(self.spelling).expanduser()
            if path.is_file():
                return hashlib.sha256(path.read_bytes()).hexdigest()
        return ""


def _ground_state(number: int) -> Frame:
    """The isolated atom in its ground state; without charge and spin if the ground state is not known."""
    from aims_pax.isolated_atoms import isolated

    try:
        return isolated(number)
    except SettingsError:
        return Frame(np.array([number]), np.zeros((1, 3)))


@contextmanager
def naming_errors(where: str, passing: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turn exceptions of user code into a SetupError that names the settings key; `passing` are not changed."""
    try:
        yield
    except Exception as error:  # user code may raise anything
        if isinstance(error, (AimsPaxError, Abandoned, *passing)):
            raise
        log.debug("traceback", exc_info=True)  # helps the author of the code to find the error
        raise SetupError(f"{where}: {type(error).__name__}: {error}") from error


class UserPotential:
    """Wraps a user's potential; its exceptions become SetupError with the settings key `where`.

    After the first successful evaluation, failures of one structure (LabelError, ASE's CalculationFailed) are passed on
    to the sampler, which may start again from another structure; before it, the potential itself is wrong.
    patient: pass on all errors of ASE calculators (CalculatorError) from the beginning.
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
        """Split the structures into batches that fit into the memory limit of the potential."""
        own: Callable[[Sequence[Frame]], list[range]] | None = getattr(self.potential, "pieces", None)
        return [range(len(frames))] if own is None else own(frames)

    def answered(self) -> None:
        """Note that a structure was evaluated successfully."""
        self._answered = True

    def blamed(self) -> AbstractContextManager[None]:
        """Context manager: exceptions of the potential become SetupError with the key."""
        from ase.calculators.calculator import CalculationFailed, CalculatorError

        passing = CalculatorError if self.patient else CalculationFailed
        return naming_errors(self.where, (passing,) if self.patient or self._answered else ())


class _AnsweringBound:
    """The same for a bound potential; other attributes are passed through."""

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


def moves_light(potential: Potential) -> bool:
    """Whether a potential, as a sampler has it, moves structures by light calculators, each by one of its own."""
    if isinstance(potential, UserPotential):
        with potential.blamed():
            return moves_light(potential.potential)
    return isinstance(potential, CalculatorPotential) and is_light(potential.make())


def user_calculator(spec: CallSpec, folder: Path, where: str) -> Potential:
    """A calculator of the settings as a sampler has it; for other processes. Raises SettingsError, SetupError."""
    with naming_errors(where):
        return UserPotential(make_potential(spec, folder, where), where)


def named_calculator(factory: str, kwargs: Mapping[str, Any], folder: Path, where: str) -> Potential:
    """The same for `{factory, kwargs}`, a new calculator for each structure."""
    with naming_errors(where):
        return UserPotential(calculator_potential(factory, kwargs, folder, where), where)


class Potentials:
    """Loads each potential of the settings once.

    folder: contains the user's modules and files. device: None for the GPU if there is one.
    """

    def __init__(self, folder: Path, device: str | None = None) -> None:
        self.folder, self.device = folder, device
        self._loaded: dict[str, Potential] = {}
        self._describe: dict[str, Describe] = {}

    def of(self, spelling: Any, where: str, dtype: str = "float32") -> Potential:
        """The potential. where: settings key, for errors. Raises SettingsError, SetupError."""
        name = f"{canonical_spec(spelling)!r} {dtype}"
        if name not in self._loaded:
            with naming_errors(where):
                self._loaded[name] = make_potential(
                    canonical_spec(spelling), self.folder, where, self.device, dtype
                )
        return self._loaded[name]

    def describe(self, spelling: Any, where: str) -> Describe:
        """MACE features of the potential's model, for filters. Raises SettingsError when it is not a MACE model."""
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
                f"{where}: descriptor: mace needs a MACE model; name one, or set descriptor: radial"
            )
        return lambda frames: pooled(features(frames), frames[0].numbers)


def canonical_spec(spelling: Any) -> CallSpec | str:
    """The potential in the form of `make_potential`; `mace-mp0` becomes a size."""
    if spelling in MACE_MP0:
        return SIZE
    return as_calculator(spelling)


def contents_of_potential(spec: CallSpec | str, folder: Path) -> dict[str, str]:
    """{path: hash} of the files and modules of the user that a potential is made of."""
    if not isinstance(spec, str):
        return contents(spec, folder)
    path = folder / Path(spec).expanduser()
    named = spec in PUBLISHED_MODELS or spec in BUNDLED  # never a file of that name
    return {spec: content_digest(path)} if path.is_file() and not named else {}
