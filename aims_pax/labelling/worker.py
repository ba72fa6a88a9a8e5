"""What runs where the work runs: compute one label, check it, store it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from aims_pax.errors import LabelError, SetupError
from aims_pax.frames import Frame, Label
from aims_pax.labelling.aims import AimsReference
from aims_pax.labelling.claims import Claim, Claims
from aims_pax.labelling.store import LabelStore, Record
from aims_pax.labelling.validation import check_label, constrained


class Reference(Protocol):
    """A program that labels frames. Travels to workers by value."""

    @property
    def quick(self) -> bool:
        """Threads of the driver serve."""
        ...

    def describe(self) -> dict[str, Any]:
        """Everything that determines a label."""
        ...

    def check(self) -> None:
        """Raise SetupError or SettingsError for what can be known before the first call."""
        ...

    def label(self, frame: Frame) -> Label:
        """Raise LabelError for this frame's failure, SetupError for everybody's."""
        ...

    def stop(self) -> None:
        """End what this process has running."""
        ...


@dataclass(frozen=True)
class Task:
    """All a worker needs, by value and by path. unwanted: a file that says nobody waits any more.

    run: of the driver, for the claim; None: the worker ends with its driver and claims nothing.
    """

    frame: Frame
    reference: Reference
    store: LabelStore
    unwanted: Path
    run: str | None = None


@dataclass(frozen=True)
class Answer:
    """What comes back: a label, or why there is none. Failures of the reference travel as values.

    busy: another worker has claimed the frame.
    """

    label: Label | None = None
    error: LabelError | SetupError | None = None
    seconds: float = 0.0
    dropped: bool = False
    busy: bool = False


def label_frame(task: Task) -> Label:
    """Compute one label, check it, and write it into the store before anybody else sees it.

    Runs wherever the executor runs it. Raises LabelError or SetupError.
    """
    begun = time.monotonic()
    label = task.reference.label(task.frame)
    check_label(task.frame, label)
    task.store.put(task.frame.id, label, time.monotonic() - begun)
    return label


def answer(task: Task) -> Answer:
    """`label_frame` unless the label exists already or nobody wants it any more; failures become values."""
    if _taken_back(task):
        return Answer(dropped=True)
    if task.run is None:
        return _known(task) or _computed(task)
    claims, claim = (
        Claims(task.store.folder),
        Claim.mine(task.run, getattr(task.reference, "time_limit", None)),
    )
    try:
        if not claims.take(task.frame.id, claim):
            return _known(task) or Answer(busy=True)
    except SetupError as error:
        return Answer(error=error)
    try:
        given = _known(task) or _computed(task)
        if isinstance(given.error, LabelError):
            claims.note_failure(task.frame.id, given.error)
        return given
    finally:
        claims.release(task.frame.id, claim)


def _known(task: Task) -> Answer | None:
    known = usable(task.store.read(task.frame.id), task.frame, task.reference)
    return None if known is None else Answer(known.label, seconds=known.seconds)


def usable(record: Record | None, frame: Frame, reference: Reference) -> Record | None:
    """A stored label, unless an earlier version let FHI-aims compute it with constraints in its input."""
    if record is None or record.raw_forces or not isinstance(reference, AimsReference):
        return record
    return None if constrained(frame, record.label) else record


def _computed(task: Task) -> Answer:
    begun = time.monotonic()
    try:
        return Answer(label_frame(task), seconds=time.monotonic() - begun)
    except (LabelError, SetupError) as error:
        return Answer(error=error, seconds=time.monotonic() - begun)


def _taken_back(task: Task) -> bool:
    """Whether the label was dropped; removing the file decides between worker and driver."""
    try:
        task.unwanted.unlink()
    except FileNotFoundError:
        return False
    return True
