"""What runs where the work runs: compute one label, check it, store it.

A label that was paid for and cannot be stored (a full or read-only disk) is kept elsewhere: FHI-aims' own files stay
in its calculation's folder; the label of another reference goes to the first of these places that takes it:

    {calc_dir}/unstored/labels/{method}/{frame_id}.json
    {temporary folder}/aims-PAX-{user id}/labels/{method}/{frame_id}.json

The next who asks for the frame finds it there, before anything is computed.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from aims_pax.errors import LabelError, NotStored, SetupError
from aims_pax.frames import Frame, Label
from aims_pax.labelling.claims import Claim, Claims
from aims_pax.labelling.references.fhi_aims import AimsReference
from aims_pax.labelling.store import LabelStore, Record
from aims_pax.labelling.validation import check_label, constrained

log = logging.getLogger(__name__)


class Reference(Protocol):
    """A program that labels frames. Travels to workers by value.

    One whose calculations leave files may have `label_and_store(frame, store)`: it calls `store(label)` before it
    removes any of them, and keeps them when that raises. `scratch`: its folder for files, where it has one.
    """

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

    @property
    def done(self) -> bool:
        """Whether its label, or why there is none, is known, or nobody wants it."""
        there = self.store.contains(self.frame.id) or Claims(self.store.folder).has_failed(self.frame.id)
        return there or self.unwanted.exists()


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

    def store(label: Label) -> None:
        check_label(task.frame, label)
        task.store.put(task.frame.id, label, time.monotonic() - begun)

    label_and_store = getattr(task.reference, "label_and_store", None)
    if label_and_store is not None:
        labelled: Label = label_and_store(task.frame, store)
        return labelled
    label = task.reference.label(task.frame)
    try:
        store(label)
    except SetupError as error:
        raise _store_elsewhere(task, label, time.monotonic() - begun, error) from error
    return label


def _spares(task: Task) -> Iterator[LabelStore]:
    """Where labels wait that could not be stored."""
    scratch = getattr(task.reference, "scratch", None)
    if scratch is not None:
        yield LabelStore(Path(scratch) / "unstored", task.store.method)
    if hasattr(os, "getuid"):
        yield LabelStore(Path(tempfile.gettempdir()) / f"aims-PAX-{os.getuid()}", task.store.method)


def _store_elsewhere(task: Task, label: Label, seconds: float, error: SetupError) -> NotStored:
    for spare in _spares(task):
        with suppress(SetupError):
            _make_private(spare)
            spare.put(task.frame.id, label, seconds)
            return NotStored(
                f"{error}. The label of frame {task.frame.id} is computed and waits in "
                f"{spare.path(task.frame.id)}; the next run takes it from there"
            )
    return NotStored(f"{error}. The label of frame {task.frame.id} is lost: no other place takes it either")


def _make_private(spare: LabelStore) -> None:
    with suppress(OSError):
        spare.folder.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)


def _from_spare(task: Task) -> Answer | None:
    """A label that could not be stored when it was computed; stored now. Others' files do not count."""
    for spare in _spares(task):
        path = spare.path(task.frame.id)
        with suppress(OSError, SetupError):
            if hasattr(os, "getuid") and path.stat().st_uid != os.getuid():
                continue
            found = spare.read(task.frame.id)
            if found is not None:
                try:
                    task.store.put(task.frame.id, found.label, found.seconds)
                except SetupError as error:
                    return Answer(
                        error=NotStored(f"{error}. The label of frame {task.frame.id} waits in {path}")
                    )
                log.info("frame %s: its label was computed before and waited in %s", task.frame.id[:6], path)
                path.unlink(missing_ok=True)
                return Answer(found.label, seconds=found.seconds)
    return None


def label_task(task: Task) -> Answer:
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
        with claims.renewed(task.frame.id):
            given = _known(task) or _computed(task)
        if isinstance(given.error, LabelError):
            claims.note_failure(task.frame.id, given.error)
        return given
    finally:
        claims.release(task.frame.id, claim)


def _known(task: Task) -> Answer | None:
    known = usable_record(task.store.read(task.frame.id), task.frame, task.reference)
    return _from_spare(task) if known is None else Answer(known.label, seconds=known.seconds)


def usable_record(record: Record | None, frame: Frame, reference: Reference) -> Record | None:
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
