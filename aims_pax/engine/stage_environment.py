"""What all stages share outside the core: candidates, labels, dataset, models, snapshots."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aims_pax.core.work import (
    AddToDataset,
    Effect,
    Event,
    FrameError,
    MeasuredError,
    RequestLabel,
    RunTraining,
    StageModule,
    Trained,
    Work,
)
from aims_pax.engine.candidates import Candidate, candidate_arrays, candidates_from_arrays
from aims_pax.engine.event_loop import EventLoop
from aims_pax.engine.run_context import RunContext
from aims_pax.errors import LabelError, RestartError
from aims_pax.frames import Frame, LabelledFrame
from aims_pax.frames import Label as FrameLabel
from aims_pax.models.base import MemberData, MemberResult
from aims_pax.record.checkpoint import Checkpoint, Snapshot, from_plain
from aims_pax.report.live_view import LastCheck

log = logging.getLogger(__name__)

LOSS_COLUMNS = "stage,visit,epoch,train_loss,valid_loss,energy_mae_eV_atom,force_mae_eV_A\n"


class StageEnvironment:
    """Base class of the stage environments; each stage adds its own turns and effects."""

    grows = True  # whether the training sets grow during the stage

    def __init__(self, run: RunContext, stage: StageModule[Any, Any], name: str | None = None) -> None:
        self.run = run
        self.stage = stage
        self.name = name or stage.NAME
        self.checkpoint = Checkpoint(run.folder, self.name)
        self.candidates: dict[str, Candidate] = {}  # by frame id
        self.capacity = run.labeller.capacity
        self.trains_in_background = run.background_training is not None
        self.seen: dict[int, LastCheck] = {}  # trajectory → its last uncertainty check, for the live view
        self._sizes: dict[RunTraining, int] = {}  # of the training sets when background visits began
        self.fresh = False  # True: there was no snapshot to continue from
        self.entries = 0  # number of dataset entries in the snapshot that was read

    def drive(self, state: Any, rules: Any) -> Any:
        """Run the stage to its end from this state."""
        self.rules = rules
        if self.fresh:
            self.run.journal.write(self.name, "stage begun", {})  # discards the lines of an earlier attempt
        final = EventLoop(self.stage, state, rules, self, self.run.journal, self.run.watch).run()
        self.run.journal.write(self.name, "stage ended", self.summary(final))
        return final

    def summary(self, state: Any) -> Any:
        """The final state for the journal; a stage may leave out long fields."""
        return state

    # ------------------------------------------------------------ the reference

    def submit(self, work: RequestLabel) -> Future[Any]:
        candidate = self.candidate(work.frame)
        try:
            self.run.ensemble.check_frame(candidate.frame)
        except LabelError as error:
            return self.run.labeller.refuse(candidate.frame, error)
        return self.run.labeller.submit(candidate.frame, system=candidate.system)

    def drop(self, work: RequestLabel) -> None:
        self.run.labeller.drop(work.frame)

    def keep(self, work: RequestLabel, label: FrameLabel) -> str | None:
        self.candidates[work.frame] = self.candidate(work.frame).with_label(label)
        return self.run.dataset.split_of(work.frame)

    def error_of(self, work: RequestLabel) -> MeasuredError | None:
        """The error of the prediction of a frame whose label was just stored; only active learning predicts."""
        return None

    def label_seconds(self) -> float:
        calls = self.run.labeller.calls
        return calls.seconds / calls.finished if calls.finished else 1.0

    # ------------------------------------------------------------ effects

    def apply(self, effect: Effect) -> None:
        match effect:
            case AddToDataset(frame, split, member):
                self.run.dataset.add(self.labelled(frame), split, member)
            case _:
                raise TypeError(f"{effect} has no meaning in stage {self.stage.NAME}")

    def labelled(self, frame: str) -> LabelledFrame:
        """A frame with its label from this run's reference, and the origin of both."""
        candidate, dataset = self.candidate(frame), self.run.dataset
        method = self.run.labeller.method_of(candidate.system)
        known = dataset.labelled(frame, method)
        if known is not None:
            return known
        if candidate.label is None and frame in dataset:  # an older version did not write methods
            return dataset.frames[frame]
        assert candidate.label is not None
        return LabelledFrame(
            candidate.frame, candidate.label,
            {**candidate.origin, "source": "reference", "method": method, "settings": self.run.settings_hash},
        )  # fmt: skip

    # ------------------------------------------------------------ the device

    def turn(self, works: Sequence[Work], stop: Callable[[], bool]) -> Iterable[Event]:
        raise NotImplementedError

    def train(self, work: RunTraining, stop: Callable[[], bool]) -> Trained:
        """One visit of training on the dataset as it is now, in this process."""
        results = self.run.ensemble.train(self._data(work), work.epochs, stop=stop, **self._how(work))
        return self._trained(work, results, self._size(work))

    def begin_training(self, work: RunTraining) -> Future[Any]:
        """The same in the background: nothing changes in this process until `finish_training`."""
        assert self.run.background_training is not None
        self._sizes[work] = self._size(work)
        return self.run.background_training.begin(work, self._data(work), **self._how(work))

    def finish_training(self, work: RunTraining, future: Future[Any]) -> Trained | None:
        assert self.run.background_training is not None
        size, results = self._sizes.pop(work), self.run.background_training.finish(work, future)
        return None if results is None else self._trained(work, results, size)

    def drop_training(self, work: RunTraining) -> None:
        assert self.run.background_training is not None
        del self._sizes[work]
        self.run.background_training.drop(work)

    def how_to_train(self, work: RunTraining) -> dict[str, Any]:
        """Additional keywords of `Learner.train` for this stage."""
        return {}

    def _how(self, work: RunTraining) -> dict[str, Any]:
        return {"words": ("train", self.name, work.visit), **self.how_to_train(work)}

    def _members(self, work: RunTraining) -> Sequence[int]:
        return range(len(self.run.ensemble.members)) if work.member is None else (work.member,)

    def _data(self, work: RunTraining) -> dict[int, MemberData]:
        return {m: self._augmented(m, self.visit_data(m, work)) for m in self._members(work)}

    def _augmented(self, member: int, visit: MemberData) -> MemberData:
        """The data of a visit, with copies if the settings say so; the sets themselves have none."""
        augmentation, ensemble = self.run.augmentation, self.run.ensemble
        if augmentation is None or not ensemble.trained:
            return visit
        return augmentation.added(ensemble, member, visit, self.data_of(member), self.grows)

    def _size(self, work: RunTraining) -> int:
        """Present size of the largest training set: this visit covers all structures up to it."""
        return max(len(self.data_of(m).train) for m in self._members(work))

    def _trained(self, work: RunTraining, results: Sequence[MemberResult], n_train: int) -> Trained:
        self._note(work, results)
        losses, errors = (
            tuple(r.valid_loss for r in results),
            tuple(r.force_mae for r in results),
        )
        return Trained(work, n_train, losses, errors, self.measured())

    def measured(self) -> tuple[FrameError, ...]:
        """Spreads and errors of the trained committee, for stages that draw conclusions from them."""
        return ()

    def visit_data(self, member: int, work: RunTraining) -> MemberData:
        """Data of a member for this visit: everything, unless the stage replays a part."""
        return self.data_of(member)

    def data_of(self, member: int) -> MemberData:
        """Training and validation data of a member."""
        return self.run.member_data(member)

    def _note(self, work: RunTraining, results: Sequence[MemberResult]) -> None:
        """Append this visit's losses to the members' files, and one line to the log."""
        for r in results:
            path = self.run.folder.losses / f"{r.name}.csv"
            head = "" if path.exists() else LOSS_COLUMNS
            rows = "".join(
                f"{self.name},{work.visit},{e.epoch},{e.train_loss:.8g},{e.valid_loss:.8g},{e.energy_mae:.8g},{e.force_mae:.8g}\n"
                for e in r.history
            )
            self.run.folder.append_text(path, head + rows)
        if work.member is not None and work.visit % 10:
            return  # convergence: log every tenth epoch only
        mae, energy = (np.mean([getattr(r, n) for r in results]) for n in ("force_mae", "energy_mae"))
        who = "training" if work.member is None else results[0].name
        log.info(
            "%s visit %d · validation: force MAE %.1f meV/Å · energy %.2f meV/atom",
            who, work.visit + 1, 1000 * mae, 1000 * energy,
        )  # fmt: skip

    # ------------------------------------------------------------ snapshots

    def frame(self, frame_id: str) -> Frame:
        """A candidate of this stage, or a frame of the dataset."""
        return self.candidate(frame_id).frame

    def candidate(self, frame_id: str) -> Candidate:
        """A candidate of this stage, or one made from a frame of the dataset. Raises RestartError without either."""
        if frame_id in self.candidates:
            return self.candidates[frame_id]
        if frame_id in self.run.dataset:
            return Candidate(self.run.dataset.frames[frame_id].frame)
        raise RestartError(f"frame {frame_id} is neither in the restart nor in the dataset")

    def add_candidate(self, candidate: Candidate) -> str:
        """Store a candidate until its label is in the dataset; returns its id."""
        self.candidates[candidate.frame.id] = candidate
        return candidate.frame.id

    def needed(self, state: Any) -> set[str]:
        """Ids of the frames that a restart from this state needs and that are not in the dataset."""
        wanted = self.stage.outstanding(state, self.rules)
        return {w.frame for w in wanted if isinstance(w, RequestLabel)}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Further small arrays of the snapshot, by name."""
        return {}

    def weights(self) -> Mapping[str, NDArray[Any]]:
        """The large arrays of a snapshot: model weights."""
        return self.run.ensemble.arrays()

    def commit(self, state: Any) -> None:
        """Write a snapshot, unless MISC.create_restart is False."""
        needed = self.needed(state)
        self.candidates = {i: c for i, c in self.candidates.items() if i in needed}
        if not self.run.settings.misc.create_restart:
            return
        self.run.dataset.sync()
        arrays = self.arrays() | candidate_arrays(self.candidates)
        origins = {i: c.origin for i, c in self.candidates.items()}
        remarks = {"entries": len(self.run.dataset.entries), "origins": origins}
        self.checkpoint.write(state, arrays, self.run.ensemble.version, self.weights, remarks)

    def restore(self, kind: type[Any]) -> Any | None:
        """Load the newest snapshot and return its state, or None for a fresh start.

        For an unfinished stage, dataset entries added after the snapshot are removed; after a finished stage they stay.
        Raises RestartError if entries that the snapshot knows are missing.
        """
        snapshot = self.checkpoint.read()
        self.fresh = snapshot is None
        if snapshot is None:
            return None
        self.entries = int(snapshot.remarks["entries"])
        state = from_plain(kind, snapshot.state)
        if self.stage.outstanding(state, self.rules):
            self.run.dataset.keep_first(self.entries)
        else:
            self.run.dataset.require(self.entries)
        self.run.ensemble.restore(snapshot.weights)
        self.run.ensemble.version = snapshot.version
        grouped = group_arrays(snapshot.arrays)
        self.candidates = candidates_from_arrays(grouped, snapshot.remarks["origins"])
        self.take_arrays(snapshot, grouped)
        return state

    def take_arrays(self, snapshot: Snapshot, grouped: Mapping[str, Any]) -> None:
        """The inverse of `arrays`."""

    def show(self, state: Any, doing: str) -> None:
        self.run.display.show(self.stage.NAME, state, self.rules, doing, self.run.labeller, self.seen)
        self.run.reporter.due()


def group_arrays(arrays: Mapping[str, NDArray[Any]]) -> dict[str, dict[str, dict[str, NDArray[Any]]]]:
    """{"frame/7f3a/cell": x} → {"frame": {"7f3a": {"cell": x}}}; shorter names are skipped."""
    result: dict[str, dict[str, dict[str, NDArray[Any]]]] = {}
    for name, values in arrays.items():
        if name.count("/") < 2:
            continue
        kind, key, rest = name.split("/", 2)
        result.setdefault(kind, {}).setdefault(key, {})[rest] = values
    return result
