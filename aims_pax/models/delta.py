"""Δ-learning: the members learn what a cheap baseline lacks, and every prediction is the sum of both.

    E(x) = E_baseline(x) + ΔE(x)        F(x) = F_baseline(x) + ΔF(x)        stress likewise
    trained on   ΔE = E_reference − E_baseline,  ΔF = F_reference − F_baseline

The committee's members all have the same baseline, so their spread is that of the differences. Labels stay those of the
reference everywhere else: the difference is taken when a member is trained or validated, and nowhere stored.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from aims_pax.errors import LabelError, SetupError
from aims_pax.frames import Array, Frame, Label, LabelledFrame
from aims_pax.isolated_atoms import is_isolated_atom
from aims_pax.models.base import (
    Arrays,
    EnergyZero,
    ForceFieldModel,
    Learner,
    MemberData,
    MemberResult,
    ModelPotential,
    Precision,
    Words,
    never_stop_training,
)
from aims_pax.potential import Bound, Evaluation
from aims_pax.record.files import write_text

MARK = ".delta"  # in the names of files that hold only the difference, before the ending of their kind
LOADER = 'aims_pax.calculator("results")'


class BaselinePotential(Protocol):
    """The baseline; see `potentials.baseline`."""

    @property
    def described(self) -> str:
        """The baseline in words, for messages."""
        ...

    def record(self) -> dict[str, Any]:
        """What says which baseline it is, as plain values."""
        ...

    def label(self, frame: Frame) -> Label:
        """The checked label of a frame that is to be learnt; stored. Raises LabelError if the baseline fails on it."""
        ...

    def prepare(self, frames: Sequence[Frame], check: Callable[[], None] = ...) -> None:
        """Compute and store the labels of many frames; failures appear when `label` is called."""
        ...

    def labels(self, frames: Sequence[Frame]) -> list[Label]:
        """Labels for predictions: stored ones where there are any. Raises LabelError."""
        ...

    def atomic_energy(self, number: int) -> float:
        """Energy of an isolated atom in eV. Raises SettingsError if the baseline cannot compute it."""
        ...

    def bind(self, frames: Sequence[Frame]) -> Bound:
        """For MD: one member; NaN for a structure on which the baseline fails."""
        ...


def is_difference(path: Path) -> bool:
    """Whether a model file holds only the difference to a baseline, by its name or the file that says so."""
    return f"{MARK}." in path.name or baseline_record(path) is not None


def baseline_file(path: Path) -> Path:
    """`x.delta.json` beside `x.delta.model`: says what the baseline is."""
    stem = path.name.split(f"{MARK}.")[0] if f"{MARK}." in path.name else path.stem
    return path.with_name(f"{stem}{MARK}.json")


def baseline_record(path: Path) -> dict[str, Any] | None:
    """What stands in the `baseline_file` of a model file; None when there is none, or it cannot be read."""
    try:
        stored = json.loads(baseline_file(path).read_text(encoding="utf-8"))
        return dict(stored) if stored["format"] == 1 and "baseline" in stored else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


class DeltaModel(ForceFieldModel):
    """Members of any family that learn the difference to a baseline.

    inner: the members; what is stored of them is the same as without a baseline. kind: name of their kind and the
    folder where it is found, see `model_kind`.
    """

    baseline: BaselinePotential

    def __init__(
        self, inner: ForceFieldModel, baseline: BaselinePotential, kind: tuple[str, Path | None]
    ) -> None:
        self.inner, self.baseline, self.kind = inner, baseline, kind
        self.members, self.elements = inner.members, inner.elements
        self.fits_at_once, self.has_spread = inner.fits_at_once, inner.has_spread
        # by frame id: (reference, difference)
        self._known: dict[str, tuple[LabelledFrame, LabelledFrame]] = {}

    # ------------------------------------------------------------ what is learnt

    def check_frame(self, frame: Frame) -> None:
        """Raise LabelError if the baseline fails on this frame, which then cannot be learnt."""
        self.baseline.label(frame)

    def check_frames(self, frames: Sequence[Frame], check: Callable[[], None] = lambda: None) -> None:
        """Compute the baseline of many frames at once; `check_frame` then says which cannot be learnt."""
        self.baseline.prepare(frames, check)

    def difference(self, labelled: LabelledFrame) -> LabelledFrame:
        """The frame with the label reference − baseline. An isolated neutral atom has its ground state in both."""
        known = self._known.get(labelled.id)
        if known is not None and (known[0] is labelled or _same(known[0], labelled)):
            return known[1]
        frame, label = labelled.frame, labelled.label
        try:
            if not frame.pbc.any() and is_isolated_atom(labelled):
                base = Label(self.baseline.atomic_energy(int(frame.numbers[0])), np.zeros((1, 3)))
            else:
                base = self.baseline.label(frame)
        except LabelError as error:
            raise SetupError(
                f"frame {frame.id[:6]} ({frame.formula}) is in the dataset, but REFERENCE.baseline fails on it: {error}"
            ) from error
        both = label.stress is not None and base.stress is not None
        stress = label.stress - base.stress if both else None  # type: ignore[operator]
        made = replace(labelled, label=Label(label.energy - base.energy, label.forces - base.forces, stress))
        self._known[labelled.id] = labelled, made
        return made

    def _differences(self, data: Mapping[int, MemberData]) -> dict[int, MemberData]:
        return {
            m: replace(
                own,
                train=[self.difference(f) for f in own.train],
                valid=[self.difference(f) for f in own.valid],
                copies=[self.difference(f) for f in own.copies],
            )
            for m, own in data.items()
        }

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
        return self.inner.train(
            self._differences(data), epochs, words=words, stop=stop, valid_skip=valid_skip, schedule=schedule,
            margin=margin, patience=patience,
        )  # fmt: skip

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
        return self.inner.train_elsewhere(
            pool, self._differences(data), epochs, words=words, stop=stop, valid_skip=valid_skip, schedule=schedule,
            margin=margin, patience=patience,
        )  # fmt: skip

    def take(self, trained: Any) -> list[MemberResult]:
        return self.inner.take(trained)

    def validate(self, data: Mapping[int, MemberData]) -> list[MemberResult]:
        """Errors on the validation sets: those of the difference are those of the sum."""
        return self.inner.validate(self._differences(data))

    def refit_offsets(self, data: Mapping[int, MemberData]) -> None:
        self.inner.refit_offsets(self._differences(data))

    def begin_convergence(self, members: Sequence[int] | None = None) -> None:
        self.inner.begin_convergence(members)

    def finish_convergence(self, data: Mapping[int, MemberData]) -> None:
        self.inner.finish_convergence(self._differences(data))

    # ------------------------------------------------------------ predictions

    def potential(self, members: Sequence[int] | None = None) -> DeltaPotential:
        return DeltaPotential(self.inner.potential(members), self.baseline)

    def spreads_and_errors(self, labelled: Sequence[LabelledFrame]) -> list[tuple[Array, Array]]:
        """As of the sum; the baseline is exact, and not computed again."""
        return self.inner.spreads_and_errors([self.difference(one) for one in labelled])

    def begin_from(self, other: Learner) -> None:
        """Take over weights of members that learnt the difference of another potential to the same baseline."""
        assert isinstance(other, DeltaModel)
        self.inner.begin_from(other.inner)

    def begin_again(self, beginning: Learner, members: Sequence[int], share: float = 0.0) -> None:
        assert isinstance(beginning, DeltaModel)
        self.inner.begin_again(beginning.inner, members, share)

    def energy_zero(self) -> EnergyZero | None:
        """That of the differences: energies of isolated atoms, reference − baseline."""
        return self.inner.energy_zero()

    # ------------------------------------------------------------ state

    @property
    def trained(self) -> bool:
        return self.inner.trained

    @property
    def version(self) -> int:
        return self.inner.version

    @version.setter
    def version(self, value: int) -> None:
        self.inner.version = value

    @property
    def visits(self) -> int:
        return self.inner.visits

    @visits.setter
    def visits(self, value: int) -> None:
        self.inner.visits = value

    def member_arrays(self, member: int) -> Arrays:
        return self.inner.member_arrays(member)

    def load_member(self, member: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.inner.load_member(member, arrays)

    def inference_arrays(self, member: int) -> Arrays:
        return self.inner.inference_arrays(member)

    def set_inference_arrays(self, member: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.inner.set_inference_arrays(member, arrays)

    def arrays(self) -> Arrays:
        return self.inner.arrays()

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.inner.restore(arrays)

    # ------------------------------------------------------------ files

    def describe(self, member: int) -> dict[str, Any]:
        return self.inner.describe(member)

    def save(self, member: int, path: Path) -> None:
        """Write the difference, and beside it the file that says what the baseline is."""
        self._say_baseline(path)
        self.inner.save(member, path)

    def deliver(self, member: int, path: Path, energies: Sequence[float] = ()) -> None:
        self._say_baseline(path)
        self.inner.deliver(member, path, energies)

    def check_delivered(self, files: Mapping[int, Path], frames: Sequence[Frame]) -> Precision | None:
        """The files hold the differences, so these are compared; they are loaded together with the baseline."""
        found = self.inner.check_delivered(files, frames)
        return None if found is None else replace(found, loader=LOADER)

    def _say_baseline(self, path: Path) -> None:
        known = {
            "format": 1,
            "about": f"{path.name} holds only the difference reference − baseline; aims_pax.calculator adds both",
            "model": path.name,
            "kind": self.kind[0],
            **self.baseline.record(),
        }
        write_text(baseline_file(path), json.dumps(known, indent=1, ensure_ascii=False) + "\n")


class DeltaPotential:
    """The sum of the baseline and of M members; with the interface of `ModelPotential`."""

    def __init__(self, inner: ModelPotential, baseline: BaselinePotential) -> None:
        self.inner, self.baseline = inner, baseline
        self.elements, self.members = tuple(inner.elements), inner.members
        self.has_spread = getattr(inner, "has_spread", False)

    def labels(self, frames: Sequence[Frame]) -> list[Label]:
        """The mean over the members for each frame. Raises LabelError if the baseline fails."""
        pairs = zip(self.inner.labels(frames), self.baseline.labels(frames), strict=True)
        return [
            Label(d.energy + b.energy, d.forces + b.forces, None if _lack(d, b) else d.stress + b.stress)  # type: ignore[operator]
            for d, b in pairs
        ]

    def evaluate(self, frames: Sequence[Frame]) -> Evaluation:
        """All members on all frames at once. Raises LabelError if the baseline fails."""
        base = self.baseline.labels(frames)
        stress = np.stack([np.full((3, 3), np.nan) if b.stress is None else b.stress for b in base])
        forces = np.concatenate([b.forces for b in base])
        return _sum(
            self.inner.evaluate(frames), np.array([[b.energy for b in base]]), forces[None], stress[None]
        )

    def bind(self, frames: Sequence[Frame]) -> DeltaBound:
        return DeltaBound(self.inner.bind(frames), self.baseline.bind(frames))

    def pieces(self, frames: Sequence[Frame]) -> list[range]:
        """Groups of structures that the members can evaluate at once within their memory limit."""
        own: Callable[[Sequence[Frame]], list[range]] | None = getattr(self.inner, "pieces", None)
        return [range(len(frames))] if own is None else own(frames)


class DeltaBound:
    """A `Bound` that adds the baseline to all members; the baseline is evaluated once for the same positions."""

    def __init__(self, inner: Bound, baseline: Bound) -> None:
        self.inner, self.baseline = inner, baseline
        self.members, self.device = inner.members, inner.device
        self.drives = bool(getattr(inner, "drives", False))
        self._last: tuple[Any, Any, bool, Evaluation] | None = None

    def __call__(
        self,
        positions: Any,
        cells: Any,
        *,
        stress: bool = False,
        driving_members: Sequence[int] | None = None,
    ) -> Evaluation:
        asked: dict[str, Any] = {} if driving_members is None else {"driving_members": driving_members}
        base = self._evaluated(positions, cells, stress)
        return _sum(
            self.inner(positions, cells, stress=stress, **asked), base.energies, base.forces, base.stress
        )

    def _evaluated(self, positions: Any, cells: Any, stress: bool) -> Evaluation:
        import torch

        if self._last is not None:
            x, h, stressed, known = self._last
            if stressed >= stress and torch.equal(x, positions) and torch.equal(h, cells):
                return known
        device = self.baseline.device
        found = self.baseline(positions.to(device), cells.to(device), stress=stress)
        self._last = positions.clone(), cells.clone(), stress, found
        return found


def _sum(said: Evaluation, energies: Any, forces: Any, stress: Any) -> Evaluation:
    """Members plus baseline: energies (1, F), forces (1, A, 3), stress (1, F, 3, 3) of the baseline, NaN where it has
    none; the members' arrays decide whether NumPy or torch."""
    tensor = None if said.stress is None or stress is None else said.stress + _like(stress, said.stress)
    return Evaluation(
        said.energies + _like(energies, said.energies),
        said.forces + _like(forces, said.forces),
        tensor,
        said.spread,
    )


def _like(values: Any, other: Any) -> Any:
    """Values as a NumPy array or as a torch tensor on the device of `other`, in double precision."""
    if isinstance(other, np.ndarray):
        return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, float)
    import torch

    return torch.as_tensor(values, dtype=torch.float64, device=other.device)


def _lack(one: Label, other: Label) -> bool:
    return one.stress is None or other.stress is None


def _same(one: LabelledFrame, other: LabelledFrame) -> bool:
    def equal(a: Array | None, b: Array | None) -> bool:
        return (a is None) == (b is None) and (a is None or b is None or np.array_equal(a, b))

    return (
        one.label.energy == other.label.energy
        and equal(one.label.forces, other.label.forces)
        and equal(one.label.stress, other.label.stress)
        and one.origin == other.origin
    )
