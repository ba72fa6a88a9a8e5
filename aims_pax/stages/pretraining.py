"""Pre-training: the members learn from a cheap potential before the first label of the reference.

Structures and their free labels are in `data/pretraining/`, never among the labels of the reference. The members that
learn from them have a learning rate of their own; the run's members take over their weights, and fit the zero of energy
again to the first labels of the reference.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ase.data import chemical_symbols
from numpy.typing import NDArray

from aims_pax.core import pretraining as stage
from aims_pax.core.rules import LOSS, PretrainingRules
from aims_pax.core.work import Event, RunSampler, Sampled, Work
from aims_pax.dataset import Dataset
from aims_pax.engine.candidates import Candidate
from aims_pax.engine.run_context import RunContext
from aims_pax.engine.stage_environment import StageEnvironment
from aims_pax.errors import LabelError, SettingsError, SetupError
from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.label_limits import check_label
from aims_pax.models.kinds import kind_of_run
from aims_pax.parallel.calculator_dynamics import CalculatorDynamics
from aims_pax.parallel.training import background_training
from aims_pax.potentials.named import LoadedPotential, Potentials, UserPotential, canonical_spec
from aims_pax.record.checkpoint import Snapshot, exists
from aims_pax.sampler import Sample
from aims_pax.stages import convergence
from aims_pax.stages.beginning import PRETRAINED
from aims_pax.stages.resumable_sampler import ResumableSampler
from aims_pax.stages.sampler_factory import mixture

if TYPE_CHECKING:
    from aims_pax.potential import Potential
    from aims_pax.sampler import Sampler
    from aims_pax.settings import Settings
    from aims_pax.settings.pretraining import PretrainingSettings
    from aims_pax.systems import System

log = logging.getLogger(__name__)

FOLDER = "pretraining"  # in the folder of the datasets
BATCHES = 20  # snapshots while structures are made
POTENTIAL = "PRETRAINING.potential"
LATER = ("initial", "train-given", "explore")  # stages that begin with the pre-trained members


@dataclass(frozen=True)
class PretrainingLimits:
    """The limits of `PretrainingSettings` under the names of convergence."""

    convergence_patience: int
    max_convergence_epochs: int
    margin: float = 0.0
    convergence_criterion: str = LOSS


def run_pretraining(run: RunContext) -> None:
    """Pre-train the members of the run; continues an unfinished pre-training from its snapshots."""
    asked = run.settings.pretraining
    if asked is None or any(exists(run.folder.restart / name) for name in LATER):
        return
    settings = own_settings(run.settings, run.ensemble.elements)
    seeds = [member.seed for member in run.ensemble.members]
    kind = kind_of_run(settings)
    ensemble = kind.build(settings, seeds, run.ensemble.elements)
    atoms = sum(len(s.frame) for s in run.systems) / len(run.systems)
    with (
        kind.compiling(ensemble, settings, atoms, run.watch),
        background_training(settings, ensemble) as trainer,
    ):
        own = replace(
            run,
            settings=settings,
            ensemble=ensemble,
            background_training=trainer,
            augmentation=None,
            dataset=Dataset(run.folder.data / FOLDER),
        )
        sample_and_label(own, asked)
        limits = PretrainingLimits(asked.patience, asked.max_epochs)
        members = range(len(ensemble.members))
        convergence.run_convergence(
            own, limits, PRETRAINED, members, title="pre-training", key="PRETRAINING.max_epochs"
        )
    run.ensemble.begin_from(ensemble)
    if not run.settings.misc.create_restart:  # no snapshot has them
        run.pretrained.update(ensemble.arrays())
    log.info("the members begin from pre-training; the zero of energy is fitted to the first labels")


def own_settings(settings: Settings, elements: Sequence[int]) -> Settings:
    """The settings of a run for pre-training: its learning rate, and the zero of energy of the cheap potential.

    If the user gave energies of isolated atoms, those of the cheap potential are used, so that energies of atomisation
    are learnt, which the two have nearly in common; otherwise, and if it cannot compute atoms, least squares.
    """
    asked = settings.pretraining
    assert asked is not None
    changed = settings.with_training(lr=asked.lr)
    if settings.model.atomic_energies is None:
        return changed
    potential = LoadedPotential.load(canonical_spec(asked.potential), settings.folder, POTENTIAL)
    try:
        energies = {chemical_symbols[z]: potential.atomic_energy(z) for z in elements}
    except SettingsError as error:
        log.warning(
            "pre-training: %s cannot compute isolated atoms (%s); its zero of energy is fitted instead",
            potential.described, error,
        )  # fmt: skip
        return changed.with_atomic_energies(None)
    return changed.with_atomic_energies(energies)


def sample_and_label(run: RunContext, asked: PretrainingSettings) -> stage.State:
    """Make the structures and label them with the cheap potential."""
    systems = tuple(s.name for s in run.systems)
    batch = max(1, asked.n_frames // (BATCHES * len(systems)))
    rules = PretrainingRules(systems, asked.n_frames, batch, asked.valid_ratio)
    with CalculatorDynamics.of_run(run.settings) as dynamics:
        environment = PretrainingEnvironment(run, asked, dynamics)
        environment.rules = rules
        state = environment.restore(stage.State)
        if state is None:
            run.dataset.begin_again(0)
            state = stage.begin(rules)
        state = stage.reopen(state, rules)
        if not state.stopped:
            log.info("pre-training: %d structures with free labels from %s", asked.n_frames, asked.in_words)
        done: stage.State = environment.drive(state, rules)
    if not (run.dataset.union("train") and run.dataset.union("valid")):
        raise SetupError(
            f"PRETRAINING: {done.stopped}; choose another potential, or lower PRETRAINING.temperature "
            "(the reasons are in the log)"
        )
    return done


class PretrainingEnvironment(StageEnvironment):
    """Samples structures and labels them with the cheap potential. dynamics: processes that move its trajectories."""

    def __init__(self, run: RunContext, asked: PretrainingSettings, dynamics: CalculatorDynamics) -> None:
        super().__init__(run, stage)
        self.asked, self.dynamics = asked, dynamics
        self.potentials = Potentials(run.folder.root, run.settings.model.device)
        seed = run.settings.md.MD_seed if asked.seed is None else asked.seed
        self.sampler = ResumableSampler(self._make, "pretraining", seed)
        self._visits = 0  # batches in the state that is being written

    def turn(self, works: Sequence[Work], stop: Callable[[], bool]) -> Iterable[Event]:
        (work,) = works
        assert isinstance(work, RunSampler)
        samples = self.sampler.sample(self.run.systems, work.per_system, work.visit)
        made = []
        for one, label in zip(samples, self._labels(samples), strict=True):
            if label is not None:
                origin = {**one.origin, "stage": "pre-training", "visit": work.visit}
                frame = self.add_candidate(Candidate(one.frame, origin, label=label))
                made.append((str(one.origin["system"]), frame))
        return [Sampled(work, tuple(made))]

    def labelled(self, frame: str) -> LabelledFrame:
        candidate = self.candidate(frame)
        assert candidate.label is not None
        origin = {**candidate.origin, "source": "pre-training", "method": self.asked.in_words}
        return LabelledFrame(candidate.frame, candidate.label, origin)

    def _labels(self, samples: Sequence[Sample]) -> list[Label | None]:
        """The label of each structure; None, with a line in the log, where the potential fails."""
        spelling, dtype = self.asked.potential, self.run.settings.model.dtype
        potential = self.potentials.of(spelling, POTENTIAL, dtype)
        if not isinstance(canonical_spec(spelling), str):
            potential = UserPotential(potential, POTENTIAL)
        frames = [one.frame for one in samples]
        found = labels_of(potential, frames)
        self.run.ensemble.check_frames(
            [f for f, label in zip(frames, found, strict=True) if label is not None]
        )
        return [
            label if label is not None and self._learnable(f) else None
            for f, label in zip(frames, found, strict=True)
        ]

    def _learnable(self, frame: Frame) -> bool:
        """False, with a line in the log, for a structure on which REFERENCE.baseline fails."""
        try:
            self.run.ensemble.check_frame(frame)
        except LabelError as error:
            log.warning("pre-training: %s · %s: %s", frame.id[:6], type(error).__name__, error)
            return False
        return True

    def _make(self) -> Sampler:
        settings = self.run.settings

        def md_of(system: System) -> Any:
            return settings.md_of(system.name)

        temperature = settings.md.temperature
        return mixture(
            self.asked.sources_of(len(self.run.systems)),
            md_of,
            temperature[0] if isinstance(temperature, tuple) else temperature,
            self.asked.skip_step,
            self.potentials,
            self.run.watch.stop,
            settings.model.dtype,
            place="PRETRAINING.samplers",
            dynamics=self.dynamics,
        )

    def commit(self, state: stage.State) -> None:
        self._visits = state.visit
        super().commit(state)

    def arrays(self) -> dict[str, NDArray[Any]]:
        return self.sampler.arrays(self._visits)

    def take_arrays(self, snapshot: Snapshot, grouped: Mapping[str, Any]) -> None:
        self.sampler.take_arrays(grouped)


def labels_of(potential: Potential, frames: Sequence[Frame]) -> list[Label | None]:
    """The label of each frame; None, with a line in the log, where the potential fails or the label is impossible."""
    from ase.calculators.calculator import CalculationFailed

    try:
        found: list[Label | None] = [*potential.labels(frames)]
    except (LabelError, CalculationFailed) as error:
        if len(frames) > 1:  # one by one, to find the frame that fails
            return [label for frame in frames for label in labels_of(potential, [frame])]
        log.warning("pre-training: %s · %s: %s", frames[0].id[:6], type(error).__name__, error)
        return [None]
    for k, (frame, label) in enumerate(zip(frames, found, strict=True)):
        try:
            assert label is not None
            check_label(frame, label)
        except LabelError as error:
            log.warning("pre-training: %s · %s: %s", frame.id[:6], type(error).__name__, error)
            found[k] = None
    return found
