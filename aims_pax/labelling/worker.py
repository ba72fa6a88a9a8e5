"""The task of a worker: compute one label, check it, store it.

A computed label that cannot be stored (full or read-only disk) is saved elsewhere: FHI-aims' files stay in the folder
of the calculation; the label of another reference goes to the first of these files that can be written:

    {calc_dir}/unstored/labels/{method}/{frame_id}.json
    {temporary folder}/aims-PAX-{user id}/labels/{method}/{frame_id}.json

The next request for the frame finds it there, before anything is computed.
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
    """A program that labels frames. It is pickled and sent to workers.

    A reference whose calculations leave files may have `label_and_store(frame, store)`: it calls `store(label)` before
    it removes any file, and leaves the files when that raises. `scratch`: its folder for files, if it has one.
    """

    @property
    def quick(self) -> bool:
        """Whether it can run in threads of the driver."""
        ...

    def describe(self) -> dict[str, Any]:
        """Everything that determines a label."""
        ...

    def check(self) -> None:
        """Raise SetupError or SettingsError for mistakes that can be found before the first calculation."""
        ...

    def label(self, frame: Frame) -> Label:
        """Raises LabelError when this frame fails, SetupError when every frame would fail."""
        ...

    def stop(self) -> None:
        """End the calculations that this process runs."""
        ...


@dataclass(frozen=True)
class Task:
    """All that a worker needs. unwanted: a file; when it exists, the label is no longer requested.

    run: the driver's run, for the claim; None: the worker ends with its driver and claims nothing.
    """

    frame: Frame
    reference: Reference
    store: LabelStore
    unwanted: Path
    run: str | None = None

    @property
    def done(self) -> bool:
        """Whether its label or its failure is stored, or the label is no longer requested."""
        there = self.store.contains(self.frame.id) or Claims(self.store.folder).has_failed(self.frame.id)
        return there or self.unwanted.exists()


@dataclass(frozen=True)
class Answer:
    """The result of a task: a label, or an error. Failures of the reference are returned, not raised.

    busy: another worker has claimed the frame.
    """

    label: Label | None = None
    error: LabelError | SetupError | None = None
    seconds: float = 0.0
    dropped: bool = False
    busy: bool = False


def label_frame(task: Task) -> Label:
    """Compute one label, check it, and store it before it is returned.

    Runs in the executor's worker. Raises LabelError or SetupError.
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
    """Other stores, for labels that could not be stored in the run's folder."""
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
                f"{error}. The label of frame {task.frame.id} is computed and saved in "
                f"{spare.path(task.frame.id)}; the next run takes it from there"
            )
    return NotStored(
        f"{error}. The label of frame {task.frame.id} is lost: it could not be saved elsewhere either"
    )


def _make_private(spare: LabelStore) -> None:
    with suppress(OSError):
        spare.folder.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)


def _from_spare(task: Task) -> Answer | None:
    """Store a label now that could not be stored when it was computed. Files of other users are ignored."""
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
                        error=NotStored(f"{error}. The label of frame {task.frame.id} is still in {path}")
                    )
                log.info(
                    "frame %s: its label was computed before and is taken from %s", task.frame.id[:6], path
                )
                path.unlink(missing_ok=True)
                return Answer(found.label, seconds=found.seconds)
    return None


def label_task(task: Task) -> Answer:
    """`label_frame`, unless the label exists already or is no longer requested; failures are returned, not raised."""
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
    """The record, or None when an earlier version computed it by FHI-aims with constraints in its input."""
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
    """Whether the label was dropped. Driver and worker both try to remove the file; whichever succeeds decides."""
    try:
        task.unwanted.unlink()
    except FileNotFoundError:
        return False
    return True
