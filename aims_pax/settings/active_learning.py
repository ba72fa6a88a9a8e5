"""ACTIVE_LEARNING in aimsPAX.yaml: exploration, acquisition, training meanwhile, convergence."""

from __future__ import annotations

import math
from typing import Annotated

from aims_pax.settings.bias import BiasSettings
from aims_pax.settings.fields import (
    COUNT,
    LIMIT,
    MEV,
    Flag,
    Kind,
    Limit,
    OptionalText,
    OptionalTextOrMap,
    OptionalTexts,
    OptionalWhole,
    Real,
    RealLimit,
    Section,
    Whole,
    as_whole,
    key,
    one_of,
    optional,
)

Spread = Annotated[str, one_of("max_atomic_sd", "mean_atomic_sd", "ensemble_sd"), Kind("`str`")]
Sharing = Annotated[str, one_of("shared", "per_system", "calibrated"), Kind("`str`")]
Stop = Annotated[str, one_of("limits", "when_done"), Kind("`str`")]
Acquisition = Annotated[str, one_of("window", "crossing"), Kind("`str`")]
Selection = Annotated[str, one_of("diverse", "spread", "random"), Kind("`str`")]
Starts = Annotated[str, one_of("sampled", "geometry"), Kind("`str`")]
DrivingForce = Annotated[str, one_of("mean", "member"), Kind("`str`")]
Replay = Annotated[str, one_of("full_dataset", "random_subset"), Kind("`str`")]
Criterion = Annotated[str, one_of("force_mae", "loss"), Kind("`str`")]
FinalTraining = Annotated[str, one_of("fresh", "continued", "shrink_perturb"), Kind("`str`")]


def _seeds(value: object) -> dict[str, int]:
    if not isinstance(value, dict) or not value:
        raise ValueError("expected a table {tag: seed}")
    seeds = {str(tag): as_whole(seed) for tag, seed in value.items()}
    if len(set(seeds.values())) < len(seeds):
        twice = next(s for s in seeds.values() if list(seeds.values()).count(s) > 1)
        raise ValueError(
            f"seed {twice} is given to two members, which would be identical; expected different seeds"
        )
    return seeds


Seeds = Annotated[dict[str, int] | None, optional(_seeds), Kind("`dict` or `None`")]


class ActiveLearningSettings(Section):
    """ACTIVE_LEARNING: trajectories from which structures are labelled where the ensemble is uncertain."""

    species_dir: OptionalText = key(
        None,
        "Folder of the FHI-aims species defaults; the same in both sections.",
        mandatory="the reference is FHI-aims",
    )
    num_trajectories: Whole = key(
        1,
        "Number of simultaneous trajectories. Geometries are assigned to them in turn.",
        possible=COUNT,
        plausible="[1, 1000]",
        mandatory="there is active learning",
    )
    analysis: Flag = key(
        False,
        "Label structures at fixed intervals and save predictions, errors and uncertainties to `analysis/`.",
    )
    analysis_skip: Whole = key(50, "MD steps between two analysis calculations.", possible=COUNT)
    c_x: Real = key(
        0.0,
        "Threshold = (1 + `c_x`) × mean of the recent uncertainties. Negative values label more structures, positive "
        "values fewer.",
        possible="[-1, inf)",
        plausible="[-0.9, 10]",
    )
    desired_acc: Real = key(
        0.0,
        "Force MAE (eV/Å) on the validation set at which active learning stops. 0: no such criterion.",
        unit="eV/Å",
        possible="[0, inf)",
        plausible="[0.0005, 1]",
        usual=0.02,
        unit_confusions=MEV,
    )
    ensemble_size: Whole = key(
        4,
        "Number of members; the same in both sections. 1 is possible for models that predict their own uncertainty "
        "(not MACE).",
        possible=COUNT,
        plausible="[1, 20]",
    )
    epochs_per_worker: Whole = key(
        2, "Training epochs for each new training structure.", possible=COUNT, plausible="[1, 100]"
    )
    freeze_threshold_dataset: Limit = key(
        math.inf, "Training set size at which the threshold is frozen; inf: never.", possible=LIMIT
    )
    intermediate_epochs_al: Whole = key(
        1, "Epochs of one training visit; other trajectories run between visits.", possible=COUNT
    )
    margin: Real = key(
        0.002,
        "Smallest decrease of the validation loss that counts as an improvement (in the unit of the loss); in "
        "convergence only with `convergence_criterion: loss`.",
        possible="[0, inf)",
        plausible="[0, 1]",
    )
    max_MD_steps: Limit = key(math.inf, "Maximum number of MD steps of each trajectory.", possible=LIMIT)
    max_train_set_size: Limit = key(
        math.inf, "Training set size at which active learning stops.", possible=LIMIT
    )
    seeds_tags_dict: Seeds = key(
        None,
        "Seeds of the members, `{tag: seed}`; `None`: drawn from `GENERAL.seed`.",
        possible="[0, 4294967295]",
    )
    skip_step_mlff: Whole = key(
        25, "MD steps between two checks of the uncertainty.", possible=COUNT, plausible="[1, 1000]"
    )
    uncertainty_type: Spread = key(
        "max_atomic_sd",
        "Uncertainty of a structure, from the standard deviation of the members' forces on each atom: its maximum "
        "(`max_atomic_sd`), its mean (`mean_atomic_sd`), or each atom separately (`ensemble_sd`).",
    )
    uncert_not_crossed_limit: Limit = key(
        50000,
        "MD steps without crossing the threshold after which a structure is labelled anyway.",
        possible=LIMIT,
        plausible="[100, inf]",
    )
    valid_ratio: Real = key(
        0.1,
        "Fraction of the labelled structures used for validation.",
        possible="[0, 1)",
        plausible="[0.02, 0.5]",
    )
    valid_skip: Whole = key(
        1, "Training epochs between two validations.", possible=COUNT, plausible="[1, 100]"
    )
    acquisition: Acquisition = key(
        "window",
        "How structures are chosen for labelling. `window`: trajectories move on and collect uncertain structures; the "
        "best of each window are labelled. `crossing`: a trajectory stops at the first structure above the threshold "
        "and waits until it is labelled and learnt (arXiv:2508.12888).",
    )
    window_steps: OptionalWhole = key(
        None,
        "MD steps of a window, for each trajectory; None: 500 fs, and at least 10 × `skip_step_mlff`. Structures of a "
        "shorter time resemble each other.",
        possible=COUNT,
        plausible="[10, 100000]",
    )
    labels_per_window: OptionalWhole = key(
        None, "Structures labelled after each window; None: as many as trajectories.", possible=COUNT
    )
    selection: Selection = key(
        "diverse",
        "Which candidates of a window are labelled: those with the largest uncertainty × distance to the nearest "
        "labelled structure (`diverse`), the largest uncertainty (`spread`), or any (`random`).",
    )
    start_structures: Starts = key(
        "sampled",
        "Where trajectories begin: at different structures of the initial dataset (`sampled`), or at the geometry "
        "(`geometry`).",
    )
    energy_limit: RealLimit = key(
        5.0,
        "An uncertain structure is not labelled, and its trajectory is rewound, when its predicted energy is farther "
        "from the lowest label of the same atoms than thermal motion reaches: f/2 kT + `energy_limit` × √(f/2) kT "
        "for f degrees of freedom. inf: no limit.",
        possible="[0, inf]",
        plausible="[2, inf]",
    )
    spread_limit: RealLimit = key(
        4.0,
        "The same when its uncertainty is larger than `spread_limit` × the threshold: the models know nothing there. "
        "Its trajectory is rewound, and the structure where the uncertainty began to rise is labelled. inf: no limit.",
        possible="(1, inf]",
        plausible="[2, inf]",
    )
    epochs_before_exploration: Whole = key(
        100,
        "Epochs of training, at most, before the trajectories begin: until the force error on the validation set no "
        "longer falls. Models that have only begun to learn lead MD to structures that no simulation visits. Fewer for "
        "training sets of more than 100 structures. 0: none.",
        possible="[0, inf)",
        plausible="[0, 1000]",
    )
    threshold: Sharing = key(
        "shared",
        "One uncertainty threshold for all geometries (`shared`), one for each (`per_system`), or the spread at "
        "which the error may exceed `target_error`, learnt from the labels of each geometry (`calibrated`; until "
        "there are 5 of them as `per_system`).",
    )
    target_error: Real = key(
        0.0,
        "Largest error of a force component in a structure (eV/Å), averaged over the structures that MD visits, "
        "that you want to reach; the mean absolute error of all components is about 4 times smaller in a small "
        "molecule. It is measured on every labelled structure before it is learnt. 0: no target.",
        unit="eV/Å",
        possible="[0, inf)",
        plausible="[0.01, 2]",
        usual=0.1,
        unit_confusions=MEV,
    )
    confidence: Real = key(
        0.9,
        "Probability with which errors are below their bounds: of a structure (`threshold: calibrated`) and of "
        "the mean (stop rule).",
        possible="[0.5, 0.99]",
        plausible="[0.7, 0.95]",
    )
    audit_share: Real = key(
        0.2,
        "Share of the labels that is drawn at random, whatever the uncertainty, so that the error is measured without "
        "bias. Test structures count. Others are learnt after their error was measured.",
        possible="[0, 1]",
        plausible="[0.05, 0.5]",
    )
    stop: Stop = key(
        "limits",
        "When active learning ends: at the limits below (`limits`), or also when, for every geometry, "
        "`target_error` is reached and no new region was reached for `quiet_MD_steps`, or more labels hardly help "
        "(`when_done`).",
    )
    quiet_MD_steps: Limit = key(
        2000,
        "With `stop: when_done`: MD steps of all trajectories of a geometry together, without a structure whose "
        "expected error is above twice `target_error`.",
        possible=LIMIT,
        plausible="[100, inf]",
    )
    max_labels: Limit = key(
        math.inf,
        "Budget: active learning stops after this many reference calculations of its own; those of the initial dataset "
        "and of `MISC.check_given_data` are not counted. 0: no active learning; the models learn the structures "
        "that they have, and converge.",
        possible="[0, inf]",
    )
    n_test: Whole = key(
        0,
        "Structures that are labelled at random times of active learning and used only for the final test errors. Each "
        "is drawn from a trajectory that has moved for 200 fs since its start (1 ps with `start_structures: geometry`) "
        "and since its last test structure. Those missing when a limit is reached are drawn then; their labels are set "
        "aside from `max_labels`.",
        possible="[0, inf)",
        plausible="[0, 10000]",
    )
    initial_train_dataset: OptionalTextOrMap = key(
        None,
        "extxyz file with labelled training structures to start from, or one file per member "
        "`{member: path}`.",
    )
    initial_valid_dataset: OptionalTextOrMap = key(
        None,
        "The same for validation; without it a fraction `valid_ratio` of the training structures is used.",
    )
    initial_models: OptionalTexts = key(
        None, "Model files (`.model` for MACE) to start from, one per member."
    )
    md_force: DrivingForce = key(
        "mean",
        "Forces that drive the trajectories: the `mean` of all members, or those of one `member` (trajectory i uses "
        "member i mod `ensemble_size`). With `member`, the others are evaluated only when the uncertainty is checked: "
        "several times faster.",
    )
    bias: BiasSettings | None = key(
        None,
        "Bias of the MD towards structures about which the members disagree, `{kind: hal, strength: 1}`; `None`: none. "
        "All members are evaluated at every step, also with `md_force: member`.",
    )
    replay_strategy: Replay = key(
        "full_dataset",
        "Data of a training visit in addition to the new structures: the whole dataset (`full_dataset`), or a new "
        "random subset (`random_subset`), so that the cost per label does not grow with the dataset.",
    )
    train_subset_size: Whole = key(
        100,
        "Training structures of a training visit with `random_subset`.",
        possible=COUNT,
        plausible="[20, 100000]",
    )
    valid_subset_size: Whole = key(
        50,
        "Validation structures used with `random_subset`.",
        possible="[10, inf)",
        plausible="[20, 100000]",
    )
    converge_al: Flag = key(True, "Converge on the final dataset after active learning.")
    converge_best: Flag = key(True, "Converge only the best member; the others go to `results/committee/`.")
    convergence_criterion: Criterion = key(
        "force_mae",
        "What decides on the best epoch of convergence and on patience: the force MAE on the validation set "
        "(`force_mae`; an improvement is at least 0.1 %), or the loss (`loss`; at least `margin`). The loss is a mean "
        "of squares, so one validation frame far from equilibrium can hide that all others improve.",
    )
    final_training: FinalTraining = key(
        "continued",
        "Weights with which convergence begins: those at the end of active learning (`continued`); those that the "
        "member began the run with, before its first training (`fresh`: random ones of its seed, of the foundation "
        "model, or pre-trained), with energy offsets and force scale of all data; or halfway between the two "
        "(`shrink_perturb`).",
    )
    convergence_patience: Whole = key(
        50,
        "Epochs without improvement before convergence ends; not while errors fall so fast that they will be below the "
        "best before as many epochs again.",
        possible=COUNT,
    )
    max_convergence_epochs: Whole = key(500, "Maximum number of epochs of convergence.", possible=COUNT)
