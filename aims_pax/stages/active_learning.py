"""Active learning: the ensemble drives many trajectories; frames with a large uncertainty are labelled."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aims_pax import seeds
from aims_pax.core import active_learning as stage
from aims_pax.core.replay import Replay
from aims_pax.core.rules import ActiveLearningRules
from aims_pax.core.uncertainty import atomic_spread, uncertainty
from aims_pax.core.work import (
    AddToDataset,
    Advanced,
    Effect,
    Event,
    FrameError,
    MeasuredError,
    RecordError,
    RequestLabel,
    Rewind,
    RunMD,
    RunTraining,
    Selected,
    SelectFrames,
    Work,
)
from aims_pax.engine.candidates import Candidate
from aims_pax.engine.run_context import RunContext
from aims_pax.engine.stage_environment import StageEnvironment
from aims_pax.errors import RestartError
from aims_pax.frames import Array, Frame, LabelledFrame
from aims_pax.labelled_data import structure_text
from aims_pax.md.bias import biases
from aims_pax.md.propagate import MDOutcome as Moved
from aims_pax.md.propagate import advance
from aims_pax.md.state import MDState
from aims_pax.md.temperature import hottest, temperature_at
from aims_pax.models.base import MemberData
from aims_pax.parallel.dynamics import MDPool, md_pool
from aims_pax.record.checkpoint import Snapshot, discard, to_plain
from aims_pax.report.live_view import LastCheck
from aims_pax.settings.active_learning import ActiveLearningSettings
from aims_pax.stages.analysis_files import collect_analysis, write_analysis
from aims_pax.stages.frame_selection import KNOWN, FrameSelection
from aims_pax.stages.initial_dataset import write_sets
from aims_pax.stages.start_structures import EnergyRanges, start_structures
from aims_pax.stages.trajectory_geometries import (
    MORE_ALLOWED,
    begun_trajectories,
    fair_or_all,
    geometries_of_trajectories,
)
from aims_pax.stages.trajectory_recorder import TrajectoryRecorder
from aims_pax.systems import System, elements, system_of

log = logging.getLogger(__name__)

# validation structures on which the committee is evaluated after each training: of all systems, at least of each
MEASURED, FEWEST_MEASURED = 24, 4


def run_active_learning_stage(run: RunContext) -> stage.State:
    """Run active learning until a limit is reached; continues an unfinished stage from its snapshot."""
    settings = run.settings.active_learning
    assert settings is not None
    n = max(settings.num_trajectories, len(run.systems))
    if n > settings.num_trajectories:
        log.warning(
            "num_trajectories %d is smaller than the number of geometries: running %d trajectories",
            settings.num_trajectories,
            n,
        )
    dealt = geometries_of_trajectories(begun_trajectories(run.folder), n, run.systems)
    timestep = min(run.settings.md_of(s.name).timestep for s in dealt)
    environment = ActiveLearningEnvironment(run, dealt)
    thermal = all(start is not s.frame for start, s in zip(environment.starts, dealt, strict=True))
    rules = ActiveLearningRules.read(settings, n, run.settings.model.seed, timestep, thermal)
    if run.ensemble.fits_at_once:
        rules = rules.for_fits_at_once()
    rules = replace(rules, fair_trajectories=environment.fair_trajectories())
    environment.rules = rules
    state = environment.restore(stage.State)
    if state is not None:
        state = _reopened(run, state, tuple(s.name for s in dealt), rules)
        if state.stopped and not stage.outstanding(state, rules):
            log.info("active learning is complete (%s)", state.stopped)
            return state
    else:
        environment.set_aside()
        state = stage.begin(tuple(s.name for s in dealt), rules, *_sizes(run))
    if state.stopped:
        log.info("no active learning (%s)", state.stopped)
    else:
        _say_begin(environment, state, settings)
    with md_pool(run.settings, run.ensemble, 0 if state.stopped else n) as environment.movers:
        final: stage.State = environment.drive(state, rules)
    write_sets(run, "final")
    if settings.analysis:
        collect_analysis(run.folder.analysis)
    return final


def _say_begin(
    environment: ActiveLearningEnvironment, state: stage.State, settings: ActiveLearningSettings
) -> None:
    names = dict.fromkeys(t.system for t in state.trajectories)
    log.info(
        "active learning: %d trajectories of %s · %d training points",
        len(state.trajectories), ", ".join(names), state.n_train,
    )  # fmt: skip
    if any(environment.run.settings.md_of(name).temperatures for name in names):
        log.info(
            "temperatures of the trajectories: %s K",
            ", ".join(f"{md.temperature:g}" for md in environment.md),
        )
    if state.closing:
        log.info(
            "%s: the trajectories move until all test frames (n_test: %d) are drawn",
            state.closing,
            settings.n_test,
        )
    if settings.bias is not None:
        log.info("the MD is biased towards structures about which the members disagree: %s", settings.bias)


def _reopened(
    run: RunContext, state: stage.State, systems: tuple[str, ...], rules: ActiveLearningRules
) -> stage.State:
    """The restored state with the present settings; a finished run continues if its limits were raised."""
    try:
        again = stage.reopen(state, systems, rules)
    except ValueError as error:
        raise RestartError(f"{error} since this run began. {MORE_ALLOWED}") from error
    if state.stopped and not again.stopped:
        log.info("active learning was complete (%s); with the present settings it continues", state.stopped)
        discard(run.folder, "converge")  # it converged on less data
    return again


def _sizes(run: RunContext) -> tuple[int, dict[str, int]]:
    """Size of the largest training set, and the number of validation frames for each system."""
    members = range(len(run.ensemble.members))
    n_train = max(len(run.dataset.train(m)) for m in members)
    valid: dict[str, int] = {}
    for labelled in run.dataset.union("valid"):
        name = system_of(labelled.frame, labelled.origin, run.systems)
        valid[name] = valid.get(name, 0) + 1
    return n_train, valid


class ActiveLearningEnvironment(StageEnvironment):
    """Moves all trajectories in one batch and trains all members."""

    def __init__(self, run: RunContext, dealt: tuple[System, ...]) -> None:
        super().__init__(run, stage)
        self.dealt = dealt
        names = [s.name for s in dealt]
        self.md = [run.settings.md_of(n).of_trajectory(names[:i].count(n)) for i, n in enumerate(names)]
        self.length = run.settings.active_learning.max_MD_steps  # type: ignore[union-attr]
        settings = run.settings.active_learning
        assert settings is not None
        self.starts = (
            start_structures(run.dataset, run.systems, dealt, [md.stat_ensemble == "NPT" for md in self.md])
            if settings.start_structures == "sampled"
            else [s.frame for s in dealt]
        )
        self.states = [self._started(i, 0, frame) for i, frame in enumerate(self.starts)]
        self.ranges = EnergyRanges(run.dataset, run.systems, settings.energy_limit)
        self.selection = FrameSelection(
            elements(s.frame for s in run.systems), settings.selection, run.settings.model.seed
        )
        self.bias = biases(settings.bias, names)
        self.kind = settings.uncertainty_type
        self.system_names: dict[str, str] = {}  # validation frame → its system
        whole = settings.replay_strategy == "full_dataset" or run.ensemble.fits_at_once
        if settings.replay_strategy != "full_dataset" and whole:
            log.warning(
                "replay_strategy %s has no effect: these models are always fitted to the whole dataset at once",
                settings.replay_strategy,
            )
        sizes = settings.train_subset_size, settings.valid_subset_size
        self.replay = None if whole else Replay(*sizes, fresh=new_points(settings, len(dealt)))
        self.movers: MDPool | None = None
        self.observer = TrajectoryRecorder(run.folder, len(dealt))
        self.written = [
            _last_step(run.folder.trajectories / f"{self._tag(i)}.xyz") for i in range(len(dealt))
        ]

    def fair_trajectories(self) -> tuple[int, ...]:
        """The trajectories whose frames are fair samples: without bias, at MD.temperature of their geometry.

        All trajectories of a geometry that has no such one: otherwise its error would never be measured.
        """
        targets = [self.run.settings.md_of(s.name).temperature for s in self.dealt]
        biased = self.bias or [None] * len(self.dealt)
        fair = [md.temperature == targets[i] and biased[i] is None for i, md in enumerate(self.md)]
        return fair_or_all([s.name for s in self.dealt], fair)

    def set_aside(self) -> None:
        """Rename the trajectory files of an earlier attempt: this one begins at step 0."""
        folder = self.run.folder.trajectories
        for path in (*self.observer.paths, *(folder / f"{self._tag(i)}.xyz" for i in range(len(self.dealt)))):
            if path.exists():
                path.replace(path.with_name(f"{path.stem}.earlier{path.suffix}"))
        self.observer = TrajectoryRecorder(self.run.folder, len(self.dealt))
        self.written = [0] * len(self.dealt)

    def summary(self, state: stage.State) -> dict[str, Any]:
        """The final state without the history of the thresholds."""
        return {k: v for k, v in to_plain(state).items() if k != "thresholds"}

    def turn(self, works: Sequence[Work], stop: Callable[[], bool]) -> Iterable[Event]:
        if isinstance(works[0], RunTraining):
            return [self.train(works[0], stop)]
        if isinstance(works[0], SelectFrames):
            return [self._select(works[0])]
        return self._move([w for w in works if isinstance(w, RunMD)], stop)

    def how_to_train(self, work: RunTraining) -> dict[str, Any]:
        al = self.run.settings.active_learning
        assert al is not None
        return {"valid_skip": al.valid_skip, "margin": al.margin, "patience": al.epochs_per_worker}

    def visit_data(self, member: int, work: RunTraining) -> MemberData:
        """The newest points and, with `random_subset`, a random part of the others, different for each member."""
        if self.replay is None:
            return super().visit_data(member, work)
        dataset, seed = self.run.dataset, self.run.ensemble.members[member].seed
        train = self.replay.training(dataset.ids("train", member), (seed, work.visit))
        valid = self.replay.validation(dataset.ids("valid", member))
        return MemberData(dataset.chosen("train", member, train), dataset.chosen("valid", member, valid))

    def measured(self) -> tuple[FrameError, ...]:
        """The committee now, on the newest validation structures of each system, which no member learns."""
        newest = self._newest_validation()
        if not newest or not self.has_uncertainty:
            return ()
        found = zip(newest, self.run.ensemble.spreads_and_errors(newest), strict=True)
        said = [(one, self._measured(spread, error)) for one, (spread, error) in found]
        return tuple(
            FrameError(one.id, self.system_names[one.id], m.spread, m.largest)
            for one, m in said
            if all(math.isfinite(v) and v > 0 for v in (m.spread, m.largest))
        )

    def _newest_validation(self) -> list[LabelledFrame]:
        dataset, systems = self.run.dataset, self.run.systems
        learnt = {e.frame for e in dataset.entries if e.split == "train"}  # by any member
        most, counts, newest = max(FEWEST_MEASURED, MEASURED // len(systems)), Counter[str](), []
        for one in reversed(dataset.union("valid")):
            if one.id not in self.system_names:
                self.system_names[one.id] = system_of(one.frame, one.origin, systems)
            name = self.system_names[one.id]
            if one.id not in learnt and counts[name] < most:
                counts[name] += 1
                newest.append(one)
        return newest[::-1]

    @property
    def has_uncertainty(self) -> bool:
        """Whether the models tell how uncertain they are: several members, or one that predicts it."""
        return len(self.run.ensemble) > 1 or self.run.ensemble.has_spread

    def _measured(self, spread: Array, error: Array) -> MeasuredError:
        """spread: (N,), error: (N, 3), absolute, eV/Å."""
        one = spread.mean() if self.kind == "mean_atomic_sd" else spread.max()
        return MeasuredError(float(one), float(error.max()), float(error.mean()))

    def _select(self, work: SelectFrames) -> Selected:
        dataset = self.run.dataset
        labelled = dict.fromkeys(e.frame for e in dataset.entries if e.split != "test")
        frames = self.selection.choose(work, [*labelled][-KNOWN:], self.frame)
        return Selected(work, frames)

    def needed(self, state: stage.State) -> set[str]:
        """Also the candidates of the window, whose frames the selection needs."""
        return super().needed(state) | {c.frame for c in state.window.candidates}

    # ------------------------------------------------------------ molecular dynamics

    def _move(self, works: list[RunMD], stop: Callable[[], bool]) -> list[Event]:
        """Move all trajectories in common batches, each until its next stop."""
        now = {w.trajectory: self.states[w.trajectory] for w in works}
        results: dict[int, Moved] = {}
        left = {w.trajectory: w.end - w.start for w in works}
        while left:
            n = min(left.values())
            batch = list(left)
            moved = self._advance(
                [now[i] for i in batch], n_steps=n, md=[self.md[i] for i in batch],
                stop=stop, length=self.length, driving_members=self._drivers(batch),
                bias=None if self.bias is None else [self.bias[i] for i in batch],
            )  # fmt: skip
            for i, m in zip(batch, moved, strict=True):
                results[i], now[i] = m, m.state
                left[i] -= n
                if left[i] == 0 or m.fault is not None:
                    del left[i]
        return [self._arrived(w, results[w.trajectory]) for w in works]

    @property
    def _advance(self) -> Callable[..., list[Moved]]:
        """`md.advance` with the ensemble's potential, in this process or split among several."""
        if self.movers is not None:
            return self.movers.advance
        return partial(advance, potential=self.run.ensemble.potential())

    def _drivers(self, trajectories: list[int]) -> list[int] | None:
        """The member whose forces move each trajectory; None: the mean of all members."""
        al = self.run.settings.active_learning
        assert al is not None
        if al.md_force == "mean":
            return None
        return [i % len(self.run.ensemble) for i in trajectories]

    def _arrived(self, work: RunMD, moved: Moved) -> Advanced:
        i = work.trajectory
        self.states[i] = moved.state
        step = moved.state.step
        if moved.fault is not None:
            return Advanced(work, step, "", (), moved.fault)
        frame = moved.state.frame()
        origin = {"system": self.dealt[i].name, "stage": "active learning", "trajectory": i, "step": step}
        frame_id = self.add_candidate(Candidate(frame, origin, self._prediction(moved)))
        self.observer.record(i, moved, frame)
        self._save(i, step, frame_id)
        spread = uncertainty(moved.evaluation.forces, self.kind, moved.evaluation.spread)
        self.seen[i] = LastCheck(moved.state.temperature, max(spread))
        energy, temperature = float(np.mean(moved.evaluation.energies)), hottest(self.md[i])
        implausible = self.ranges.implausible(self.dealt[i], frame, energy, temperature)
        return Advanced(work, step, frame_id, spread, implausible=implausible)

    def _started(self, i: int, life: int, frame: Frame, step: int = 0) -> MDState:
        """New momenta; every trajectory, and every restart of it (`life`), has its own noise stream."""
        stream = seeds.seed_number("trajectory", self.md[i].MD_seed, i, life)
        temperature = temperature_at(self.md[i], step, self.length)
        return MDState.start(frame, temperature, stream, step)

    def _save(self, i: int, step: int, frame_id: str) -> None:
        """Append to the trajectory file, one structure every MISC.save_trajectories steps."""
        every = self.run.settings.misc.save_trajectories
        if not every or step // every <= self.written[i] // every:
            return
        candidate = self.candidates[frame_id]
        atoms, prediction = candidate.frame.to_atoms(), candidate.prediction
        assert prediction is not None
        atoms.info.update(candidate.origin, uncertainty=float(prediction["atomic_sd"].max()))
        atoms.arrays["forces"] = prediction["predicted_forces"].mean(axis=0)
        path = self.run.folder.trajectories / f"{self._tag(i)}.xyz"
        self.run.folder.append_text(path, structure_text(atoms))
        self.written[i] = step

    def _tag(self, i: int) -> str:
        return f"trajectory_{i:03d}_{self.dealt[i].name}"

    # ------------------------------------------------------------ effects

    def apply(self, effect: Effect) -> None:
        match effect:
            case Rewind(i, frame_id, life):
                start = self.starts[i] if frame_id is None else self.frame(frame_id)
                self.states[i] = self._started(i, life, start, self.states[i].step)
            case RecordError():
                self._analyse(effect)
            case _:
                if isinstance(effect, AddToDataset):
                    self._compare(effect.frame)
                super().apply(effect)
                if isinstance(effect, AddToDataset) and effect.split == "test":
                    log.info(
                        "%s added to the test set (%d so far)", effect.frame[:6], len(self.run.dataset.test)
                    )

    # ------------------------------------------------------------ analysis

    def _prediction(self, moved: Moved) -> dict[str, NDArray[Any]]:
        forces, own = moved.evaluation.forces, moved.evaluation.spread
        return {
            "predicted_energies": moved.evaluation.energies,
            "predicted_forces": forces,
            "atomic_sd": atomic_spread(forces, own),
        }

    def error_of(self, work: RequestLabel) -> MeasuredError | None:
        """The error of the committee's mean for a frame that was predicted when it was requested."""
        candidate = self.candidate(work.frame)
        p, label = candidate.prediction, candidate.label
        if p is None or label is None:
            return None
        return self._measured(p["atomic_sd"], np.abs(p["predicted_forces"].mean(axis=0) - label.forces))

    def _compare(self, frame_id: str) -> None:
        """Record the members' error for a frame that they selected for labelling; analysis frames have other files."""
        candidate, skip = self.candidate(frame_id), self.rules.analysis_skip
        p, origin = candidate.prediction, candidate.origin
        if p is None or (skip and origin["step"] % skip == 0):
            return
        assert candidate.label is not None
        self.observer.record_error(
            frame_id, origin["trajectory"], origin["step"], len(self.run.dataset.ids("train", 0)),
            float(p["atomic_sd"].max()), p["predicted_forces"].mean(axis=0), candidate.label,
        )  # fmt: skip

    def _analyse(self, found: RecordError) -> None:
        candidate = self.candidates[found.frame]
        self.candidates[found.frame] = candidate.without_prediction()  # compared once
        assert candidate.prediction is not None
        assert candidate.label is not None
        write_analysis(self.run.folder, found, candidate.prediction, candidate.label)

    # ------------------------------------------------------------ snapshots

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {f"md/{i}/{k}": v for i, s in enumerate(self.states) for k, v in s.arrays().items()}

    def take_arrays(self, snapshot: Snapshot, grouped: Mapping[str, Any]) -> None:
        stored = grouped.get("md", {})
        for i in range(min(len(stored), len(self.states))):
            self.states[i] = MDState.from_arrays(stored[str(i)])


def new_points(settings: ActiveLearningSettings, trajectories: int) -> int:
    """The largest number of training points that wait for the same visit: one per trajectory, or those of a window."""
    per_window = settings.labels_per_window if settings.acquisition == "window" else None
    return max(trajectories, per_window or 0)


def _last_step(path: Path) -> int:
    """The last MD step in the complete lines of a trajectory file; 0 when there is none."""
    last = "0"
    if path.exists():
        with path.open(encoding="utf-8", errors="replace") as file:  # a crash may have left half a character
            for line in file:
                if "step=" in line and line.endswith("\n"):
                    steps = [w.removeprefix("step=") for w in line.split() if w.startswith("step=")]
                    last = next((step for step in steps if step.isdecimal()), last)
    return int(last)
