"""The messages between the core, which decides, and the event loop, which executes: work, events, effects.

Work is what should be running now; an event is the result of a piece of work; an effect is a quick, idempotent
consequence. All are frozen, hashable and made of numbers and strings, so that each is one line of JSON in the journal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

from aims_pax.wire_names import in_files

# ---------------------------------------------------------------- work


@in_files("Sample")
@dataclass(frozen=True)
class RunSampler:
    """Make `per_system` new structures of every system."""

    visit: int
    per_system: int


@in_files("Advance", n_rewinds="life")
@dataclass(frozen=True)
class RunMD:
    """Move one trajectory from MD step `start` to MD step `end`. `n_rewinds` counts its rewinds."""

    trajectory: int
    start: int
    end: int
    n_rewinds: int


@in_files("Label")
@dataclass(frozen=True)
class RequestLabel:
    """Compute the label of one frame."""

    frame: str


@in_files("Train")
@dataclass(frozen=True)
class RunTraining:
    """Train for some epochs: all members, or one when `member` is given. `visit` counts from 0."""

    visit: int
    epochs: int
    member: int | None = None


@in_files("SelectFrames")
@dataclass(frozen=True)
class SelectFrames:
    """Choose at most `n` of these frames for labelling. `visit` counts the windows from 0.

    uncertainty: eV/Å, of each frame.
    """

    visit: int
    frames: tuple[str, ...]
    uncertainty: tuple[float, ...]
    n: int


Work = RunSampler | RunMD | RequestLabel | RunTraining | SelectFrames

# ---------------------------------------------------------------- events


@in_files("Sampled")
@dataclass(frozen=True)
class Sampled:
    """New structures: (system, frame id) of each, in the order of sampling."""

    work: RunSampler
    frames: tuple[tuple[str, str], ...]


@in_files("Advanced")
@dataclass(frozen=True)
class Advanced:
    """A trajectory reached `step`. `uncertainty` in eV/Å: one value, or one per atom (ensemble_sd).

    `fault` is the reason when the frame is physically impossible; then the uncertainty is meaningless.
    `implausible` is the reason when its predicted energy is outside the thermal range of its system.
    """

    work: RunMD
    step: int
    frame: str
    uncertainty: tuple[float, ...]
    fault: str | None = None
    implausible: str | None = None


@in_files("MeasuredError")
@dataclass(frozen=True)
class MeasuredError:
    """A prediction compared with its label, in eV/Å.

    spread: the uncertainty when it was predicted, the largest of the frame. largest: error of the worst force
    component. mean: of all components.
    """

    spread: float
    largest: float
    mean: float


@in_files("FrameError")
@dataclass(frozen=True)
class FrameError:
    """Spread and error of the committee on one labelled structure, eV/Å, as in `MeasuredError`; finite and positive."""

    frame: str
    system: str
    spread: float
    error: float


@in_files("Labelled")
@dataclass(frozen=True)
class Labelled:
    """The reference labelled the frame.

    present: the set (train, valid or test) that already contains this frame; None: it is new. A frame is counted
    once, so that the sizes in a state are those of the dataset.
    error: of the prediction of this frame, None if there was none.
    """

    work: RequestLabel
    present: str | None = None
    error: MeasuredError | None = None


@in_files("LabelFailed")
@dataclass(frozen=True)
class LabelFailed:
    """The reference could not label the frame; `kind` is the failure class, `reason` its text."""

    work: RequestLabel
    kind: str
    reason: str


@in_files("LabelDropped")
@dataclass(frozen=True)
class LabelDropped:
    """The label was dropped before its calculation began (the stage is stopping)."""

    work: RequestLabel


@in_files("Trained")
@dataclass(frozen=True)
class Trained:
    """A training visit has ended. One entry per trained member, in order.

    n_train: size of the training set when the visit began.
    valid_loss: in the unit of the loss. force_mae: eV/Å on the member's validation set. measured: the committee on some
    validation structures, where the stage asks for it.
    """

    work: RunTraining
    n_train: int
    valid_loss: tuple[float, ...]
    force_mae: tuple[float, ...]
    measured: tuple[FrameError, ...] = ()


@in_files("Selected")
@dataclass(frozen=True)
class Selected:
    """The frames of a window that are worth their labels, best first."""

    work: SelectFrames
    frames: tuple[str, ...]


Event = Sampled | Advanced | Labelled | LabelFailed | LabelDropped | Trained | Selected

# ---------------------------------------------------------------- effects


@dataclass(frozen=True)
class AddToDataset:
    """Add the labelled frame to the dataset: split is train, valid or test; member None means every member."""

    frame: str
    split: str
    member: int | None = None


@dataclass(frozen=True)
class Rewind:
    """Set the trajectory back to `frame` (None: its starting structure) with new momenta."""

    trajectory: int
    frame: str | None
    n_rewinds: int


@dataclass(frozen=True)
class RecordError:
    """Compare a label with the prediction that was stored for analysis.

    threshold (eV/Å) and n_train: when the frame was requested.
    """

    frame: str
    trajectory: int
    step: int
    threshold: float
    n_train: int


Decision = Literal[
    "certain", "uncertain", "quiet", "test", "budget spent", "candidate", "implausible", "audit"
]


@in_files("Checked")
@dataclass(frozen=True)
class UncertaintyCheck:
    """The uncertainty criterion was applied to a frame: the compared values and the decision.

    uncertainty: eV/Å, the largest of the frame. threshold: the δ that was used, eV/Å (inf: none yet). decision:
    certain (the trajectory continues), uncertain or quiet (its frame is labelled), test (labelled for the test
    set), audit (drawn at random to measure the error, then learnt), budget spent (it would have been labelled),
    candidate (uncertain; one of those among which the window's labels are chosen), or implausible (uncertain, but
    its energy is outside the thermal range: not labelled, the trajectory is rewound).
    """

    trajectory: int
    step: int
    uncertainty: float
    threshold: float
    decision: Decision


@dataclass(frozen=True)
class KeepBest:
    """Store the member's weights as the best so far."""

    member: int


@dataclass(frozen=True)
class RestoreBest:
    """Restore the member's best weights: its training has ended."""

    member: int


@dataclass(frozen=True)
class ContinueEarlier:
    """Restore the weights that the member had before convergence, for training that continues from them."""

    member: int


@dataclass(frozen=True)
class LogMessage:
    """A line for the log."""

    text: str
    level: str = "info"


Effect = (
    AddToDataset
    | Rewind
    | RecordError
    | UncertaintyCheck
    | KeepBest
    | RestoreBest
    | ContinueEarlier
    | LogMessage
)


class IllegalEvent(ValueError):
    """The event's work is not outstanding; the state is unchanged."""


S = TypeVar("S", bound="StageState")
R_contra = TypeVar("R_contra", contravariant=True)


class StageState(Protocol):
    """The state of any stage. stopped: the reason, None while it runs."""

    @property
    def stopped(self) -> str | None: ...


class StageModule(Protocol, Generic[S, R_contra]):
    """A stage: pure functions for the consequences of an event and the work that should be running."""

    NAME: str  # in files of runs

    def step(self, state: S, event: Event, rules: R_contra) -> tuple[S, tuple[Effect, ...]]: ...

    def outstanding(self, state: S, rules: R_contra) -> tuple[Work, ...]: ...
