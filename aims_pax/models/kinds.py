"""Kinds of models: how a family is registered and found.

MODEL.kind in aimsPAX.yaml names one of these: a folder in this package with a module `kind` that defines `KIND`; a name
that an installed package registers in the entry point group `aims_pax.models`; or `package.module:object`, where the
module may be in the working folder. Finding a kind must not import torch; `build`, `from_files` and `load` may.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import ValidationError

from aims_pax.errors import SettingsError
from aims_pax.frames import Array, Frame, Label
from aims_pax.models.base import ForceFieldModel, ModelPotential, ProcessPool
from aims_pax.models.delta import baseline_record, is_difference
from aims_pax.record.delivered_models import recorded_models
from aims_pax.settings.bundled_models import BUNDLED
from aims_pax.settings.fields import Section
from aims_pax.settings.messages import in_words
from aims_pax.suggestions import nearest
from aims_pax.user_code import load_object

if TYPE_CHECKING:
    from aims_pax.settings import Settings
    from aims_pax.systems import System

GROUP = "aims_pax.models"  # of entry points
DEFAULT = "mace"
WITH_BASELINE = (
    "aims_pax.potentials.delta_kind:DeltaKind"  # wraps any kind; finds the potentials, which are above
)
FOUNDATIONAL_SIZE = "INITIAL_DATASET_GENERATION.initial_foundational_size"


Features = Callable[[Sequence[Frame]], Array]  # frames of one system → (F, N, D)


class Pauses(Protocol):
    """Pauses and the end of the walltime, as `engine.interrupts` provides them."""

    deadline: float | None  # of time.monotonic()
    on_pause: Callable[[bool], None]  # called when a pause begins (True) and ends (False)


@dataclass(frozen=True)
class ExportedModel:
    """A file written for another program.

    compare: predictions of the model and of the file, loaded again, for the given structures; some file formats give no
    stress. use: example of its use, for the terminal. note: a remark, or "".
    """

    compare: Callable[[], tuple[Sequence[Label], Sequence[Label]]]
    use: str
    note: str = ""


class ModelKind(ABC):
    """A family of force fields. Methods that are not overridden are features that the family does not have."""

    name: str  # as in the settings, built-in or registered
    title: str  # in texts: "a {title} force field"
    suffix: str = ".model"  # of its files
    packages: tuple[str, ...] = ()  # distributions whose versions the model card lists
    keys: type[Section] | None = None  # of MODEL.kwargs; None: it has none
    has_spread: bool = False  # one member predicts its own uncertainty (see `ForceFieldModel.has_spread`)
    fits_at_once: bool = False  # each training is a complete fit (see `ForceFieldModel.fits_at_once`)
    has_stress: bool = False  # learns and predicts stress, which NPT needs
    trains_in_processes: bool = False  # has `training_pool`
    moves_in_processes: bool = False  # has `serialise` and `unserialise`
    slow_imports: tuple[str, ...] = ()  # modules that these processes need; imported once for all
    mixes_weights: bool = (
        False  # `begin_again` can keep a share of the weights: final_training: shrink_perturb
    )
    learns_from_copies: bool = False  # training uses `MemberData.copies`: section AUGMENTATION
    begins_from_files: bool = False  # has `from_files`: ACTIVE_LEARNING.initial_models
    forms: tuple[str, ...] = ()  # file formats that `export` writes
    target: str = ""  # `package.module:object` by which other processes find it, if not by MODEL.kind

    # ------------------------------------------------------------ models

    @abstractmethod
    def build(self, settings: Settings, seeds: Sequence[int], elements: Sequence[int]) -> ForceFieldModel:
        """Untrained members, named by `member_names`, in the order of the seeds. elements: atomic numbers."""

    def from_files(
        self, paths: Sequence[Path], settings: Settings, seeds: Sequence[int] | None
    ) -> ForceFieldModel:
        """Members that begin with models from files. seeds: None to name them after the files. Raises SettingsError."""
        raise SettingsError(
            f"ACTIVE_LEARNING.initial_models: {self.title} models cannot begin from files; "
            "give initial_train_dataset instead"
        )

    def beginning(self, settings: Settings) -> str | None:
        """What the members that `build` makes begin from, as text; None: random weights."""
        return None

    def begun_with(self, settings: Settings) -> dict[str, str]:
        """{name: hash} of the files whose contents the members that `build` makes depend on."""
        return {}

    def trial_members(
        self, settings: Settings, seeds: Sequence[int], elements: Sequence[int]
    ) -> ForceFieldModel | None:
        """For `check`: the members that `build` would make, unless they begin from random weights or need a download.

        Raises SettingsError, SetupError as `build` does.
        """
        return None

    def remarks(self, settings: Settings) -> list[str]:
        """Warnings of `check` about what the members begin from."""
        return []

    def contradictions(self, model: ForceFieldModel, settings: Settings) -> list[str]:
        """Settings that differ from members loaded by `from_files`, one line each."""
        return []

    def options(self, settings: Settings) -> Any:
        """MODEL.kwargs, read with `keys`. Raises SettingsError naming the key."""
        written = dict(settings.model.kwargs)
        if self.keys is None:
            if written:
                raise SettingsError(f"MODEL.kwargs: {self.title} takes none, got {', '.join(written)}")
            return None
        try:
            return self.keys.model_validate(written)
        except ValidationError as error:
            keys = self.keys
            lines = [
                f"MODEL.kwargs.{'.'.join(map(str, d['loc']))}: {in_words(d, keys)}"
                for d in error.errors(include_url=False)
            ]
            raise SettingsError("\n".join(lines)) from error

    def recorded(self, model: ForceFieldModel) -> dict[str, Any]:
        """Further entries of its members in models.json, as plain values."""
        return {}

    # ------------------------------------------------------------ files

    @abstractmethod
    def load(self, paths: Sequence[Path], device: str, dtype: str) -> ModelPotential:
        """A potential with one member for each file. Raises SettingsError."""

    def load_fast(
        self, paths: Sequence[Path], device: str, dtype: str | None, inference: str
    ) -> ModelPotential:
        """`load` with the inference of a run, for `aims_pax.calculator`. dtype: None for that of the files.

        inference: as MISC.inference; families that have only one ignore it. Raises SettingsError.
        """
        return self.load(paths, device, dtype or "float64")

    def load_named(
        self, name: str, folder: Path, device: str, dtype: str, inference: str = "torch", key: str = ""
    ) -> ModelPotential:
        """A potential by name: a published model if the family has some, else a file, relative to `folder`.

        inference: as MISC.inference. key: the settings key that names the model. Raises SettingsError, SetupError.
        """
        return self.load([folder / Path(name).expanduser()], device, dtype)

    def elements_of(self, path: Path) -> tuple[int, ...]:
        """Atomic numbers that the model in a file supports. Raises SettingsError."""
        return self.load([path], "cpu", "float64").elements

    def precision_note(self, paths: Sequence[Path], dtype: str, energy: float) -> str:
        """A sentence if files do not resolve an energy (eV) in a precision that users may choose; else ""."""
        return ""

    def atom_features(self, source: Any, folder: Path, device: str) -> Features | None:
        """Descriptors of the atoms, as the model computes them. source: a name as for `load_named`, or ASE calculator.

        None if the family has no descriptors, or the calculator is not of this family.
        """
        return None

    def export(self, source: Path, form: str, target: Path, frames: Sequence[Frame]) -> ExportedModel:
        """Write a model file in one of `forms`. frames: structures for the comparison. Raises SetupError, OSError."""
        raise NotImplementedError(f"{self.title} has no form {form}")

    def no_export(self, path: Path, form: str) -> str:
        """Why a file cannot be exported in a form that is not one of `forms`, for the user."""
        has = f"it has {', '.join(self.forms)}" if self.forms else "other programs do not read them"
        return f"{path}: {self.title} models cannot be exported as {form}: {has}"

    def form_suffix(self, form: str) -> str:
        """The ending of file names of this form."""
        raise NotImplementedError(f"{self.title} has no form {form}")

    # ------------------------------------------------------------ estimates for `plan`

    def cutoff(self, settings: Settings) -> float | None:
        """The cutoff radius, Å; None if the family has none."""
        return None

    def estimate_memory(
        self, settings: Settings, systems: Sequence[System], trajectories: Mapping[str, int]
    ) -> dict[str, float] | None:
        """MB for the members, one training batch, and one MD step of all trajectories; None: not known.

        trajectories: {name of a system: number of its trajectories that are evaluated together}.
        """
        return None

    def estimate_snapshot(self, settings: Settings, n_elements: int) -> float:
        """Bytes of all members in a snapshot, 0: not known."""
        return 0.0

    # ------------------------------------------------------------ optional features

    def training_pool(self, workers: int, threads: int, devices: Sequence[str], memory: float) -> ProcessPool:
        """Processes that train members in parallel. threads: of each; devices: used in turn; memory: bytes of all."""
        raise NotImplementedError(f"{self.title} trains in the driver's process only")

    def serialise(self, model: ForceFieldModel) -> Any:
        """All members as a picklable object, for processes that run MD; later weights are sent as
        `inference_arrays`."""
        raise NotImplementedError(f"{self.title} moves atoms in the driver's process only")

    def unserialise(self, data: Any) -> ForceFieldModel:
        """The members from `serialise`, in another process, for predictions only."""
        raise NotImplementedError(f"{self.title} moves atoms in the driver's process only")

    def compiling(
        self, model: ForceFieldModel, settings: Settings, atoms: float, watch: Pauses | None = None
    ) -> AbstractContextManager[None]:
        """A context for training that may compile it where this saves time. atoms: mean number of the systems."""
        return nullcontext()


def kind_of_run(settings: Settings) -> ModelKind:
    """The kind of the models of a run. Raises SettingsError."""
    name, folder = settings.model.kind, settings.folder
    return model_kind(name, folder) if settings.reference.baseline is None else _with_baseline(name, folder)


def model_kind(name: str, folder: Path | None = None) -> ModelKind:
    """A kind by its name or `package.module:object`; modules in `folder` are also found. Raises SettingsError."""
    target = name if ":" in name else _known().get(name)
    if target is None:
        known = list(_known())
        near = nearest(name, known)
        hint = f"nearest: {near}" if near else f"known: {', '.join(known)}"
        raise SettingsError(f"MODEL.kind: {name!r} is not a kind of model; {hint}, or package.module:object")
    try:
        found = load_object(target, folder)
    except SettingsError as error:
        raise SettingsError("MODEL.kind", f"{target!r}: {error.text}") from error
    if not isinstance(found, ModelKind):
        raise SettingsError(f"MODEL.kind: {target} is a {type(found).__name__}, expected a ModelKind")
    return found


def kind_of_file(path: Path) -> ModelKind:
    """The kind of a model file: as recorded by the run that delivered it, else by the ending of its name.

    MACE if no kind has this ending. Raises SettingsError if the recorded kind is not known.
    """
    make = _with_baseline if is_difference(path) else model_kind
    for folder in (path.parent, path.parent.parent):  # results/ and results/committee/
        entry = recorded_models(folder).get(str(path.relative_to(folder)))
        if entry is not None:
            make = _with_baseline if "baseline" in entry else make
            return make(str(entry.get("kind", DEFAULT)), folder.parent)
    known = baseline_record(path)
    if known is not None:
        return make(str(known["kind"]), path.parent)
    for name in _known():
        if path.name.endswith(model_kind(name).suffix):
            return make(name, None)
    return make(DEFAULT, None)


def _with_baseline(name: str, folder: Path | None) -> ModelKind:
    """The kind of this name with a baseline."""
    kind: ModelKind = load_object(WITH_BASELINE)(name, folder)
    return kind


def load_named(
    name: str,
    folder: Path,
    device: str = "cpu",
    dtype: str = "float32",
    inference: str = "torch",
    key: str = FOUNDATIONAL_SIZE,
) -> ModelPotential:
    """A published model by its name, or a model file of any kind; relative paths are from `folder`.

    inference: as MISC.inference. key: the settings key that names it. Raises SettingsError, SetupError.
    """
    path = folder / Path(name).expanduser()
    kind = kind_of_file(path) if path.is_file() else model_kind(DEFAULT)
    return kind.load_named(name, folder, device, dtype, inference, key)


def features_of(source: Any, folder: Path, device: str) -> Features | None:
    """Descriptors of a model given by its name, file or ASE calculator; None if no kind supports it."""
    if isinstance(source, str):
        if source in BUNDLED:
            return None
        path = folder / Path(source).expanduser()
        kind = kind_of_file(path) if path.is_file() else model_kind(DEFAULT)
        return kind.atom_features(source, folder, device)
    found = (model_kind(name).atom_features(source, folder, device) for name in _known())
    return next((f for f in found if f is not None), None)


def export_forms() -> tuple[str, ...]:
    """All file formats in which at least one kind can be exported."""
    kinds = [model_kind(name) for name in _known()]
    return tuple(dict.fromkeys(form for kind in kinds for form in kind.forms))


def member_names(settings: Settings, seeds: Sequence[int]) -> list[str]:
    """`{name_exp}_{seed}` for each seed. Raises SettingsError if a seed is given twice, or none at all."""
    if len(set(seeds)) != len(seeds) or not seeds:
        raise SettingsError(f"every member needs a different seed, got {list(seeds)}")
    return [f"{settings.model.name}_{seed}" for seed in seeds]


def _known() -> dict[str, str]:
    """{name: package.module:object} of the built-in kinds and those of installed packages; built-in ones come first."""
    folders = [path.parent.name for path in sorted(Path(__file__).parent.glob("*/kind.py"))]
    ours = {name: f"{__package__}.{name}.kind:KIND" for name in folders}
    others = _installed(tuple(sys.path))
    return ours | {name: value for name, value in others.items() if name not in ours}


@cache
def _installed(where: tuple[str, ...]) -> dict[str, str]:
    """The kinds of installed packages. Reading what is installed takes 20 ms, and a run asks 16 times.

    where: `sys.path`, so that a folder that is added later is searched.
    """
    return {point.name: point.value for point in entry_points(group=GROUP)}
