"""AUGMENTATION of a run: perturbed copies of a member's training set, with labels of a Gaussian process that learns it.

The process of a member learns the member's own training set only, so that no label of its validation set reaches its
training. It is fitted again when the set has grown by a fifth: the sizes at which that happens depend on nothing else,
so the copies of a visit follow from the training set alone, and a restart finds or makes the same ones. They are stored
in `data/augmentation/`, never among the labels; `used.jsonl` there says which member trained on what.

Copies are used while the process is known to be better than the member: its leave-one-out force error is at most
`gate` times the member's validation force error, tested at each visit.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from aims_pax.errors import LabelError
from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.models.base import ForceFieldModel, MemberData
from aims_pax.models.gp.process import GaussianProcess
from aims_pax.models.gp.process_file import process_hash
from aims_pax.models.gp.surrogate_copies import CopyLimits, copy_origin, make_copies
from aims_pax.record.arrays import Torn, pack_arrays, unpack_arrays
from aims_pax.record.files import append_text, write_bytes
from aims_pax.settings.augmentation import AugmentationSettings

log = logging.getLogger(__name__)

FOLDER, USED = "augmentation", "used.jsonl"  # in the folder of the datasets
COPIES_FORMAT = 1
CLOSED = "the process is not good enough"
REFUSED = "all were refused"
MANY = "more training structures than AUGMENTATION.until_labels"
UNKNOWN = "there are no validation structures to compare with"
GROWTH = 1.2  # of the training set, after which the process is fitted again


@dataclass(frozen=True)
class SetOfCopies:
    """Copies of one training set.

    key: hash of the set and of the settings. labels: its size. process: hash of the process. loo_force_mae: eV/Å.
    copies: None while the process was not good enough to make any. refused: {reason: number}.
    """

    key: str
    labels: int
    process: str
    loo_force_mae: float
    copies: tuple[LabelledFrame, ...] | None = None
    refused: Mapping[str, int] = field(default_factory=dict)


class TrainingCopies:
    """Adds copies to the data of a member for a visit of training.

    folder: of the datasets of the run. check: called often during fits; it raises when the run should stop.
    """

    def __init__(
        self, settings: AugmentationSettings, folder: Path, check: Callable[[], Any] = lambda: None
    ) -> None:
        self.settings, self.folder, self.check = settings, folder / FOLDER, check
        self._made: dict[str, SetOfCopies] = {}
        # member → (set of copies, why it has none) of the last entry
        self._noted: dict[int, tuple[str, str]] = {}
        # entries that were in the log: a gate may open and close
        self._logged: set[tuple[int, str, str]] = set()

    def added(
        self, model: ForceFieldModel, member: int, visit: MemberData, whole: MemberData, grows: bool = True
    ) -> MemberData:
        """The data of a visit with its copies.

        visit: what the member trains on, perhaps a part of `whole`, its sets. grows: whether these will have more
        structures later; otherwise the process learns all of them now.
        """
        parents = [x for x in whole.train if len(x.frame) > 1]
        n = learnt_size(len(parents), self.settings.min_labels) if grows else len(parents)
        name = model.members[member].name
        if not self.settings.min_labels <= n:
            return visit
        none = SetOfCopies("", len(parents), "", math.nan)
        if len(parents) > self.settings.until_labels:
            self._note(name, member, none, math.nan, MANY)
            return visit
        if not whole.valid:
            self._note(name, member, none, math.nan, UNKNOWN)
            return visit
        (seen,) = model.validate({member: MemberData((), whole.valid)})
        found = self._copies_of(model, parents[:n], seen.force_mae)
        reason = "" if found.copies else REFUSED
        if not self._open(found, seen.force_mae):
            reason = CLOSED
        self._note(name, member, found, seen.force_mae, reason)
        if reason or not found.copies:
            return visit
        own = {x.id for x in visit.train}
        copies = tuple(x for x in found.copies if x.origin["parent"] in own)
        return replace(visit, copies=copies, copy_weight=self.settings.weight)

    def _open(self, found: SetOfCopies, force_mae: float) -> bool:
        """Whether the process is good enough; never without a validation error (NaN)."""
        return found.loo_force_mae <= self.settings.gate * force_mae

    def _copies_of(
        self, model: ForceFieldModel, parents: Sequence[LabelledFrame], force_mae: float
    ) -> SetOfCopies:
        """From memory, from the file, or made now; without copies while the process is not good enough."""
        key = self._key(model, parents)
        path = self.folder / f"{key}.npy"
        found = self._made.get(key) or _read(path, key, parents)
        if found is None or (found.copies is None and self._open(found, force_mae)):
            found = self._make(model, parents, key, force_mae)
            write_bytes(path, _packed(found))
        self._made = {k: v for k, v in self._made.items() if v.labels >= found.labels} | {key: found}
        return found

    def _make(
        self, model: ForceFieldModel, parents: Sequence[LabelledFrame], key: str, force_mae: float
    ) -> SetOfCopies:
        baseline = model.baseline
        name = "" if baseline is None else str(baseline.described)
        process = GaussianProcess.fit(parents, baseline=baseline, baseline_name=name, check=self.check)
        found = SetOfCopies(key, len(parents), process_hash(process), process.errors.force_mae)
        if not self._open(found, force_mae):
            return found
        s = self.settings
        limits = CopyLimits(s.sigma, s.copies, max_sd=s.max_sd, seed=s.seed)
        made = make_copies(
            process, found.process, parents, limits, self.check, lambda frames: _learnable(model, frames)
        )
        return replace(found, copies=made.copies, refused={r: n for r, n in made.refused.items() if n})

    def _key(self, model: ForceFieldModel, parents: Sequence[LabelledFrame]) -> str:
        """A hash (twelve hex digits) of everything that the copies depend on, the gate aside."""
        s = self.settings
        digest = hashlib.sha256(
            repr(
                (COPIES_FORMAT, s.copies, s.sigma, s.max_sd, s.seed, getattr(model.baseline, "identity", ""))
            ).encode()
        )
        for x in parents:
            digest.update(x.id.encode())
            digest.update(np.array(x.label.energy).tobytes())
            digest.update(x.label.forces.tobytes())
        return digest.hexdigest()[:12]

    def _note(self, name: str, member: int, found: SetOfCopies, force_mae: float, reason: str) -> None:
        """An entry in `used.jsonl` when what a member trains on has changed, and a line in the log the first time.

        reason: why there are no copies; "" if there are.
        """
        if self._noted.get(member) == (found.key, reason):
            return
        self._noted[member] = (found.key, reason)
        copies = 0 if reason else len(found.copies or ())
        entry = {
            "member": name, "labels": found.labels, "copies": copies, "wanted": found.labels * self.settings.copies,
            "loo_force_mae": found.loo_force_mae, "validation_force_mae": force_mae, "refused": dict(found.refused),
            "process": found.process, "reason": reason,
        }  # fmt: skip
        append_text(self.folder / USED, json.dumps(entry) + "\n")
        if (member, found.key, reason) in self._logged:
            return
        self._logged.add((member, found.key, reason))
        errors = (
            f"force MAE {1000 * found.loo_force_mae:.1f} meV/Å (leave-one-out) against {1000 * force_mae:.1f}"
        )
        if reason == CLOSED:
            log.info("augmentation: %s: no copies: %s, %s of the member", name, reason, errors)
            return
        if reason in (MANY, UNKNOWN):
            log.info("augmentation: %s: no copies: %s", name, reason)
            return
        refused = ", ".join(f"{reason} {n}" for reason, n in found.refused.items()) or "none"
        log.info(
            "augmentation: %s: %d of %d copies of %d structures · process %s: %s of the member · refused: %s",
            name, copies, entry["wanted"], found.labels, found.process, errors, refused,
        )  # fmt: skip


def learnt_size(n: int, first: int) -> int:
    """How many of n structures the process has learnt: the largest size ≤ n of first, 1.2·first, 1.44·first, …"""
    if n < first:
        return 0
    size = first
    while (larger := max(size + 1, math.ceil(GROWTH * size))) <= n:
        size = larger
    return size


def _learnable(model: ForceFieldModel, frames: Sequence[Frame]) -> list[Frame]:
    """Those on which the baseline of the model, if it has one, does not fail."""
    model.check_frames(frames)
    found = []
    for frame in frames:
        try:
            model.check_frame(frame)
        except LabelError as error:
            log.debug("augmentation: a copy cannot be learnt: %s", error)
            continue
        found.append(frame)
    return found


def _packed(found: SetOfCopies) -> bytes:
    copies = found.copies or ()
    arrays = {
        f"{k}/{name}": np.asarray(value)
        for k, x in enumerate(copies)
        for name, value in (
            ("positions", x.frame.positions), ("energy", x.label.energy), ("forces", x.label.forces),
        )
    }  # fmt: skip
    meta = {
        "copies_format": COPIES_FORMAT, "labels": found.labels, "process": found.process,
        "loo_force_mae": found.loo_force_mae, "refused": dict(found.refused),
        "parents": None if found.copies is None else [x.origin["parent"] for x in copies],
    }  # fmt: skip
    return pack_arrays(arrays, meta)


def _read(path: Path, key: str, parents: Sequence[LabelledFrame]) -> SetOfCopies | None:
    """The copies in a file; None when there is none, or it is damaged: they are then made again."""
    if not path.exists():
        return None
    try:
        arrays, meta = unpack_arrays(path.read_bytes())
    except Torn as error:
        log.warning("%s: %s; the copies are made again", path, error)
        return None
    found = SetOfCopies(
        key, int(meta["labels"]), meta["process"], float(meta["loo_force_mae"]), refused=meta["refused"]
    )
    if meta["parents"] is None:
        return found
    by_id = {x.id: x for x in parents}
    copies = tuple(
        LabelledFrame(
            by_id[parent].frame.moved(arrays[f"{k}/positions"]),
            Label(float(arrays[f"{k}/energy"]), arrays[f"{k}/forces"]),
            copy_origin(by_id[parent], found.process),
        )
        for k, parent in enumerate(meta["parents"])
    )
    return replace(found, copies=copies)
