"""The settings that the stages need, as frozen values."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from aims_pax import seeds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aims_pax.settings.active_learning import ActiveLearningSettings
    from aims_pax.settings.initial_dataset import InitialDatasetSettings

INF = float("inf")
MAX_FAULTS = 5  # exploded frames in a row after which a trajectory ends
MAX_FAILURES = 5  # failed labels in a row after which a trajectory ends
BELIEVED = 10  # validation frames below which `desired_acc` does not stop a stage
BELIEVED_PER_SYSTEM = 2
WINDOW_CHECKS, WINDOW_TIME = 10, 500.0  # a window has as many uncertainty checks, and as many fs, at least
SAMPLED, FROM_GEOMETRY = 200.0, 1000.0  # fs: equilibration of thermal structures, and of a relaxed one
LOSS, FORCE_MAE = "loss", "force_mae"  # `convergence_criterion` of the settings
CONTINUED, FRESH, SHRINK_PERTURB = "continued", "fresh", "shrink_perturb"  # `final_training` of the settings


@dataclass(frozen=True)
class InitialRules:
    """Numbers of the initial dataset."""

    members: int
    systems: tuple[str, ...]
    n_points: int  # per sampling step, training set and system
    epochs_per_visit: int
    valid_ratio: float
    desired_acc: float = 0.0  # eV/Å, already scaled; 0: none
    max_epochs: float = INF
    max_train: float = INF  # different frames in the training sets of all members together
    shared: bool = False  # one training set for all members instead of one for each

    @property
    def sets(self) -> int:
        """The number of different training sets."""
        return 1 if self.shared else self.members

    @classmethod
    def read(cls, s: InitialDatasetSettings, systems: Sequence[str]) -> InitialRules:
        return cls(
            members=s.ensemble_size,
            systems=tuple(systems),
            n_points=s.n_points_per_sampling_step_idg,
            epochs_per_visit=s.intermediate_epochs_idg,
            valid_ratio=s.valid_ratio,
            desired_acc=s.desired_acc * s.desired_acc_scale_idg,
            max_epochs=s.max_initial_epochs,
            max_train=s.max_initial_set_size,
            shared=not s.distinct_model_sets,
        )


@dataclass(frozen=True)
class PretrainingRules:
    """Numbers of pre-training. batch: structures of each system between two snapshots."""

    systems: tuple[str, ...]
    n_frames: int
    batch: int
    valid_ratio: float


@dataclass(frozen=True)
class ActiveLearningRules:
    """Numbers of active learning. Steps are MD steps."""

    skip_step: int
    c_x: float
    valid_ratio: float
    epochs_per_worker: int
    epochs_per_visit: int
    max_steps: float = INF
    max_train: float = INF
    max_labels: float = INF
    desired_acc: float = 0.0
    freeze_at: float = INF
    quiet_limit: float = INF
    per_atom: bool = False  # ensemble_sd: any atom above the threshold counts
    per_system: bool = False  # one threshold per system instead of one for all
    n_test: int = 0
    test_due: tuple[float, ...] = ()  # progress (0..1) or number of checks at which the k-th test is due
    test_trajectory: tuple[int, ...] = ()
    fair_trajectories: tuple[int, ...] = ()  # without bias and at MD.temperature; (): all
    analysis_skip: int = 0  # 0: no analysis
    acquisition: str = "crossing"  # or "window"
    window: int = 0  # MD steps of a window
    per_window: int = 1  # labels of a window
    exploded: float = INF  # times the threshold at which the spread means that the models know nothing
    warm_up_epochs: int = 0  # at most, before exploration begins
    calibrated: bool = False  # threshold: the spread whose error bound is target_error
    target_error: float = 0.0  # eV/Å, of the worst force component of a frame; 0: none
    confidence: float = 0.9
    audit_share: float = 0.0  # of all labels
    audit_seed: int = 0
    quiet_wanted: float = INF  # MD steps without a new region before the stop rule ends the stage
    equilibration: int = 0  # MD steps before a frame is a fair test frame, and between two of them

    @property
    def by_windows(self) -> bool:
        """Whether labels are chosen among the candidates of a window."""
        return self.acquisition == "window"

    def for_fits_at_once(self) -> ActiveLearningRules:
        """The same for models of which one visit is a complete fit: one for all labels of a window."""
        whole = self.epochs_per_worker * max(self.per_window, 1)
        return replace(self, epochs_per_visit=whole, warm_up_epochs=0)

    @classmethod
    def read(
        cls,
        s: ActiveLearningSettings,
        trajectories: int,
        seed: int,
        timestep: float = 1.0,
        thermal_starts: bool = True,
    ) -> ActiveLearningRules:
        """timestep: of the MD, fs. thermal_starts: whether all trajectories begin at sampled structures."""
        n_test = s.n_test or 0
        start = SAMPLED if thermal_starts else FROM_GEOMETRY
        return cls(
            skip_step=s.skip_step_mlff,
            c_x=s.c_x,
            valid_ratio=s.valid_ratio,
            epochs_per_worker=s.epochs_per_worker,
            epochs_per_visit=s.intermediate_epochs_al,
            max_steps=s.max_MD_steps,
            max_train=s.max_train_set_size,
            max_labels=INF if s.max_labels is None else s.max_labels,
            desired_acc=s.desired_acc,
            freeze_at=s.freeze_threshold_dataset,
            quiet_limit=s.uncert_not_crossed_limit,
            per_atom=s.uncertainty_type == "ensemble_sd",
            per_system=s.threshold in ("per_system", "calibrated"),
            n_test=n_test,
            test_due=tuple((k + seeds.uniform("test due", seed, k)) / n_test for k in range(n_test)),
            test_trajectory=tuple(
                seeds.seed_number("test of", seed, k) % trajectories for k in range(n_test)
            ),
            analysis_skip=s.analysis_skip if s.analysis else 0,
            acquisition=s.acquisition,
            window=s.window_steps or max(WINDOW_CHECKS * s.skip_step_mlff, math.ceil(WINDOW_TIME / timestep)),
            per_window=s.labels_per_window or trajectories,
            exploded=s.spread_limit,
            warm_up_epochs=s.epochs_before_exploration,
            calibrated=s.threshold == "calibrated",
            target_error=s.target_error,
            confidence=s.confidence,
            audit_share=s.audit_share if s.target_error > 0 else 0.0,
            audit_seed=seed,
            quiet_wanted=s.quiet_MD_steps if s.stop == "when_done" else INF,
            equilibration=int(min(math.ceil(start / timestep), s.max_MD_steps // 2)),
        )


@dataclass(frozen=True)
class ConvergenceRules:
    """Numbers of convergence. margin and losses in the unit of the loss. key: in the settings, of max_epochs.

    training: what the weights are at its beginning, see `final_training` of the settings; "" for models that are fitted
    at once. criterion: what the best weights are best at, see `convergence_criterion`.
    """

    members: tuple[int, ...]
    patience: int
    margin: float
    max_epochs: float
    epochs_per_visit: int = 1
    key: str = "max_convergence_epochs"
    training: str = CONTINUED
    criterion: str = LOSS
