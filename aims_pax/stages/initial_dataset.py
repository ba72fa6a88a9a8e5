"""Initial dataset: structures from a foundation model (or another sampler), labels from the reference, first models."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aims_pax.core import initial_dataset as stage
from aims_pax.core.rules import InitialRules
from aims_pax.core.work import Event, RequestLabel, RunSampler, RunTraining, Sampled, Work
from aims_pax.dataset import write_extxyz
from aims_pax.engine.candidates import Candidate
from aims_pax.engine.run_context import RunContext
from aims_pax.engine.stage_environment import StageEnvironment
from aims_pax.errors import SetupError
from aims_pax.frames import Label as FrameLabel
from aims_pax.labelling.reference_potential import ReferencePotential
from aims_pax.models.kinds import load_named
from aims_pax.parallel.calculator_dynamics import CalculatorDynamics
from aims_pax.record.checkpoint import Snapshot, discard, exists
from aims_pax.settings.bundled_models import BUNDLED
from aims_pax.stages import convergence
from aims_pax.stages.resumable_sampler import ResumableSampler
from aims_pax.systems import System

if TYPE_CHECKING:
    from aims_pax.sampler import Sampler
    from aims_pax.settings.md import MDSettings

log = logging.getLogger(__name__)


def run_initial_dataset(run: RunContext) -> stage.State:
    """Sample, label and train until a limit is reached; continues an unfinished stage from its snapshot."""
    settings = run.settings.initial_dataset
    assert settings is not None
    rules = InitialRules.read(settings, [s.name for s in run.systems])
    with CalculatorDynamics.of_run(run.settings) as dynamics:
        state = _sampled_and_trained(InitialDatasetEnvironment(run, dynamics), rules)
    if settings.converge_initial:
        name, training = "converge-initial", settings.final_training
        if not exists(run.folder.restart / "explore"):
            convergence.discard_other_training(run, name, training)
        members = range(len(run.ensemble.members))
        convergence.run_convergence(run, settings, name, members, own_sets=True, training=training)
    return state


def _sampled_and_trained(environment: InitialDatasetEnvironment, rules: InitialRules) -> stage.State:
    """Sample, label and train until a limit is reached; write the sets."""
    run, settings = environment.run, environment.settings
    environment.rules = rules
    state = environment.restore(stage.State)
    complete = state is not None and bool(state.stopped)
    if state is None:
        run.dataset.begin_again(0)
        discard(run.folder, "converge-initial")  # it converged on the data of an earlier attempt
        state = stage.begin(rules)
    elif not exists(run.folder.restart / "explore"):
        # drop what active learning added, if its snapshots were removed
        run.dataset.begin_again(environment.entries)
        state = stage.reopen(state, rules)
    if state.stopped and complete:
        log.info("the initial dataset is complete (%s)", state.stopped)
    else:
        names = " · ".join(f"{s.name} ({s.frame.formula})" for s in run.systems)
        log.info("initial dataset: %s%s", names, f" · stop: {state.stopped}" if state.stopped else "")
        state = environment.drive(state, rules)
        if not state.epochs:
            raise SetupError(
                f"the initial dataset could not be made: {state.stopped}; the reasons are in "
                f"{run.folder.logs / 'initial_dataset.log'}. Correct this, remove {environment.checkpoint.path}, "
                "run again"
            )
        write_sets(run, "initial")
        if settings.analysis:
            collect_losses(run)
    return state


def superseded(run: RunContext) -> bool:
    """Whether active learning has begun and the snapshots of this stage were removed: they are no longer needed."""
    return exists(run.folder.restart / "explore") and not exists(run.folder.restart / stage.NAME)


def finished(run: RunContext) -> bool:
    """Whether an initial dataset was begun in this folder."""
    return exists(run.folder.restart / stage.NAME)


class InitialDatasetEnvironment(StageEnvironment):
    """Samples structures and trains every member on its own sets. dynamics: processes that move the samplers'
    trajectories."""

    def __init__(self, run: RunContext, dynamics: CalculatorDynamics) -> None:
        super().__init__(run, stage)
        assert run.settings.initial_dataset is not None
        self.settings = run.settings.initial_dataset
        self.last: dict[str, str] = {}
        self.sampler = ResumableSampler(
            lambda: make_sampler(run, run.watch.stop, dynamics), "sample", run.settings.md.MD_seed
        )
        self._visits = 0  # number of sampled visits in the state that is being written
        self._answered = 0

    def turn(self, works: Sequence[Work], stop: Callable[[], bool]) -> Iterable[Event]:
        (work,) = works
        if isinstance(work, RunSampler):
            return [self._sample(work)]
        assert isinstance(work, RunTraining)
        return [self.train(work, stop)]

    def how_to_train(self, work: RunTraining) -> dict[str, Any]:
        return {"valid_skip": self.settings.valid_skip, "schedule": self.settings.scheduler_initial}

    def _sample(self, work: RunSampler) -> Sampled:
        made = []
        labelled = self.run.dataset.union("train", "valid")
        for sample in self.sampler.sample(self._starts(), work.per_system, work.visit, labelled):
            system = str(sample.origin["system"])
            origin = {**sample.origin, "stage": "initial", "visit": work.visit}
            made.append((system, self.add_candidate(Candidate(sample.frame, origin))))
        self.last |= dict(made)
        return Sampled(work, tuple(made))

    def _starts(self) -> list[System]:
        """Starting structures: the last ones, unless SAMPLERS are set, which store their own positions."""
        if self.run.settings.samplers:
            return list(self.run.systems)
        return [
            replace(s, frame=self.frame(self.last[s.name])) if s.name in self.last else s
            for s in self.run.systems
        ]

    def commit(self, state: stage.State) -> None:
        self._visits = state.visit + (state.phase != "sample")
        super().commit(state)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The sampler's state after the batches that belong to this snapshot, without later ones."""
        return self.sampler.arrays(self._visits)

    def take_arrays(self, snapshot: Snapshot, grouped: Mapping[str, Any]) -> None:
        self.sampler.take_arrays(grouped)

    def keep(self, work: RequestLabel, label: FrameLabel) -> str | None:
        present = super().keep(work, label)
        self._answered += 1
        if self._answered % self.settings.progress_dft_update == 0:
            log.info("%d labels of the initial dataset since this start", self._answered)
        return present

    def needed(self, state: stage.State) -> set[str]:
        return {frame for _, frame in (*state.batch, *state.last)}

    def restore(self, kind: type[Any]) -> Any | None:
        state = super().restore(kind)
        if state is not None:
            self.last = dict(state.last)
        return state


def make_sampler(run: RunContext, stop: Callable[[], bool], dynamics: CalculatorDynamics) -> Sampler:
    """The sampler of the settings: those listed in SAMPLERS, or what `initial_sampling` names.

    dynamics: processes that move trajectories with light calculators.
    """
    from aims_pax.potentials.bundled import bundled_potential
    from aims_pax.potentials.named import moves_light, named_calculator
    from aims_pax.samplers.kinds.aimd import AbInitioMDSampler
    from aims_pax.samplers.kinds.md import MDSampler

    settings, asked = run.settings.initial_dataset, run.settings.model
    assert settings is not None

    def md_of(system: System) -> MDSettings:
        return run.settings.md_of(system.name)

    if run.settings.samplers:
        return _mixture(run, md_of, stop, dynamics)
    skip, kind = settings.skip_step_initial, settings.initial_sampling
    if kind == "aimd":
        return AbInitioMDSampler(ReferencePotential(run.labeller), md_of, skip, "aimd", stop)
    if kind == "calculator":
        calculator = settings.initial_calculator
        assert calculator is not None
        where = "INITIAL_DATASET_GENERATION.initial_calculator"
        make = partial(named_calculator, calculator.factory, calculator.kwargs, run.folder.root, where)
        made = make()
        move = partial(dynamics.advance, make, calculator.factory) if moves_light(made) else None
        return MDSampler(made, md_of, skip, calculator.factory, stop, advance=move)
    if kind in BUNDLED:
        return MDSampler(bundled_potential(kind, asked.device, asked.dtype), md_of, skip, kind, stop)
    size = settings.initial_foundational_size
    model = load_named(size, run.folder.root, asked.device, asked.dtype, asked.inference)
    return MDSampler(model, md_of, skip, f"mace-mp0 {size}", stop)


def _mixture(
    run: RunContext,
    md_of: Callable[[System], MDSettings],
    stop: Callable[[], bool],
    dynamics: CalculatorDynamics,
) -> Sampler:
    from aims_pax.potentials.named import Potentials
    from aims_pax.settings.sampler_list import samplers_in_words
    from aims_pax.stages.sampler_factory import mixture

    settings = run.settings
    assert settings.initial_dataset is not None
    log.info("structures from %s", samplers_in_words(settings.samplers))
    temperature = settings.md.temperature
    return mixture(
        settings.samplers,
        md_of,
        temperature[0] if isinstance(temperature, tuple) else temperature,
        settings.initial_dataset.skip_step_initial,
        Potentials(run.folder.root, settings.model.device),
        stop,
        settings.model.dtype,
        ReferencePotential(run.labeller),
        dynamics=dynamics,
    )


def write_sets(run: RunContext, stage_name: str) -> None:
    """`data/<stage>/{training,validation}/<member>.xyz`: the training and validation set of each member."""
    for m, member in enumerate(run.ensemble.members):
        write_extxyz(run.folder.data / stage_name / "training" / f"{member.name}.xyz", run.dataset.train(m))
        write_extxyz(run.folder.data / stage_name / "validation" / f"{member.name}.xyz", run.dataset.valid(m))
    if run.dataset.test:
        write_extxyz(run.folder.data / stage_name / "test" / "test.xyz", run.dataset.test)


def collect_losses(run: RunContext) -> None:
    """`analysis/initial_losses.npz`: epoch (E,), avg_losses (E,), ensemble_losses (M, E) on the validation sets."""
    columns: list[dict[int, float]] = []
    for member in run.ensemble.members:
        with open(run.folder.losses / f"{member.name}.csv", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["stage"] == stage.NAME]
        columns.append({int(row["epoch"]): float(row["valid_loss"]) for row in rows})
    epochs = sorted(set.intersection(*(set(c) for c in columns)))
    losses = np.array([[c[e] for e in epochs] for c in columns])
    buffer = io.BytesIO()
    np.savez(buffer, epoch=np.array(epochs), avg_losses=losses.mean(axis=0), ensemble_losses=losses)
    run.folder.write_bytes(run.folder.analysis / "initial_losses.npz", buffer.getvalue())
