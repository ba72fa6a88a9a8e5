"""The baseline of Δ-learning: a cheap potential whose labels are stored, checked, and added to every prediction.

Stored labels are in data/baseline/labels/<hash>/<frame id>.json, written like those of the reference: whole or not at
all. The hash is that of the settings entry and of the files it names, so that another baseline has other labels.

A label that is learnt is computed by a new calculator, so that it does not depend on earlier structures, and a second
evaluation a little along the forces must agree with them:

    E(x + h·d) − E(x) = −h/2·(F(x) + F(x + h·d))·d,   d = F/|F|,  h = 0.02 Å

An SCF cycle that ended in another state, or not at all, does not. During MD, where a calculator may start from its last
result, the same is checked between two steps.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aims_pax.errors import AimsPaxError, LabelError, NotConverged, SettingsError, SetupError, Unsupported
from aims_pax.frames import Array, Frame, Label
from aims_pax.labelling.references.ase_calculator import classify
from aims_pax.labelling.store import LabelStore, method_hash
from aims_pax.labelling.validation import check_label
from aims_pax.potential import CalculatorPotential, Evaluation, Potential
from aims_pax.potentials.factory import calculator_potential, make_potential
from aims_pax.potentials.named import LoadedPotential, canonical_spec, contents_of_potential
from aims_pax.settings.augment import CallSpec, called

if TYPE_CHECKING:
    from aims_pax.settings import LabellingSettings

log = logging.getLogger(__name__)

KEY = "REFERENCE.baseline"
FOLDER = "baseline"  # in data/
STEP = 0.02  # Å
AGREE = 0.01  # eV between energies and forces of a label …
JUMP = 0.1  # eV between two MD steps …
SHARE = 0.1  # … in addition to this share of the work
FAR = 0.1  # Å: no atom moves so far in an MD step, and the work of a longer way is not known from its ends
AT_ONCE = 32  # structures


class Baseline:
    """One baseline for all members; loaded when it is first needed, also in another process.

    spelling: as in the settings: `{factory, kwargs}`, a name, or the path of a model. folder: contains the user's
    modules and files. store: where labels are stored; None: nowhere. key: for errors.
    """

    def __init__(
        self, spelling: Any, folder: Path, device: str = "cpu", store: Path | None = None, key: str = KEY
    ) -> None:
        self.spelling, self.folder, self.device, self.key = spelling, folder, device, key
        self.spec = canonical_spec(spelling)
        self.contents = contents_of_potential(self.spec, folder)
        self.identity = method_hash({"baseline": _plain(self.spec), "contents": self.contents})
        self.store = None if store is None else LabelStore(store, self.identity)
        self._known: dict[str, Label] = {}
        self._failed: dict[str, LabelError] = {}
        self._potential: Potential | None = None
        self._said: set[str] = set()

    @classmethod
    def of_run(cls, settings: LabellingSettings, stored: bool = True) -> Baseline:
        """REFERENCE.baseline of a run. stored: labels are stored in its data."""
        store = settings.path(settings.misc.dataset_dir) / FOLDER if stored else None
        return cls(settings.reference.baseline, settings.folder, settings.model.device, store)

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which only evaluates: without potential and labels."""
        return {**self.__dict__, "_potential": None, "_known": {}, "_failed": {}, "store": None}

    @property
    def described(self) -> str:
        if isinstance(self.spec, str):
            return self.spec
        return called(self.spec)

    def record(self) -> dict[str, Any]:
        return {
            "baseline": self.spelling,
            "baseline_in_words": self.described,
            "identity": self.identity,
            "contents": dict(self.contents),
        }

    @property
    def potential(self) -> Potential:
        """The potential. Raises SettingsError with the key, SetupError."""
        if self._potential is None:
            self._potential = self._load()
            if self.store is not None:
                self.store.describe({"baseline": _plain(self.spec), "contents": self.contents})
        return self._potential

    def _load(self) -> Potential:
        made = make_potential(self.spec, self.folder, self.key, self.device, "float64")
        spec = self.spec
        named = isinstance(spec, CallSpec) and spec.called and not spec.args and ":" in spec.target
        if isinstance(made, CalculatorPotential) and named:
            assert isinstance(spec, CallSpec)  # a new calculator for each structure
            return calculator_potential(spec.target, spec.kwargs, self.folder, self.key)
        return made

    # ------------------------------------------------------------ labels

    def refusal(self, frame: Frame) -> str | None:
        """Why the baseline cannot be given charge or spin of this frame, or None."""
        return self._loaded().refusal(frame)

    def atomic_energy(self, number: int) -> float:
        """Energy of an isolated atom in its ground state, eV. Raises SettingsError."""
        energy = self._loaded().atomic_energy(number)
        if not math.isfinite(energy):
            raise SettingsError(
                self.key, f"the energy of an isolated atom with atomic number {number} is not finite"
            )
        return energy

    def label(self, frame: Frame) -> Label:
        known = self._stored(frame)
        if known is None:
            self.prepare([frame])
            if frame.id in self._failed:
                raise self._failed.pop(frame.id)
            known = self._known[frame.id]
        return known

    def prepare(self, frames: Sequence[Frame], check: Callable[[], None] = lambda: None) -> None:
        missing = [f for f in dict.fromkeys(frames) if self._stored(f) is None]
        for start in range(0, len(missing), AT_ONCE):
            check()
            part = missing[start : start + AT_ONCE]
            first = self._computed(part)
            second = dict(self._second(part, first))
            for frame, found in zip(part, first, strict=True):
                label = (
                    found
                    if isinstance(found, LabelError)
                    else _checked(frame, found, second.get(frame.id), self)
                )
                if isinstance(label, LabelError):
                    self._failed[frame.id] = label
                    continue
                self._failed.pop(frame.id, None)
                self._known[frame.id] = label
                if self.store is not None:
                    self.store.put(frame.id, label)

    def labels(self, frames: Sequence[Frame]) -> list[Label]:
        found = {f.id: self._stored(f) for f in frames}
        missing = [f for f in dict.fromkeys(frames) if found[f.id] is None]
        for start in range(0, len(missing), AT_ONCE):
            part = missing[start : start + AT_ONCE]
            for frame, label in zip(part, self._computed(part), strict=True):
                if isinstance(label, LabelError):
                    raise label
                found[frame.id] = label
        return [known for f in frames if (known := found[f.id]) is not None]

    def _stored(self, frame: Frame) -> Label | None:
        if frame.id not in self._known and self.store is not None:
            label = self.store.get(frame.id)
            if label is not None:
                self._known[frame.id] = label
        return self._known.get(frame.id)

    def _computed(self, frames: Sequence[Frame]) -> list[Label | LabelError]:
        """Labels of a batch, or of one frame after the other if the batch fails. Raises SetupError, SettingsError."""
        if not frames:
            return []
        if all(self.refusal(frame) is None for frame in frames):
            try:
                return list(self._afresh(frames))
            except Exception as error:
                if len(frames) == 1:
                    return [self._blamed(error, frames[0])]
        return [self._one(frame) for frame in frames]

    def _one(self, frame: Frame) -> Label | LabelError:
        if (text := self.refusal(frame)) is not None:
            return Unsupported(f"{self.key}: {text}")
        try:
            return self._afresh([frame])[0]
        except Exception as error:
            return self._blamed(error, frame)

    def _afresh(self, frames: Sequence[Frame]) -> list[Label]:
        own = self.potential
        return own.labels_afresh(frames) if isinstance(own, CalculatorPotential) else own.labels(frames)

    def _blamed(self, error: Exception, frame: Frame) -> LabelError:
        """The failure as a LabelError that names key and frame. Raises what concerns every frame."""
        found = error if isinstance(error, AimsPaxError) else classify(error, self.described)
        if isinstance(found, LabelError):
            return type(found)(f"{self.key} fails on {frame.formula} ({frame.id[:6]}): {found.reason}")
        if isinstance(found, SettingsError):
            raise (found if self.key in str(found) else SettingsError(self.key, str(found))) from error
        raise SetupError(f"{self.key}: {found}") from error

    def _second(
        self, frames: Sequence[Frame], first: Sequence[Label | LabelError]
    ) -> list[tuple[str, tuple[Array, Label | LabelError]]]:
        """(frame id, (displacement, label there)) of each frame with a finite label and more than one atom."""
        moved = [
            (frame, step)
            for frame, label in zip(frames, first, strict=True)
            if isinstance(label, Label) and label.finite and len(frame) > 1
            for step in [_along(label.forces)]
        ]
        labels = self._computed([frame.moved(frame.positions + step) for frame, step in moved])
        return [(frame.id, (step, label)) for (frame, step), label in zip(moved, labels, strict=True)]

    def _loaded(self) -> LoadedPotential:
        return LoadedPotential(self.spec, self.potential, self.folder, self.device)

    # ------------------------------------------------------------ molecular dynamics

    def bind(self, frames: Sequence[Frame]) -> BaselineBound:
        return BaselineBound(self, frames)

    def bound_of(self, frames: Sequence[Frame]) -> Any:
        """A binding of the potential itself. Raises SetupError, SettingsError."""
        try:
            return self.potential.bind(frames)
        except Exception as error:
            raise self._blamed(error, frames[0]) from error

    def alone(self, frame: Frame) -> Label | LabelError:
        """The label of one structure by a new calculator, unchecked and not stored."""
        return self._one(frame)

    def warn_once(self, reason: str, so: str = "the trajectory returns to its last labelled frame") -> None:
        """Log what went wrong in MD, and what follows; equal reasons once."""
        if reason not in self._said:
            self._said.add(reason)
            log.warning("%s: %s", reason, so)


class BaselineBound:
    """The baseline of F moving structures. One on which it fails, or whose energy jumps, gets NaN: MD ends there."""

    members = 1

    def __init__(self, baseline: Baseline, frames: Sequence[Frame]) -> None:
        self.baseline, self.frames = baseline, list(frames)
        self.bound = baseline.bound_of(self.frames)
        self.device = self.bound.device
        ends = np.cumsum([len(f) for f in frames])
        self.slices = [slice(int(e) - len(f), int(e)) for e, f in zip(ends, frames, strict=True)]
        self._before: tuple[Array, Array, Array, Array] | None = None  # positions, cells, energies, forces

    def __call__(self, positions: Any, cells: Any, *, stress: bool = False) -> Evaluation:
        import torch

        x, h = positions.detach().cpu().numpy(), cells.detach().cpu().numpy()
        try:
            said = self.bound(positions, cells, stress=stress)
            E, F, S = (None if v is None else v.detach().cpu().double().numpy().mean(0) for v in _parts(said))
        except Exception as error:  # of one structure; the others must not suffer
            E, F, S = self._one_by_one(x, h)
            if np.isfinite(E).all():  # not of a structure: for example too little memory for all of them
                self.baseline.warn_once(
                    f"{self.baseline.key}: {type(error).__name__}: {error}", "evaluated one by one"
                )
            self._renew()
        assert E is not None and F is not None  # noqa: PT018
        for f in self._jumped(x, h, E, F):
            self._recompute(f, x, h, E, F, S)
        self._before = x.copy(), h.copy(), E.copy(), F.copy()
        tensors = None if S is None or not stress else torch.from_numpy(S)[None].to(self.device)
        return Evaluation(
            torch.from_numpy(E)[None].to(self.device), torch.from_numpy(F)[None].to(self.device), tensors
        )

    def _one_by_one(self, x: Array, h: Array) -> tuple[Array, Array, Array]:
        E, F = np.full(len(self.frames), np.nan), np.full((len(x), 3), np.nan)
        S = np.full((len(self.frames), 3, 3), np.nan)
        for f in range(len(self.frames)):
            self._put(f, self.baseline.alone(self._moved(f, x, h)), E, F, S)
        return E, F, S

    def _put(self, f: int, found: Label | LabelError, E: Array, F: Array, S: Array | None) -> None:
        if isinstance(found, LabelError):
            self.baseline.warn_once(found.reason)
            E[f], F[self.slices[f]] = np.nan, np.nan
            return
        E[f], F[self.slices[f]] = found.energy, found.forces
        if S is not None and found.stress is not None:
            S[f] = found.stress

    def _jumped(self, x: Array, h: Array, E: Array, F: Array) -> list[int]:
        """Structures that moved a little and whose energy changed by another amount than the work of their forces."""
        if self._before is None:
            return []
        x0, h0, E0, F0 = self._before
        found = []
        for f, atoms in enumerate(self.slices):
            if not np.array_equal(h0[f], h[f]) or not np.isfinite(E0[f]):
                continue
            if np.abs(x[atoms] - x0[atoms]).max() > FAR:  # another structure, not the next step
                continue
            work = 0.5 * (F0[atoms] + F[atoms]) * (x[atoms] - x0[atoms])
            if abs(E[f] - E0[f] + work.sum()) > JUMP + SHARE * np.abs(work).sum():
                found.append(f)
        return found

    def _recompute(self, f: int, x: Array, h: Array, E: Array, F: Array, S: Array | None) -> None:
        """A new calculator decides: it finds the former state again, or the structure gets NaN."""
        before = E[f]
        self._put(f, self.baseline.alone(self._moved(f, x, h)), E, F, S)
        self._renew()
        if np.isfinite(E[f]) and f in self._jumped(x, h, E, F):
            frame = self.frames[f]
            reason = f"{self.baseline.key}: the energy of {frame.formula} jumps between two MD steps"
            self.baseline.warn_once(f"{reason} ({before - self._before[2][f]:+.2f} eV)")  # type: ignore[index]
            E[f], F[self.slices[f]] = np.nan, np.nan

    def _moved(self, f: int, x: Array, h: Array) -> Frame:
        return self.frames[f].moved(x[self.slices[f]], h[f])

    def _renew(self) -> None:
        """New calculators: a failed one may be left in a state of its own."""
        self.bound = self.baseline.bound_of(self.frames)


def _parts(said: Evaluation) -> tuple[Any, Any, Any]:
    return said.energies, said.forces, said.stress


def _along(forces: Array) -> Array:
    """(N, 3) Å: a displacement of STEP along the forces; along x alternately if there are none."""
    size = float(np.linalg.norm(forces))
    if size > 1e-6:
        return np.asarray(STEP * forces / size)
    step = np.zeros_like(forces)
    step[::2, 0] = STEP / math.sqrt((len(forces) + 1) // 2)
    return step


def _checked(
    frame: Frame, label: Label, second: tuple[Array, Label | LabelError] | None, baseline: Baseline
) -> Label | LabelError:
    """The label, or why it cannot be learnt from."""
    who = f"{baseline.key} fails on {frame.formula} ({frame.id[:6]})"
    try:
        check_label(frame, label)
    except LabelError as error:
        return type(error)(f"{who}: {error.reason}")
    if second is None:
        return label
    step, other = second
    if isinstance(other, LabelError):
        return other
    work = -0.5 * float(((label.forces + other.forces) * step).sum())
    change = other.energy - label.energy
    noise = 8 * float(np.spacing(np.float32(abs(label.energy))))  # of a model in single precision
    if not abs(change - work) <= AGREE + SHARE * abs(work) + noise:
        return NotConverged(
            f"{who}: its energy and forces do not belong together: {STEP} Å along the forces the energy changes by "
            f"{change:+.3f} eV, the forces give {work:+.3f} eV; its SCF cycle may have ended in another state"
        )
    return label


def _plain(value: Any) -> Any:
    """A settings entry as plain values."""
    if isinstance(value, CallSpec):
        return {
            "factory": value.target,
            "args": _plain(list(value.args)),
            "kwargs": _plain(dict(value.kwargs)),
        }
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value
